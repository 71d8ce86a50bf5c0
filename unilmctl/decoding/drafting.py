"""Several tokens in one pass: what may follow is drafted, and the pass that reads the drafts verifies them.

`Drafting` stands in a decoder's place. A pass over one sentence takes hardly longer with eight tokens than with one,
because its time goes into reading weights. So the tokens that are likely to follow are read at once, and with them what
the model says after each. As long as a search chooses what was drafted, its next logits are there already; where it
chooses another token, the drafts after that are forgotten. The search knows nothing of it: its rules hold, and what it
writes is what it would have written one token at a time (Leviathan et al. 2022, arXiv 2211.17192; with drafts of the
model's own, Stern et al. 2018, arXiv 1811.03115).

Drafts come from two places:

- `mask` reading: [MASK]s that ask for tokens further on, in the same pass. Each reads the [MASK]s before it in place of
  the tokens that are not known yet: so did the rows of training, in which [MASK]s overwrote some of the written tokens.
  The clock has room for them: token i is written at time (i + 1) * tick, and whatever asks for the tokens from i on
  without knowing it lives in the time before.
- what followed the same tokens before, in a source or an output (`Followers`), where there are no others.

Shapes: N sentences of one row each, W tokens that are read and stay (the last one chosen, and drafts), K [MASK]s
further on, D hidden width, V vocabulary.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unilmctl.decoding.followers import Followers
from unilmctl.decoding.stepping import Decoder, Written
from unilmctl.rows import Ints
from unilmctl.visibility import FOREVER, PADDING, Slots, stack

ROOM = 10
"""Tokens that a pass reads in hardly more time than one. Sentences that fill it by themselves get no drafts."""


@dataclass
class Sentence:
    """What one sentence has written, after a separator, and what may follow.

    `logits` [1 + X, V] are what the model says after the last token, and after each of X drafts that it has read;
    there are none when it has to be asked again. `drafts` begin with these X and go on with others.
    """

    tokens: list[int]
    logits: Tensor
    drafts: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Tokens written."""
        return len(self.tokens) - 1

    def write(self, token: int) -> None:
        """Takes the token that was chosen."""
        drafted = self.drafts[:1] == [token]
        self.tokens.append(token)
        self.drafts = self.drafts[1:] if drafted else []
        self.logits = self.logits[1:] if drafted else self.logits[:0]


@dataclass
class Drafted:
    """The state of sentences of one row each. Whoever calls a method gives the old state up."""

    written: Written
    sentences: list[Sentence]

    def reordered(self, rows: Tensor, sentences: Tensor | None = None) -> "Drafted":
        """Only `sentences` [N'] stay, in that order (None: all, in the order of `rows`)."""
        stay = rows if sentences is None else sentences
        return Drafted(self.written.reordered(rows, stay), [self.sentences[place] for place in stay.tolist()])

    def joined(self, other: "Drafted") -> "Drafted":
        """With the sentences of `other` after those of this state."""
        return Drafted(self.written.joined(other.written), self.sentences + other.sentences)


class Drafting:
    """A decoder with up to `drafts` drafts a pass, for searches with one output a sentence.

    `passes` counts how often the model was read after the sources.
    """

    def __init__(self, decoder: Decoder, drafts: int) -> None:
        self.decoder = decoder
        self.drafts = drafts
        self.passes = 0
        self._followers = Followers()
        self._masks = decoder.reading == "mask"
        # Between the source and the first target token there may be a separator that starts the target.
        self._gap = int(not self._masks and decoder.frame.separator_in == "target")

    @torch.no_grad()
    def start(self, sources: list[Ints]) -> tuple[Tensor, Drafted]:
        """Sources without special tokens give the logits [N, V] of the first target token, and the state."""
        for source in sources:
            self._followers.learn(source.tolist())
        if self._masks and self._room(len(sources)):
            written = self.decoder.encode(sources)
            state = Drafted(written, [self._sentence(written.hidden[:0]) for _ in sources])
            self._read(state)
        else:
            self.passes += 1
            logits, written = self.decoder.start(sources)
            state = Drafted(written, [self._sentence(row[None]) for row in logits])
        return torch.stack([sentence.logits[0] for sentence in state.sentences]), state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: Drafted) -> tuple[Tensor, Drafted]:
        """The tokens [N] just chosen give the next tokens' logits [N, V] and the state after them."""
        for sentence, token in zip(state.sentences, tokens.tolist(), strict=True):
            sentence.write(token)
            self._followers.learn(sentence.tokens, sentence.count)
        if not all(len(sentence.logits) for sentence in state.sentences):
            self._read(state)
        return torch.stack([sentence.logits[0] for sentence in state.sentences]), state

    def _sentence(self, logits: Tensor) -> Sentence:
        return Sentence([self.decoder.frame.separator], logits)

    def _room(self, sentences: int) -> int:
        """Drafts of each sentence that a pass has room for; a [MASK] and another further on come with each."""
        each = ROOM // sentences
        return max(0, min(self.drafts, (each - 2) // 3 if self._masks else each - 1))

    def _read(self, state: Drafted) -> None:
        """One pass: the logits of every sentence, and new drafts."""
        self.passes += 1
        written, room = state.written, self._room(len(state.sentences))
        written.counts = torch.tensor([sentence.count for sentence in state.sentences], device=written.sizes.device)
        _forget(written, written.sizes + (self._gap + written.counts - 1).clamp(min=0))
        if room:
            self._read_drafts(written, state.sentences, room)
        else:
            self._read_one(state)

    def _read_one(self, state: Drafted) -> None:
        """As the decoder does it: one token of each sentence."""
        state.written.counts -= 1
        last = [sentence.tokens[-1] for sentence in state.sentences]
        logits, state.written = self.decoder.step(torch.tensor(last, device=state.written.sizes.device), state.written)
        for sentence, row in zip(state.sentences, logits, strict=True):
            sentence.logits, sentence.drafts = row[None], []

    def _read_drafts(self, written: Written, sentences: list[Sentence], room: int) -> None:
        """The last token of each sentence and up to `room` drafts."""
        for sentence in sentences:
            sentence.drafts = self._settled(sentence, room)
        width = 1 + max(len(sentence.drafts) for sentence in sentences)
        logits = self._logits(written, sentences, width, room if self._masks else 0)
        for sentence, rows in zip(sentences, logits, strict=True):
            verified = len(sentence.drafts)
            sentence.logits = rows[: verified + 1]
            if self._masks:
                sentence.drafts += [int(rows[verified].argmax()), *rows[width:].argmax(-1).tolist()]

    def _settled(self, sentence: Sentence, room: int) -> list[int]:
        """The drafts that are read next: within the longest output, and none from an end on."""
        end = self.decoder.frame.separator
        room = max(0, min(room, self.decoder.frame.max_target - 1 - sentence.count))
        drafts = sentence.drafts[:room] or self._followers.draft(sentence.tokens, room)
        return drafts[: drafts.index(end)] if end in drafts else drafts

    def _logits(self, written: Written, sentences: list[Sentence], width: int, further: int) -> Tensor:
        """What the model says [N, W + K, V] after each token that it reads, and at `further` [MASK]s after those."""
        frame, counts = self.decoder.frame, written.counts[:, None]
        rows = [sentence.tokens[-1:] + sentence.drafts for sentence in sentences]
        ids = torch.tensor([row + [frame.pad] * (width - len(row)) for row in rows], device=counts.device)
        lengths = torch.tensor([[len(row)] for row in rows], device=counts.device)
        places, slots = _read_tokens(counts, lengths, width, further + 2)
        if self._masks:
            asked, questions = _questions(counts, lengths, width, further)
            ids = torch.cat((ids, torch.full_like(asked, frame.mask)), 1)
            places, slots = torch.cat((places, asked), 1), stack([slots, questions])
        last = frame.max_target - 1  # padding is put there: what is behind the text is forgotten before it is read
        places = torch.where(slots.document == PADDING, last, places + self._gap).clamp(max=last)
        segments = torch.full_like(ids, frame.target_segment)
        encoder = self.decoder.encoder
        positions, wanted = written.sizes[:, None] + places, ids.shape[1] - width if self._masks else width
        hidden, _ = encoder.step(ids, positions, segments, slots, written.cache, kept=width, asked=wanted)
        written.hidden = hidden[:, 0]
        return encoder.logits(hidden).float()


def _forget(written: Written, positions: Tensor) -> None:
    """Frees what was read at `positions` [N] and after them."""
    cache = written.cache
    cache.seen &= (cache.positions[: cache.sentences] < positions[:, None])[:, None]


def _read_tokens(counts: Tensor, lengths: Tensor, width: int, tick: int) -> tuple[Tensor, Slots]:
    """Which tokens [N, W] of its output each sentence reads, and their slots.

    `counts` [N, 1] were written, the last of them is read again, `lengths` [N, 1] are read, the rest is padding: all of
    it, where nothing was written.
    """
    order = torch.arange(width, device=counts.device)
    places = counts - 1 + order
    real = (order < lengths) & (places >= 0)
    time = tick * (places + 1)
    return places, Slots(torch.where(real, 0, PADDING), time, torch.full_like(time, FOREVER))


def _questions(counts: Tensor, lengths: Tensor, width: int, further: int) -> tuple[Tensor, Slots]:
    """Which tokens [N, W + K] are asked for, and the slots of the [MASK]s that ask: one after each token that is read,
    and `further` ones after the last of them, each of which reads those before it."""
    tick = further + 2
    order = torch.arange(width + further, device=counts.device)
    beyond = (order - width + 1).clamp(min=0)  # 0 for a [MASK] that follows a token
    known = torch.where(beyond > 0, lengths - 1, order)  # how many drafts each one reads
    time = tick * (counts + known) + 1 + beyond
    document = torch.where((beyond > 0) | (order < lengths), 0, PADDING)
    return counts + known + beyond, Slots(document, time, tick * (counts + known + 1))
