"""What an output is to be, in tokens: the rules that the options make, and what is wished for one output alone.

What cannot be written is refused here, in the words of whoever wished for it.
"""

from collections.abc import Sequence

from unilmctl.errors import DataError, UsageError
from unilmctl.generation.options import GenerateOptions
from unilmctl.search import Phrase, Rules, Task, distinct, holds
from unilmctl.tokens import Tokenizer


class Wishes:
    """The rules for all outputs, and a judge of what is wished for one."""

    def __init__(self, options: GenerateOptions, tokenizer: Tokenizer, longest: int) -> None:
        """`longest`: tokens of an output at most, its end counted. UsageError for wishes that cannot be met."""
        self._search, self._groups, self._tokenizer = options.search, options.beam_groups, tokenizer
        self.rules = _rules(options, tokenizer, longest)
        self._must = [spellings(tokenizer, text) for text in options.must]
        try:
            self.task(Task(0))
        except DataError as error:
            raise UsageError(f"must: {error.message}", error.hint) from error

    def task(self, task: Task) -> Task:
        """The task with the phrases that every output must hold. DataError for what cannot be written.

        UsageError for what the search does not know.
        """
        phrases = [*task.phrases, *self._must]
        longest = self.rules.max_length
        if task.prefix and self._search == "s2s-ft":
            raise UsageError("--search s2s-ft knows no forced beginnings", "--search beam")
        if len(task.prefix) >= longest:
            raise DataError(
                f"a forced beginning of {len(task.prefix)} tokens leaves no room below max_length {longest}"
            )
        if phrases:
            self._check(task, phrases)
        return task._replace(phrases=phrases)

    def _check(self, task: Task, phrases: Sequence[Phrase]) -> None:
        """Refuses phrases that no output can hold."""
        if self._search != "beam":
            raise UsageError(f"{self._search} search knows no phrases that must appear", "--search beam")
        if self._groups > 1:
            raise UsageError("groups of a beam know no phrases that must appear", "--beam-groups 1")
        for phrase in phrases:
            self._check_words(phrase)
        self._check_room(task.prefix, [phrase for phrase in distinct(phrases) if not holds(task.prefix, phrase)])

    def _check_words(self, phrase: Phrase) -> None:
        if not phrase:
            raise DataError("a phrase that must appear is empty")
        if any(self._tokenizer.roles.unknown in spelling for spelling in phrase):
            raise DataError(f"the phrase {self._text(phrase)} has words that are not in the vocabulary")
        unwanted = [*((token,) for token in self.rules.forbid), *self.rules.forbid_phrases]
        if all(holds(spelling, unwanted) for spelling in phrase):
            raise DataError(f"the phrase {self._text(phrase)} must appear, and a part of it is forbidden")

    def _check_room(self, prefix: Sequence[int], phrases: Sequence[Phrase]) -> None:
        length = sum(min(map(len, phrase)) for phrase in phrases)
        if length <= self.rules.max_length - 1 - len(prefix):
            return
        names = ", ".join(map(self._text, phrases))
        who = f"the phrase {names} takes" if len(phrases) == 1 else f"the phrases {names} take together"
        place = f" after a beginning of {len(prefix)}" if prefix else ""
        room = f"below max_length {self.rules.max_length}"
        raise DataError(f"{who} {length} tokens{place}, for which there is no room {room}", "max_length counts the end")

    def _text(self, phrase: Phrase) -> str:
        return f"'{self._tokenizer.decode(phrase[0])}'"


def spellings(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """The ways to write a text: byte-level BPE has other tokens after a blank than at the very beginning."""
    word = text.strip()
    ways = [word, f" {word}"] if tokenizer.kind == "bpe" else [word]
    found = tokenizer.encode_batch(ways) if word else []
    return [ids for place, ids in enumerate(found) if ids and ids not in found[:place]]


def _rules(options: GenerateOptions, tokenizer: Tokenizer, longest: int) -> Rules:
    roles = tokenizer.roles
    forbid = [_token(tokenizer, "forbid", token) for token in options.forbid]
    if roles.separator in forbid:
        raise UsageError("the token that ends an output cannot be forbidden")
    if options.search != "s2s-ft":
        forbid += [roles.pad, roles.start, roles.mask]
    return Rules(
        end=roles.separator,
        max_length=longest,
        min_length=options.min_length,
        no_repeat_ngram=options.no_repeat_ngram,
        no_repeat_ignore=tuple(_token(tokenizer, "no_repeat_ignore", token) for token in options.no_repeat_ignore),
        forbid=tuple(dict.fromkeys(forbid)),
        repetition_penalty=options.repetition_penalty,
        forbid_phrases=tuple(spelling for text in options.forbid_phrase for spelling in _unwanted(tokenizer, text)),
    )


def _token(tokenizer: Tokenizer, option: str, token: str) -> int:
    found = tokenizer.token_id(token)
    if found is None:
        raise UsageError(f"{option}: the vocabulary has no token '{token}'")
    return found


def _unwanted(tokenizer: Tokenizer, text: str) -> list[tuple[int, ...]]:
    found = [tuple(spelling) for spelling in spellings(tokenizer, text)]
    if not found:
        raise UsageError("forbid_phrase: a phrase is empty")
    if any(tokenizer.roles.unknown in spelling for spelling in found):
        raise UsageError(f"forbid_phrase: '{text}' has words that are not in the vocabulary")
    return found
