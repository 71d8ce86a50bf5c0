"""Beam search and greedy search by the rules of microsoft/unilm's s2s-ft, to the last one.

A ban costs 10000 and does not renormalise. An output that ended costs 10000 more with each further token: it keeps its
place in the beam for one step and then gives way to the children of live beams. Nothing stops early. At the very end
the winner is chosen, with the length penalty, among all outputs that ended at any step up to the first at which all
beams ended, and everything in the beam at that step (or the last); the earliest step and then the lowest beam win
ties. One beam is greedy search, which knows neither minimal length nor repeated n-grams.

(s2s-ft `modeling_decoding.py`, commit 768a3c8; forbidden tokens as unilm-v1's `--not_predict_token`.) The one liberty
taken: a sentence leaves the batch once all of its beams have ended, because nothing later is read.

Shapes: N sentences, K beams, T steps, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.search.rules import Rules, repeated
from unilmctl.search.scoring import SUM, Hypothesis, Scoring
from unilmctl.search.step import S, Step

PENALTY = -10000.0
DEAD = -5000.0


@dataclass(frozen=True)
class Trace:
    """All that happened, [N, T, K]: total scores, the tokens' own scores, tokens, the beam each continued.

    `frames` [N] counts the steps that were run.
    """

    totals: Tensor
    steps: Tensor
    tokens: Tensor
    parents: Tensor
    frames: Tensor

    @staticmethod
    def empty(shape: tuple[int, int, int]) -> "Trace":
        """Nothing has happened yet, for shape [N, T, K]."""
        tokens, parents = torch.zeros(2, *shape, dtype=torch.long)
        return Trace(torch.zeros(shape), torch.zeros(shape), tokens, parents, torch.zeros(shape[0], dtype=torch.long))

    def record(self, sentences: Tensor, time: int, entry: "_Frame") -> None:
        """Writes what happened to `sentences` [N'] at one step; a trace is kept by the processor."""
        places = sentences.cpu()
        for part, value in zip((self.totals, self.steps, self.tokens, self.parents), entry, strict=True):
            part[places, time] = value.cpu()
        self.frames[places] = time + 1


def s2s_ft(
    first: Tensor,
    state: S,
    step: Step[S],
    rules: Rules,
    *,
    beam: int,
    nbest: int = 1,
    scoring: Scoring = SUM,
    pad: int | None = None,
) -> list[list[Hypothesis]]:
    """The outputs of each sentence, best first, by the rules of s2s-ft; text ends at the first end or `pad` token.

    `beam` must not exceed the vocabulary.
    """
    trace = s2s_ft_trace(first, state, step, rules, beam=beam)
    sentences = range(len(first))
    if beam == 1:
        return [[_greedy_output(trace, sentence, rules.end, pad, scoring)] for sentence in sentences]
    return [_selected(trace, sentence, rules.end, nbest, scoring, pad) for sentence in sentences]


def s2s_ft_trace(first: Tensor, state: S, step: Step[S], rules: Rules, *, beam: int) -> Trace:
    """Runs the beams of every sentence to the end; arguments as in `s2s_ft`."""
    count = len(first)
    shape = (count, rules.max_length, beam)
    trace = Trace.empty(shape)
    rules = replace(rules, min_length=0, no_repeat_ngram=0) if beam == 1 else rules
    with first.device:
        waiting, totals = torch.arange(count), torch.zeros(count, 1)
        written = torch.zeros(count, 1, 0, dtype=torch.long)
    logits = first[:, None]
    for time in range(rules.max_length):
        penalised = _penalised(logits.log_softmax(-1), written, rules)
        entry = _best(penalised, totals, written, rules.end, beam)
        trace.record(waiting, time, entry)
        totals, _, tokens, parents = entry
        rows = parents + written.shape[1] * torch.arange(len(waiting), device=first.device)[:, None]
        history = written.gather(1, parents[..., None].expand(-1, -1, time))
        written = torch.cat((history, tokens[..., None]), 2)
        stay = ((tokens != rules.end).any(1) | (beam == 1)).nonzero()[:, 0]
        if len(stay) == 0 or time + 1 == rules.max_length:
            break
        waiting, written, totals, rows, tokens = (part[stay] for part in (waiting, written, totals, rows, tokens))
        flat, state = step(tokens.flatten(), state.reordered(rows.flatten(), stay))
        logits = flat.view(len(waiting), beam, -1)
    return trace


def _penalised(scores: Tensor, written: Tensor, rules: Rules) -> Tensor:
    """Log-probabilities [N, B, V] with the bans of s2s-ft."""
    if rules.no_repeat_ngram and written.shape[2] >= rules.no_repeat_ngram:
        rows, tokens = repeated(written.flatten(0, 1), rules.no_repeat_ngram, rules.no_repeat_ignore)
        banned = scores.new_zeros(written.shape[0] * written.shape[1], scores.shape[2])
        banned[rows, tokens] = PENALTY
        scores = scores + banned.view(scores.shape)
    if written.shape[2] < rules.min_length:
        scores[:, :, rules.end] = PENALTY
    if rules.forbid:
        scores[:, :, list(rules.forbid)] = PENALTY
    return scores


class _Frame(NamedTuple):
    """One step of a `Trace`: four [N, K]."""

    totals: Tensor
    steps: Tensor
    tokens: Tensor
    parents: Tensor


def _best(scores: Tensor, totals: Tensor, written: Tensor, end: int, beam: int) -> _Frame:
    """The K best children, given their log-probabilities [N, B, V] and the totals of their parents [N, B]."""
    steps, tokens = scores.topk(beam, dim=-1)  # [N, B, K]
    summed = steps + totals[..., None]
    if written.shape[2] and beam > 1:
        summed = summed + PENALTY * (written[:, :, -1:] == end)
    best, order = summed.flatten(1).topk(beam, dim=1)
    return _Frame(best, steps.flatten(1).gather(1, order), tokens.flatten(1).gather(1, order), order // beam)


def _selected(trace: Trace, sentence: int, end: int, nbest: int, scoring: Scoring, pad: int | None) -> list[Hypothesis]:
    """The `nbest` best of all that ended and of the last frame; dead beams are given out only for want of others."""
    last = int(trace.frames[sentence]) - 1
    found = []
    for frame in range(last + 1):
        divisor = scoring.divisor(frame + 1)
        for beam, total in enumerate(trace.totals[sentence, frame].tolist()):
            if frame == last or int(trace.tokens[sentence, frame, beam]) == end:
                found.append((total / divisor, frame, beam))
    found.sort(key=lambda entry: -entry[0])
    alive = [entry for entry in found if entry[0] > DEAD] or found[:1]
    return [_traced(trace, sentence, entry, end, pad) for entry in alive[:nbest]]


def _traced(trace: Trace, sentence: int, entry: tuple[float, int, int], end: int, pad: int | None) -> Hypothesis:
    """The output that arrives at a frame and beam, read backwards."""
    score, frame, beam = entry
    ids, steps = [], []
    for time in range(frame, -1, -1):
        ids.append(int(trace.tokens[sentence, time, beam]))
        steps.append(float(trace.steps[sentence, time, beam]))
        beam = int(trace.parents[sentence, time, beam])
    return _cut(ids[::-1], steps[::-1], score, end, pad)


def _greedy_output(trace: Trace, sentence: int, end: int, pad: int | None, scoring: Scoring) -> Hypothesis:
    frames = int(trace.frames[sentence])
    steps = trace.steps[sentence, :frames, 0].tolist()
    cut = _cut(trace.tokens[sentence, :frames, 0].tolist(), steps, 0.0, end, pad)
    score = sum(cut.token_scores) / scoring.divisor(len(cut.token_scores))
    return cut._replace(score=score)


def _cut(ids: list[int], steps: list[float], score: float, end: int, pad: int | None) -> Hypothesis:
    """The text ends before the first end or padding token; the score stays that of the whole."""
    length = next((place for place, token in enumerate(ids) if token in (end, pad)), len(ids))
    return Hypothesis(ids[:length], score, steps[: length + 1])
