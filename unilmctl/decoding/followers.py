"""What followed the same few tokens before: drafts that cost nothing but a look into a table."""

from collections.abc import Sequence

LONGEST = 4
"""Tokens of the longest context that is remembered."""

SHORTEST = 2
"""Tokens of the shortest: one token says too little about the next."""

LIMIT = 1 << 17
"""Contexts that are remembered at most; the one that was met longest ago is forgotten first."""


class Followers:
    """The token that followed each context when it was last met."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._next: dict[tuple[int, ...], int] = {}

    def learn(self, tokens: Sequence[int], first: int = 0) -> None:
        """Remembers what precedes each of `tokens` from place `first` on."""
        for place in range(max(first, SHORTEST), len(tokens)):
            for size in range(SHORTEST, min(LONGEST, place) + 1):
                context = tuple(tokens[place - size : place])
                self._next.pop(context, None)
                self._next[context] = tokens[place]
        while len(self._next) > self._limit:
            del self._next[next(iter(self._next))]

    def draft(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens that may follow `tokens`; fewer, or none, where nothing like it was met."""
        context = list(tokens[-LONGEST:])
        drafts: list[int] = []
        while len(drafts) < count:
            sizes = range(min(LONGEST, len(context)), SHORTEST - 1, -1)
            known = (self._next.get(tuple(context[-size:])) for size in sizes)
            follower = next((token for token in known if token is not None), None)
            if follower is None:
                break
            drafts.append(follower)
            context.append(follower)
        return drafts
