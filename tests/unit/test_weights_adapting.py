"""Tables resized: positions by tiling, segments by UniLM 1's copy rule, vocabularies cut with their tokenizers."""

import io
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import WORDS, same, tiny, write_vocabulary
from tokenizers import decoders, models, pre_tokenizers, processors

from unilmctl.errors import UsageError
from unilmctl.tokens import Tokenizer, train
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights.adapting import with_positions, with_segments, with_vocabulary
from unilmctl.weights.cutting import cut

TEXTS = ["the cat sat on the mat", "a dog ate the cat's hat", "深度学习 is fun", "Ünïcode, 4,217 & more!"] * 5


@given(st.integers(1, 35))
@settings(deadline=None, max_examples=30)
def test_positions_are_tiled_or_cropped(positions: int) -> None:
    encoder = tiny()
    old = encoder.embeddings.position.weight
    changed, resized = with_positions(encoder, positions)
    assert changed.config.positions == positions
    for index in range(positions):
        assert torch.equal(changed.embeddings.position.weight[index], old[index % 10])
    assert (resized is None) == (positions == 10)
    assert encoder.config.positions == 10


def test_the_report_says_how_positions_changed() -> None:
    _, grown = with_positions(tiny(), 25)
    _, cropped = with_positions(tiny(), 4)
    assert grown is not None
    assert cropped is not None
    assert tuple(grown) == ("positions", 10, 25, "the old rows repeated from the first")
    assert tuple(cropped) == ("positions", 10, 4, "the last rows dropped")


def test_reserved_rows_stay_when_positions_grow() -> None:
    encoder = tiny(family="roberta")
    changed, _ = with_positions(encoder, 30)
    assert torch.equal(changed.embeddings.reserved, encoder.embeddings.reserved)


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        (2, 6, [0, 1, 0, 0, 0, 1]),
        (2, 7, [0, 1, 0, 0, 0, 1, 1]),
        (2, 3, [0, 1, 0]),
        (1, 6, [0, 0, 0, 0, 0, 0]),
        (6, 7, [0, 1, 2, 3, 4, 5, 1]),
        (6, 2, [0, 1]),
    ],
)
def test_segments_follow_the_copy_rule(before: int, after: int, rows: list[int]) -> None:
    encoder = tiny(segments=before)
    changed, resized = with_segments(encoder, after)
    assert changed.embeddings.segment is not None
    assert encoder.embeddings.segment is not None
    assert torch.equal(changed.embeddings.segment.weight, encoder.embeddings.segment.weight[rows])
    assert resized is not None
    assert (resized.before, resized.after) == (before, after)


def test_a_table_of_segments_where_there_was_none_is_zero() -> None:
    encoder = tiny(segments=0)
    changed, resized = with_segments(encoder, 1)
    assert changed.embeddings.segment is not None
    assert torch.equal(changed.embeddings.segment.weight, torch.zeros(1, 8))
    assert resized is not None
    assert resized.how == "zeros"
    ids = torch.arange(5, 10)[None]
    zero = torch.zeros_like(ids)
    slots = Slots(zero, zero, torch.full_like(ids, FOREVER))
    assert torch.equal(changed(ids, ids, zero, slots)[0], encoder(ids, ids, zero, slots)[0])


def test_nothing_changes_when_nothing_is_asked_for() -> None:
    encoder = tiny()
    assert with_positions(encoder, 10) == (encoder, None)
    assert with_segments(encoder, 2) == (encoder, None)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="--positions 0: a model needs at least one position"):
        with_positions(tiny(), 0)
    with pytest.raises(UsageError, match="--segments 8: from 1 to 7 segments are possible"):
        with_segments(tiny(), 8)


def test_a_cut_vocabulary_gives_the_same_numbers_for_the_words_that_stay() -> None:
    encoder = tiny()
    words = torch.tensor([0, 1, 2, 3, 4, 7, 9, 20])
    smaller = with_vocabulary(encoder, words, pad=0)
    new_ids = torch.tensor([[2, 5, 6, 7, 3]])
    zero = torch.zeros_like(new_ids)
    slots = Slots(zero, zero, torch.full_like(zero, FOREVER))
    positions = torch.arange(5)[None]
    hidden, _ = smaller(new_ids, positions, zero, slots)
    expected, _ = encoder(words[new_ids], positions, zero, slots)
    assert torch.equal(hidden, expected)
    torch.testing.assert_close(smaller.logits(hidden), encoder.logits(expected)[..., words])
    assert same(with_vocabulary(encoder, torch.arange(len(WORDS)), pad=0), encoder)


def test_wordpiece_from_a_plain_vocabulary(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    smaller, ids = cut(tokenizer, {"c", "##d", "ab", "never seen"})
    assert [WORDS[index] for index in ids] == [*WORDS[:5], "c", "##d", "ab"]
    assert smaller.tokens(smaller.encode("ab cd c x")) == ["ab", "c", "##d", "c", "[UNK]"]
    assert smaller.roles == tokenizer.roles


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "sentencepiece"])
def test_trained_tokenizers_are_cut_and_still_encode_every_text(kind: str) -> None:
    tokenizer = train(TEXTS, kind=kind, size=330)
    used = {token for text in TEXTS[:2] for token in tokenizer.tokens(tokenizer.encode(text))}
    smaller, ids = cut(tokenizer, used)
    assert smaller.size == len(ids) < tokenizer.size
    assert smaller.tokens(range(smaller.size)) == tokenizer.tokens(ids)
    for role, index in vars(tokenizer.roles).items():
        assert ids[getattr(smaller.roles, role)] == index
    for text in TEXTS[:2]:
        assert [ids[index] for index in smaller.encode(text)] == tokenizer.encode(text)
    if kind != "wordpiece":
        assert smaller.decode(smaller.encode(TEXTS[3])) == TEXTS[3]


def test_keeping_everything_keeps_the_ids() -> None:
    tokenizer = train(TEXTS, kind="bpe", size=300)
    smaller, ids = cut(tokenizer, set(tokenizer.tokens(range(tokenizer.size))))
    assert ids == list(range(tokenizer.size))
    assert smaller.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_a_tokenizer_json_with_templates_is_renumbered(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    definition = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    definition.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    definition.decoder = decoders.WordPiece()
    definition.add_special_tokens(["[SEP]", "[CLS]", "b"])
    definition.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP] b", special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("b", WORDS.index("b"))]
    )
    definition.save(str(tmp_path / "tokenizer.json"))
    smaller, ids = cut(Tokenizer.load(tmp_path), {"c"})
    assert [WORDS[index] for index in ids] == [*WORDS[:5], "b", "c"]
    smaller.save(tmp_path / "out")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert theirs.encode("c").ids == [2, 6, 3, 5]
    assert (tmp_path / "out" / "vocab.txt").read_text().split() == [*WORDS[:5], "b", "c"]


def xlm_r(folder: Path) -> Tokenizer:
    """A SentencePiece model whose ids fairseq numbers, as XLM-R's."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=trained, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(trained.getvalue())
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return Tokenizer.load(folder)


def test_ids_as_in_xlm_r_are_cut(tmp_path: Path) -> None:
    tokenizer = xlm_r(tmp_path / "model")
    used = set(tokenizer.tokens(tokenizer.encode(TEXTS[0])))
    smaller, ids = cut(tokenizer, used)
    assert smaller.tokens(range(4)) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert smaller.tokens([smaller.size - 1]) == ["<mask>"]
    assert smaller.size == len(used) + 5
    assert [ids[index] for index in smaller.encode(TEXTS[0])] == tokenizer.encode(TEXTS[0])
