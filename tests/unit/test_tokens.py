"""Tokens: text to ids and back, roles, folders, vocabularies of one's own."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unilmctl.errors import DataError, ModelError
from unilmctl.tokens import Roles, Tokenizer, train
from unilmctl.tokens.memory import lists
from unilmctl.tokens.pieces import AlbertText, PieceEngine, Words
from unilmctl.tokens.words import join_words

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "The Vaults pub near Café Adriatic has a 5 star rating.  Prices start at £30.",
    "天气很好，我们去公园。",
    "我们在公园里看书。 今天天气不好。",
    "A fox, a dog and a pub: the quick and the lazy.",
] * 3
SPECIAL = {
    "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "bpe": ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
    "sentencepiece": ["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
}
SIZES = {"wordpiece": 120, "bpe": 320, "sentencepiece": 360}
ALPHABET = st.one_of(
    st.sampled_from(" \n\t\r▁#'aTé天很😀👨\u200d\u0301\x1c\u2028\ufeff\0<>[]"), st.characters(codec="utf-8")
)
TEXT = st.text(ALPHABET, max_size=40)
quick = settings(max_examples=50, deadline=None)


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    return {kind: train(TEXTS, kind=kind, size=SIZES[kind]) for kind in SPECIAL}


@pytest.mark.parametrize("kind", SPECIAL)
def test_trained_vocabulary_has_its_roles_and_keeps_to_its_size(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]
    roles = tokenizer.roles
    ids = [roles.pad, roles.unknown, roles.start, roles.separator, roles.mask]
    assert tokenizer.kind == kind
    assert tokenizer.tokens(ids) == SPECIAL[kind]
    assert len(set(ids)) == 5
    assert 5 < tokenizer.size <= SIZES[kind]


@pytest.mark.parametrize("kind", SPECIAL)
def test_training_is_deterministic(trained: dict[str, Tokenizer], kind: str) -> None:
    for _ in range(3):
        assert train(iter(TEXTS), kind=kind, size=SIZES[kind]).fingerprint() == trained[kind].fingerprint()


@pytest.mark.parametrize("kind", SPECIAL)
def test_saved_is_loaded_as_it_was(trained: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    tokenizer = trained[kind]
    tokenizer.save(tmp_path / "a")
    again = Tokenizer.load(tmp_path / "a")
    again.save(tmp_path / "b")
    assert again.kind == kind
    assert again.roles == tokenizer.roles
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    contents = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab"]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("kind", SPECIAL)
def test_pickled_encodes_alike(trained: dict[str, Tokenizer], kind: str) -> None:
    text = "The lazy fox [SEP] </s> 天气 ▁x"
    assert pickle.loads(pickle.dumps(trained[kind])).encode(text) == trained[kind].encode(text)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_decoding_is_exact(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]

    @quick
    @given(TEXT)
    @example("  two  leading, double and trailing  ")
    @example("👨‍👩‍👧 天气 很好\n\t\r")
    @example("▁ ▁▁a▁ b▁")
    @example("\0\x1c\u2028")
    @example("")
    def exact(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text

    exact()


def test_wordpiece_decoding_is_exact_on_its_normalised_text(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["wordpiece"]

    @quick
    @given(st.lists(st.sampled_from(["The", "fox", "jumps", "Café", ",", ".", "天", "气很好", "5"]), max_size=12))
    def exact(words: list[str]) -> None:
        once = tokenizer.decode(tokenizer.encode(" ".join(words)))
        assert tokenizer.decode(tokenizer.encode(once)) == once

    exact()
    assert tokenizer.decode(tokenizer.encode("天气很好,  我们 the foxes.")) == "天气很好 , 我们 the foxes ."


@pytest.mark.parametrize("kind", SPECIAL)
def test_text_cannot_forge_control_tokens(trained: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    trained[kind].save(tmp_path)
    roles = trained[kind].roles
    control = {roles.pad, roles.start, roles.separator, roles.mask}
    for tokenizer in (trained[kind], Tokenizer.load(tmp_path)):
        for text in ("a [SEP] b", "[MASK]", "<s> </s><pad>", "[CLS][PAD]", "x<mask>y"):
            assert control.isdisjoint(tokenizer.encode(text)), text


def test_tokens_that_a_user_names_are_what_they_say(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["wordpiece"]
    the = tokenizer.token_id("The")
    assert the is not None
    assert tokenizer.encode_tokens(["The", "[SEP]", "no-such-token"]) == [
        the,
        tokenizer.roles.separator,
        tokenizer.roles.unknown,
    ]
    assert tokenizer.token_id("no-such-token") is None


def test_decode_drops_control_tokens_and_shows_unknown_ones(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["wordpiece"]
    roles = tokenizer.roles
    ids = [roles.start, *tokenizer.encode("fox"), roles.unknown, roles.mask, roles.separator, roles.pad]
    assert tokenizer.decode(ids) == "fox [UNK]"
    assert tokenizer.tokens([tokenizer.size + 7, -1]) == ["[UNK]", "[UNK]"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_half_a_surrogate_pair_is_a_data_error(trained: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(DataError, match=r"text holds half of a surrogate pair \(U\+D83D at character 2\)"):
        trained[kind].encode_batch(["fine", "a\ud83d"])


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "sentencepiece", "sentencepiece, NFKC", "XLM-R", "ALBERT"])
def test_remembered_words_change_nothing(trained: dict[str, Tokenizer], kind: str) -> None:
    engine: Any = trained[kind.split(",", maxsplit=1)[0]]._engine if kind in trained else None
    if kind == "sentencepiece, NFKC":
        engine = train(TEXTS, kind="sentencepiece", size=SIZES["sentencepiece"], lowercase=True)._engine
    elif engine is None:
        model = trained["sentencepiece"]._engine.files["spiece.model"]
        albert = AlbertText(lowercase=True, keep_accents=False) if kind == "ALBERT" else None
        engine = PieceEngine(model, {}, fairseq=kind == "XLM-R", albert=albert)
    words = st.text("aab.\u00a0\u3000\u0301\x01é北the fox", max_size=9)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(TEXT | words, max_size=4))
    @example(["a\n  b", "a  b ", " \x1c x", "Σ Σ\u0301 ΑΣ", "don't  's"])
    @example(
        ["aaaa aaaaa ... aaa", "aaa", "a \x01 b", "a \u3000 b", "the " * 400, "a" * 40 + " the", "the▁fox", "", " "]
    )
    def same(texts: list[str]) -> None:
        assert lists(engine.encode_flat(texts)) == engine.encode_whole(texts)

    same()


def test_words_with_two_ways_of_equal_cost_take_their_text(trained: dict[str, Tokenizer]) -> None:
    engine = trained["sentencepiece"]._engine
    assert isinstance(engine, PieceEngine)
    words = Words(engine._processor, ["▁", "a", "aa", "▁b"])
    words._scores = [-1.0, -2.0, -3.0, -2.0]
    assert words._best([[0, 1, 2], [0, 2, 1]]) is None  # ▁ a aa, ▁ aa a
    assert words._best([[0, 2], [0, 1, 1]]) == [0, 2]
    assert words._best([[3]]) == [3]
    assert words._best([[0]]) is None  # a word of nothing
    assert words._best([[1, 1]]) is None  # no blank before it
    assert words._best([[3, 3]]) is None  # a blank inside


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["天气", "很好"], "天气很好"),
        (["play", "##ing", "foot", "##ball"], "playing football"),
        (["##ing", "x", "##y"], "##ing xy"),
        (["天", "abc", "好", "，", "“", "好", "”"], "天 abc 好，“好”"),
        (["say", "“", "hi", "”"], "say “ hi ”"),
        (["ひ", "##ら", "漢"], "ひら漢"),
        (["한국", "어"], "한국 어"),
        (["##", "#", "a", ""], "## # a"),
        ([], ""),
    ],
)
def test_words_are_joined(tokens: list[str], text: str) -> None:
    assert join_words(tokens) == text


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("bpe", 100, "a bpe vocabulary needs at least 261 entries"),
        ("sentencepiece", 20, "a sentencepiece vocabulary of 20 is too small"),
        ("wordpiece", 6, "a wordpiece vocabulary of 5 has no room for characters"),
        ("syllables", 100, "no such kind of vocabulary: 'syllables'"),
    ],
)
def test_vocabulary_that_cannot_be(kind: str, size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(TEXTS, kind=kind, size=size)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_no_text_no_vocabulary(kind: str, texts: list[str]) -> None:
    with pytest.raises(DataError, match="there is no text to learn a vocabulary from"):
        train(texts, kind=kind, size=1000)


@pytest.mark.parametrize("kind", SPECIAL)
def test_an_error_in_the_texts_keeps_its_kind(kind: str) -> None:
    def texts():  # noqa: ANN202
        yield from TEXTS
        raise DataError("train.jsonl:16: broken")

    with pytest.raises(DataError, match=r"train\.jsonl:16: broken"):
        train(texts(), kind=kind, size=SIZES[kind])


@pytest.mark.parametrize("kind", SPECIAL)
def test_lower_case_vocabulary(kind: str, tmp_path: Path) -> None:
    train(TEXTS, kind=kind, size=SIZES[kind], lowercase=True).save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("The Quick FOX") == tokenizer.encode("the quick fox")
    assert tokenizer.decode(tokenizer.encode("The Quick FOX")) == "the quick fox"


def test_training_takes_texts_that_no_tokenizer_encodes() -> None:
    assert train([*TEXTS, "half \ud83d and \0"], kind="bpe", size=300).size == 300


def write_vocabulary(folder: Path, tokens: list[str], **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_bytes("".join(token + "\n" for token in tokens).encode())
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


FIVE = SPECIAL["wordpiece"]


def test_vocab_txt_alone_is_enough(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_vocabulary(tmp_path, [*FIVE, "Hello", "hello", "##s"]))
    assert tokenizer.roles == Roles(0, 1, 2, 3, 4)
    assert tokenizer.size == 8
    assert tokenizer.encode("Hellos hello") == [5, 7, 6]


@pytest.mark.parametrize(
    ("tokens", "config", "text", "expected"),
    [
        ([*FIVE, "[X_SEP]", "cafe"], {}, "CAFÉ", ["cafe"]),  # no capital outside brackets: uncased
        ([*FIVE, "Cafe", "cafe"], {"do_lower_case": True}, "Cafe", ["cafe"]),
        ([*FIVE, "cafe"], {"do_lower_case": False}, "Cafe", ["[UNK]"]),
        ([*FIVE, "café"], {"do_lower_case": True, "strip_accents": False}, "Café", ["café"]),
        ([*FIVE, "天", "气", "天气"], {}, "天气", ["天", "气"]),
        ([*FIVE, "天", "气", "天气"], {"tokenize_chinese_chars": False}, "天气", ["天气"]),
    ],
)
def test_wordpiece_settings(
    tmp_path: Path, tokens: list[str], config: dict[str, object], text: str, expected: list[str]
) -> None:
    tokenizer = Tokenizer.load(write_vocabulary(tmp_path, tokens, **config))
    assert tokenizer.tokens(tokenizer.encode(text)) == expected


def test_vocab_txt_with_carriage_returns_ids_and_doubles(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*FIVE, "a", "b", "a"]).encode() + b"\r\n")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.size == 8  # as many as the embedding has rows
    assert tokenizer.encode("a b") == [7, 6]
    (tmp_path / "vocab.txt").write_bytes("".join(f"{t}\t{i}\n" for i, t in enumerate([*FIVE, "a"])).encode())
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("a") == [5]  # ERNIE's way
    tokenizer.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "vocab.txt").read_text() == "".join(f"{token}\n" for token in [*FIVE, "a"])
    (tmp_path / "vocab.txt").write_text("".join(f"{t}\t{i + 1}\n" for i, t in enumerate(FIVE)))
    with pytest.raises(ModelError, match=r"vocab.txt: its tokens are not numbered 0, 1, 2, \.\.\."):
        Tokenizer.load(tmp_path)


def test_tokenizer_json_neither_cuts_nor_pads_and_knows_added_marks(tmp_path: Path) -> None:
    import tokenizers

    train(TEXTS, kind="wordpiece", size=120).save(tmp_path)
    library = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=False)
    library.enable_truncation(4)
    library.enable_padding(length=4)
    library.add_special_tokens(["<hl>"])
    (tmp_path / "vocab.txt").unlink()
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.kind == "wordpiece"
    assert tokenizer.tokens(tokenizer.encode("The fox <hl> the dog <hl> [SEP]")).count("<hl>") == 2
    assert tokenizer.roles.separator not in tokenizer.encode("The fox [SEP]")
    assert len(tokenizer.encode("fox " * 20)) >= 20
    assert tokenizer.encode("fox") == tokenizer.encode_batch(["fox", "fox dog"])[0]


def test_roberta_files(tmp_path: Path) -> None:
    train(TEXTS, kind="bpe", size=320).save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    expected = Tokenizer.load(tmp_path).encode_batch(TEXTS)
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.kind == "bpe"
    assert tokenizer.encode_batch(TEXTS) == expected


def sentencepiece_model(**options: object) -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize("said", [{"config.json": "xlm-roberta"}, {"tokenizer_config.json": "XLMRobertaTokenizer"}])
def test_xlm_roberta_numbers_its_pieces_as_fairseq_does(tmp_path: Path, said: dict[str, str]) -> None:
    import sentencepiece

    model = sentencepiece_model()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    for name, value in said.items():
        (tmp_path / name).write_text(json.dumps({"model_type" if name == "config.json" else "tokenizer_class": value}))
    tokenizer = Tokenizer.load(tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert tokenizer.size == processor.vocab_size() + 2
    assert tokenizer.roles == Roles(pad=1, unknown=3, start=0, separator=2, mask=tokenizer.size - 1)
    ids = processor.encode(TEXTS[0])
    assert tokenizer.encode(TEXTS[0]) == [i + 1 if i else 3 for i in ids]
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]
    tokenizer.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "sentencepiece.bpe.model").read_bytes() == model
    assert Tokenizer.load(tmp_path / "copy").fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("said", [{"model_type": "mpnet"}, {"model_type": "bert", "tokenizer_class": "MPNetTokenizer"}])
def test_mpnet_never_uses_the_special_tokens_of_bert(tmp_path: Path, said: dict[str, str]) -> None:
    folder = write_vocabulary(tmp_path, ["<s>", "<pad>", "</s>", "<unk>", *FIVE, "a", "<mask>"])
    assert Tokenizer.load(folder).roles == Roles(pad=4, unknown=5, start=6, separator=7, mask=8)
    (folder / "config.json").write_text(json.dumps(said))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.roles == Roles(pad=1, unknown=5, start=0, separator=2, mask=10)
    tokenizer.save(folder / "copy")
    assert Tokenizer.load(folder / "copy").roles == tokenizer.roles


def test_a_roformer_of_words_needs_a_segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    folder = write_vocabulary(tmp_path, [*FIVE, "天", "气"])
    (folder / "config.json").write_text(json.dumps({"model_type": "roformer"}))
    assert Tokenizer.load(folder).tokens(Tokenizer.load(folder).encode("天气")) == ["天", "气"]  # of characters
    write_vocabulary(tmp_path, [*FIVE, "天气"])
    with pytest.raises(ModelError, match="the vocabulary of RoFormer needs rjieba, which is not installed") as caught:
        Tokenizer.load(folder)
    assert caught.value.hint == "pip install 'unilmctl[zh]'"


def test_a_model_trained_here_is_not_renumbered(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, kind="sentencepiece", size=360)
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert Tokenizer.load(tmp_path).roles == tokenizer.roles


@pytest.mark.parametrize("role", ["unknown", "pad", "start", "separator", "mask"])
def test_missing_role_is_named(tmp_path: Path, role: str) -> None:
    name = {"pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "separator": "[SEP]", "mask": "[MASK]"}[role]
    folder = write_vocabulary(tmp_path, [*(token for token in FIVE if token != name), "a"])
    with pytest.raises(ModelError, match=f"the vocabulary has no {role} token"):
        Tokenizer.load(folder)


def test_roles_are_what_the_folder_says(tmp_path: Path) -> None:
    tokens = [*FIVE, "<s>", "</s>", "a"]
    tokenizer = Tokenizer.load(write_vocabulary(tmp_path, tokens, cls_token="<s>", sep_token={"content": "</s>"}))
    assert (tokenizer.roles.start, tokenizer.roles.separator, tokenizer.roles.pad) == (5, 6, 0)


def definition(unknown: str, **more: int) -> bytes:
    """A tokenizer.json of WordPiece, which calls its unknown token so."""
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
    model = {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##"}
    return json.dumps({"model": {**model, "max_input_chars_per_word": 9, "vocab": vocabulary | more}}).encode()


HUGE_ID = definition("[UNK]", b=4_000_000_000)
UNKNOWN = definition("<unk>")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.txt", b"", "no tokenizer here"),
        ("vocab.txt", b"", "the vocabulary has no|tokenizer files are broken"),
        ("vocab.txt", b"[PAD]\n\xff\xfe\n", r"vocab\.txt: not UTF-8 \(byte 6\)"),
        ("tokenizer.json", b"{", r"tokenizer\.json: not JSON"),
        ("tokenizer.json", b"[]", r"tokenizer\.json: not a JSON object"),
        ("tokenizer.json", b"{}", "not a WordPiece, BPE or Unigram tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "WordLevel"}}', "not a WordPiece, BPE or Unigram tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "the tokenizer files are broken"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}}}', "has no decoder"),
        ("tokenizer.json", b'{"model": ' + b"[" * 100000, r"tokenizer\.json: not JSON"),
        ("tokenizer.json", HUGE_ID, "the tokenizer files are broken: a token has the number 4000000000"),
        ("tokenizer.json", UNKNOWN, "the tokenizer takes no text: WordPiece error: Missing"),
        ("spiece.model", b"", r"spiece\.model: the file is empty"),
        ("spiece.model", b"\x00garbage" * 99, "the tokenizer files are broken"),
    ],
)
def test_broken_folders_are_model_errors(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Tokenizer.load(tmp_path)


def test_broken_merges(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ModelError, match="a merge is two tokens, not 'a b c'"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(ModelError, match="the tokenizer files are broken"):
        Tokenizer.load(tmp_path)


def test_truncated_sentencepiece_models_never_load(tmp_path: Path) -> None:
    model = sentencepiece_model()
    for cut in (1, 7, len(model) // 2, len(model) - 3):
        (tmp_path / "spiece.model").write_bytes(model[:cut])
        with pytest.raises(ModelError):
            Tokenizer.load(tmp_path)


def test_fingerprint_tells_vocabularies_apart(tmp_path: Path) -> None:
    one = Tokenizer.load(write_vocabulary(tmp_path / "a", [*FIVE, "a", "b"]))
    other = Tokenizer.load(write_vocabulary(tmp_path / "b", [*FIVE, "b", "a"]))
    cased = Tokenizer.load(write_vocabulary(tmp_path / "c", [*FIVE, "a", "b"], do_lower_case=False))
    assert len({one.fingerprint(), other.fingerprint(), cased.fingerprint()}) == 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wordpiece", ["unhappy", "dogs", ",", "京", "北"]),
        ("bpe", ["unhappy", "dogs,", "京", "北"]),
        ("sentencepiece", ["unhappy", "dogs,", "京", "北"]),
    ],
)
def test_which_tokens_continue_a_word(kind: str, words: list[str]) -> None:
    """What lies between two tokens that begin a word spells a word, or one ideograph."""
    tokenizer = train(["untidy ahappy dog as , 北 京"] * 4, kind=kind, size=300)
    ids = tokenizer.encode("unhappy dogs, 京北")
    assert len(ids) > len(words)
    begins = ~tokenizer.continues()[ids]
    spelt = [tokenizer.decode(group).strip() for group in np.split(ids, np.flatnonzero(begins[1:]) + 1)]
    assert [one.removeprefix("##").replace(" ##", "") for one in spelt if one] == words
    assert not tokenizer.continues()[[tokenizer.roles.mask, tokenizer.roles.unknown, tokenizer.roles.pad]].any()


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_ids_with_their_places_are_the_same_ids(kind: str) -> None:
    texts = ["one  two", "", "北京 one", "é👍"]
    tokenizer = train(texts * 3, kind=kind, size=300)
    placed = tokenizer.encode_placed(texts)
    assert [ids for ids, _ in placed] == tokenizer.encode_batch(texts)
    for text, (ids, places) in zip(texts, placed, strict=True):
        assert len(ids) == len(places)
        assert places == sorted(places)
        assert all(place < len(text) for place in places)
