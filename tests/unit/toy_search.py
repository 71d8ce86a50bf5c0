"""A toy model for the searches: next-token scores for every history, in a table; and every output, by enumeration."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from unilmctl.search import Rules, Scoring

END = 0


@dataclass
class Node:
    """The state of R rows: which sentence each belongs to, and which history it has (its place in the table).

    It can be used once only, as a state that is changed in place.
    """

    sentence: Tensor
    place: Tensor
    spent: bool = False

    def use(self) -> "Node":
        assert not self.spent
        self.spent = True
        return self

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Node":
        self.use()
        order = list(dict.fromkeys(self.sentence.tolist()))
        stay = order if sentences is None else [order[place] for place in sentences.tolist()]
        assert list(dict.fromkeys(self.sentence[rows].tolist())) == stay
        return Node(self.sentence[rows], self.place[rows])

    def joined(self, other: "Node") -> "Node":
        self.use()
        other.use()
        return Node(torch.cat((self.sentence, other.sentence)), torch.cat((self.place, other.place)))


class Toy:
    """Logits for every history of up to `depth` tokens: a table [N, histories, V]."""

    def __init__(
        self, seed: int, *, sentences: int = 2, vocabulary: int = 4, depth: int = 4, scale: float = 1.5
    ) -> None:
        random = np.random.default_rng(seed)
        histories = sum(vocabulary**length for length in range(depth + 1))
        self.table = torch.from_numpy(random.normal(0, scale, (sentences, histories, vocabulary))).float()
        self.vocabulary = vocabulary
        self.calls: list[int] = []

    def only(self, sentences: list[int]) -> "Toy":
        """The same model for some of the sentences."""
        toy = object.__new__(Toy)
        toy.table, toy.vocabulary, toy.calls = self.table[sentences], self.vocabulary, []
        return toy

    def start(self, sentences: list[int] | None = None) -> tuple[Tensor, Node]:
        """The first logits and the state of some sentences; None: of all."""
        some = torch.arange(len(self.table)) if sentences is None else torch.tensor(sentences, dtype=torch.long)
        return self.table[some, 0].clone(), Node(some, torch.zeros_like(some))

    def step(self, tokens: Tensor, state: Node) -> tuple[Tensor, Node]:
        self.calls.append(len(tokens))
        state.use()
        place = state.place * self.vocabulary + tokens + 1
        place = torch.where(place < self.table.shape[1], place, 0)
        return self.table[state.sentence, place].clone(), Node(state.sentence, place)

    def token_scores(self, sentence: int, ids: list[int], penalty: float = 1.0) -> list[float]:
        """Log-probabilities of `ids` one after another, with a repetition penalty."""
        place, scores = 0, []
        for time, token in enumerate(ids):
            logits = self.table[sentence, place].double()
            for old in set(ids[:time]):
                logits[old] = logits[old] / penalty if logits[old] > 0 else logits[old] * penalty
            scores.append(float(logits.log_softmax(-1)[token]))
            place = place * self.vocabulary + token + 1
        return scores


def allowed(ids: list[int], rules: Rules) -> bool:
    """Whether an output without its end token keeps the rules, read off them word by word."""
    if len(ids) < rules.min_length or set(ids) & set(rules.forbid):
        return False
    size = rules.no_repeat_ngram
    grams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)] if size else []
    grams = [gram for gram in grams if not set(gram) & set(rules.no_repeat_ignore)]
    return len(set(grams)) == len(grams)


def every_output(
    toy: Toy, sentence: int, rules: Rules, scoring: Scoring, prefix: list[int] | None = None
) -> list[tuple[float, list[int]]]:
    """Score and ids of all outputs of a sentence that the rules allow, best first."""
    others = [token for token in range(toy.vocabulary) if token != rules.end]
    found = []
    for length in range(rules.max_length):
        for ids in map(list, product(others, repeat=length)):
            if allowed(ids, rules) and ids[: len(prefix or [])] == (prefix or []):
                total = sum(toy.token_scores(sentence, [*ids, rules.end], rules.repetition_penalty))
                found.append((total / scoring.divisor(length + 1), ids))
    return sorted(found, key=lambda entry: -entry[0])
