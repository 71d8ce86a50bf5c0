"""Ids equal those of transformers' BertTokenizer on the same vocabulary: cased, uncased, Chinese."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.tokens import Tokenizer, train

transformers = pytest.importorskip("transformers")

DATA = Path(__file__).parents[3] / "shared" / "data"
LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "don't, can't; it's 5pm (or 17:00)! £30 or €40?",
    "Café Adriatic naïve ÅNGSTRÖM Straße İstanbul Ωmega ﬁne",
    "天气很好，我们去公园。Mixed 中文 and English：ok",
    "ひらがなカタカナ漢字 한국어 العربية हिन्दी ไทย",
    "tabs\tand\u00a0odd\u2003blanks\u200bzero\ufeffwidth\x07bell\x00nul\ufffd",
    "emoji 😀👨‍👩‍👧 e\u0301 𠀀𝒳",
    "a" * 150 + " " + "supercalifragilistic" * 4,
    "",
    "   ",
]
KINDS = {"cased": False, "uncased": True, "chinese": True}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, object]:
    lowercase = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    texts = [line for line in LINES if not (request.param == "chinese" and line.isascii())] * 3
    train(texts, kind="wordpiece", size=600, lowercase=lowercase).save(folder)
    (folder / "tokenizer_config.json").unlink()  # the vocabulary alone: ours has to guess the case
    if request.param == "chinese":  # its Latin words would let the guess go either way
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    theirs = transformers.BertTokenizer.from_pretrained(str(folder), do_lower_case=lowercase)
    return Tokenizer.load(folder), theirs


def ids(theirs: object, text: str) -> list[int]:
    return list(theirs(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]


@pytest.mark.parametrize("line", range(len(LINES)))
def test_lines(both: tuple[Tokenizer, object], line: int) -> None:
    ours, theirs = both
    assert ours.encode(LINES[line]) == ids(theirs, LINES[line])


def test_any_text(both: tuple[Tokenizer, object]) -> None:
    ours, theirs = both

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.one_of(st.characters(codec="utf-8", exclude_characters="[]"), st.sampled_from(" abcé天很"))))
    def same(text: str) -> None:
        assert ours.encode(text) == ids(theirs, text)

    same()


def test_roles_and_size(both: tuple[Tokenizer, object]) -> None:
    ours, theirs = both
    assert ours.size == theirs.vocab_size  # type: ignore[attr-defined]
    names = {"pad": "pad", "unknown": "unk", "start": "cls", "separator": "sep", "mask": "mask"}
    for role, name in names.items():
        assert getattr(ours.roles, role) == getattr(theirs, f"{name}_token_id")


@pytest.mark.parametrize(("name", "field"), [("e2e/dev.jsonl", "src"), ("tatoeba-enzh/train.jsonl", "tgt")])
def test_real_text(both: tuple[Tokenizer, object], name: str, field: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    ours, theirs = both
    lines = [json.loads(line)[field] for line in (DATA / name).read_bytes().splitlines()[:300]]
    assert ours.encode_batch(lines) == [ids(theirs, line) for line in lines]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_transformers_reads_what_is_saved(kind: str, tmp_path: Path) -> None:
    ours = train(LINES * 3, kind=kind, size=600)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert [ids(theirs, line) for line in LINES] == ours.encode_batch(LINES)
    assert theirs.mask_token_id == ours.roles.mask


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"keep_accents": True}], ids=str)
def test_albert_prepares_its_text(options: dict[str, bool], tmp_path: Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES[:8] * 3), model_writer=model, vocab_size=200, hard_vocab_limit=False,
        pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    ours, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    lines = [*LINES[:4], "``Café'' Ångström ÉCOLE", *LINES[8:]]
    assert ours.encode_batch(lines) == [ids(theirs, line) for line in lines]
    assert [getattr(ours.roles, role) for role in ("pad", "start", "separator", "mask")] == [0, 2, 3, 4]
    ours.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").fingerprint() == ours.fingerprint()


WORDS = ["今天天气", "天气", "非常", "公园", "iphone", "3", "##5", "cafe", "##s", *"今天很好我们去，。.", "##天"]
CHINESE = [
    "今天天气非常好，我们去公园。",
    "我们 去公园 iPhone 35 Cafés",
    "天天气氛",
    "",
    "  ",
    "非常\t好\u3000今天天气x",
]


@pytest.mark.parametrize("saved_by_them", [False, True])
def test_roformer_reads_the_words_that_jieba_finds(saved_by_them: bool, tmp_path: Path) -> None:
    pytest.importorskip("rjieba")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    theirs = transformers.RoFormerTokenizer({token: index for index, token in enumerate(tokens)})
    folder = tmp_path / "model"
    if saved_by_them:  # with a splitter that is not theirs
        theirs.save_pretrained(folder)
    else:
        folder.mkdir()
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "roformer"}))
    ours = pickle.loads(pickle.dumps(Tokenizer.load(folder)))
    assert [ours.encode(text) for text in CHINESE] == [ids(theirs, text) for text in CHINESE]
    assert ours.tokens(ours.encode(CHINESE[0]))[:3] == ["今天天气", "非常", "好"]
    assert ours.decode(ours.encode(CHINESE[0])) == CHINESE[0]
    ours.save(tmp_path / "copy")
    assert Tokenizer.load(tmp_path / "copy").fingerprint() == ours.fingerprint()
