"""Raw text to documents: where they begin and end, in any blocks, with words, with bad lines."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unilmctl.data import documents, streams
from unilmctl.data.documents import Assembler, TextCoder, TextReader, TextTally, text_blocks
from unilmctl.data.streams import Block
from unilmctl.errors import DataError, ModelError, UsageError
from unilmctl.tokens import Tokenizer, train

WORDS = ["one two", "three", "four five six", "我爱北京天安门", "iPhone12 of 北京."]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([*WORDS, "0123456789"] * 3, kind="wordpiece", size=70)


def stored(tokenizer: Tokenizer, blocks: list[Block], reader: TextReader) -> list[list[list[int]]]:
    """Sentences of every document, through coder and assembler, put together as a store does."""
    coder, assembler = TextCoder(tokenizer, reader), Assembler()
    found = []
    for arrays in [*(assembler.add(coder(block)) for block in blocks), assembler.finish()]:
        if arrays:
            (text, sizes), (ends, counts) = arrays["text"], arrays["ends"]
            texts = np.split(text, np.cumsum(sizes)[:-1])
            places = np.split(ends, np.cumsum(counts)[:-1])
            for one, where in zip(texts, places, strict=True):
                assert where[-1] == len(one)
                found.append([part.tolist() for part in np.split(one, where[:-1])])
    return found


def blocks_of(lines: list[bytes], size: int, format: str = "text") -> list[Block]:
    return [Block("f", format, at + 1, lines[at : at + size]) for at in range(0, len(lines), size)]


def told(tokenizer: Tokenizer, expected: list[list[str]]) -> list[list[list[int]]]:
    return [[tokenizer.encode(one) for one in document] for document in expected]


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(st.sampled_from([*WORDS, "", " "]), max_size=14),
    size=st.integers(1, 5),
    longest=st.sampled_from([3, 9, 1 << 20]),
)
def test_documents_do_not_depend_on_blocks(tokenizer: Tokenizer, lines: list[str], size: int, longest: int) -> None:
    """Against the obvious way: split at blank lines, then cut what is too long, sentence by sentence."""
    expected: list[list[list[int]]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        ids = tokenizer.encode(line)
        if fresh or sum(map(len, expected[-1])) + len(ids) > longest:
            expected.append([])
        expected[-1].append(ids)
        fresh = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST", longest)
        raw = [line.encode() + b"\n" for line in lines]
        assert stored(tokenizer, blocks_of(raw, size), TextReader()) == expected


def test_a_block_at_once_is_the_same_as_line_by_line(tokenizer: Tokenizer) -> None:
    lines = [b"one two\r\n", b"\r\n", "三 three\r\r\n".encode(), b" \n", b"four"]
    reader = TextReader(policy="skip")
    quick = reader.sentences(Block("f", "text", 1, lines), TextTally())
    careful = reader.sentences(Block("f", "text", 1, [*lines[:1], b"\0\n", *lines[1:]]), TextTally())
    assert quick == careful == (["one two", "三 three\r", "four"], [True, True, True], False)


def test_a_line_is_a_document_with_its_own_sentences(tokenizer: Tokenizer) -> None:
    lines = ["one two. three", "", "北京。爱天！” 我", "four"]
    raw = [line.encode() + b"\n" for line in lines]
    expected = told(tokenizer, [["one two.", "three"], ["北京。", "爱天！” 我"], ["four"]])
    assert stored(tokenizer, blocks_of(raw, 2), TextReader("lines")) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("one two\n\nthree", [["one two", "three"]]),
        ("one two. three", [["one two.", "three"]]),
        (["one two", "three"], [["one two", "three"]]),
        ([["one", "tw"], ["three"]], [[["one", "tw"], ["three"]]]),
        ([], []),
    ],
)
def test_documents_of_json(tokenizer: Tokenizer, value: object, expected: list[list[object]]) -> None:
    ids = [
        [tokenizer.encode(s) if isinstance(s, str) else tokenizer.encode_tokens(s) for s in document]  # type: ignore[arg-type]
        for document in expected
    ]
    line = json.dumps({"body": value}).encode()
    assert stored(tokenizer, blocks_of([line], 1, "jsonl"), TextReader(field="body")) == ids


@pytest.mark.parametrize(
    ("line", "segmenter", "message"),
    [
        (b'{"body": "x"}', None, "f:1: 'text' is missing"),
        (b'{"text": 3}', None, "f:1: 'text' must be text or a list of sentences, not a number"),
        (b'{"text": [3]}', None, "f:1: 'text' must be text or a list of tokens, not a number"),
        (b'{"text": "x"}', "given", "f:1: 'text' must be a list of sentences, each a list of words, not text"),
        (
            b'{"text": [["a"], "b"]}',
            "given",
            "f:1: 'text' must be a list of sentences, each a list of words, not a list",
        ),
        (b"[1]", None, "f:1: a JSON object was expected, not a list"),
    ],
)
def test_bad_documents_say_where(tokenizer: Tokenizer, line: bytes, segmenter: str | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        stored(tokenizer, blocks_of([line], 1, "jsonl"), TextReader(segmenter=segmenter))
    assert caught.value.message == message


def test_bad_lines_are_passed_over_or_mended(tokenizer: Tokenizer) -> None:
    lines = [b"one\n", b"tw\xffo\n", b"three\n", b"\n", b"four\n"]
    with pytest.raises(DataError, match="f:2: not UTF-8"):
        stored(tokenizer, blocks_of(lines, 9), TextReader())
    skipped = stored(tokenizer, blocks_of(lines, 9), TextReader(policy="skip"))
    assert skipped == told(tokenizer, [["one", "three"], ["four"]])  # it ends no document
    mended = stored(tokenizer, blocks_of(lines, 9), TextReader(policy="replace"))
    assert mended == told(tokenizer, [["one", "tw\ufffdo", "three"], ["four"]])
    tally = TextTally()
    TextReader(policy="skip").sentences(Block("f", "jsonl", 1, [b"{\n", b"x"]), tally)
    assert (tally.bad, len(tally.bad_lines)) == (2, 2)


def begins(tokenizer: Tokenizer, line: object, segmenter: str) -> list[tuple[str, bool]]:
    block = Block("f", "jsonl", 1, [json.dumps({"text": line}).encode()])
    part = TextCoder(tokenizer, TextReader(segmenter=segmenter))(block)
    assert part.begins is not None
    return list(zip(tokenizer.tokens(part.tokens.tolist()), part.begins.tolist(), strict=True))


def test_chinese_words_are_found(tokenizer: Tokenizer) -> None:
    pytest.importorskip("rjieba")
    found = begins(tokenizer, "我爱北京天安门 iPhone12", "rjieba")
    assert [token for token, _ in found] == tokenizer.tokens(tokenizer.encode("我爱北京天安门 iPhone12"))
    assert [flag for _, flag in found[:7]] == [True, True, True, False, True, False, False]
    assert found[7][1]
    assert not any(flag for _, flag in found[8:])
    listed = begins(tokenizer, [["北", "京"], ["one"]], "rjieba")
    assert [flag for _, flag in listed] == [True, True, True]


def test_sentencepiece_does_not_tell_where_words_are() -> None:
    pytest.importorskip("rjieba")
    with pytest.raises(ModelError, match="this vocabulary does not tell where its pieces begin"):
        begins(train(WORDS * 3, kind="sentencepiece", size=320), "one", "rjieba")


def test_given_words_and_phrases_are_units(tokenizer: Tokenizer) -> None:
    phrase = tokenizer.encode("one two")
    found = begins(tokenizer, [["one two", "three"], ["北京", "天"]], "given")
    expected = [True] + [False] * (len(phrase) - 1) + [True] + [False] * (len(tokenizer.encode("three")) - 1)
    assert [flag for _, flag in found] == [*expected, True, False, True]
    assert begins(tokenizer, ["北京", "天"], "given") == begins(tokenizer, [["北京", "天"]], "given")
    with pytest.raises(DataError, match="f: plain text does not list its words"):
        TextReader(segmenter="given").sentences(Block("f", "text", 1, [b"x"]), TextTally())


def test_a_missing_segmenter_is_named(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rjieba", None)
    with pytest.raises(UsageError) as caught:
        begins(tokenizer, "one", "rjieba")
    assert (caught.value.message, caught.value.hint) == (
        "segmenter: rjieba is not installed",
        "pip install 'unilmctl[zh]'",
    )


def test_files_become_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 8)
    zipped = tmp_path / "a.txt.gz"
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbfone two\nthree\nfour"))
    found = list(text_blocks([zipped], "auto"))
    assert [(block.first, block.lines) for block in found] == [(1, [b"one two\n"]), (2, [b"three\n", b"four"])]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b'{"text": "x"}\n'))))
    assert [(block.label, block.format) for block in text_blocks(["-"], "auto")] == [("<stdin>", "jsonl")]
    zipped.write_bytes(zipped.read_bytes()[:-9])
    with pytest.raises(DataError, match="gzip data is broken or cut short"):
        list(text_blocks([zipped], "text"))
