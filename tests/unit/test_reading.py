"""Text files to records: every format, every bad line named, counted and handled by policy."""

import gzip
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unilmctl.data.parsing import Columns, from_json, plain_pairs
from unilmctl.data.reading import BadLine, Record, lines_of, parse_line, read
from unilmctl.errors import DataError

GOOD = b'{"src": "a", "tgt": "b"}'


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(*files: Path | str, **options: object) -> list[tuple[object, object]]:
    return [(record.source, record.target) for record in records(*files, **options)]


def records(*files: Path | str, **options: object) -> list[Record]:
    items = list(read(files, **options))  # type: ignore[arg-type]
    assert all(isinstance(item, Record) for item in items)
    return items  # type: ignore[return-value]


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"src": "a b", "tgt": "c", "id": 7, "more": [1]},
        {"src": ["a", "##b"], "tgt": ["c"], "id": "x"},
        {"src": "", "refs": ["one", None, ["t", "wo"]]},
        {"src": "天气 👨‍👩‍👧 \u2028 \u0085 مرحبا e\u0301\u0301", "tgt": "", "refs": None},
    ]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    assert records(file) == [
        Record("a b", "c", [], 7, f"{file}:1"),
        Record(["a", "##b"], ["c"], [], "x", f"{file}:2"),
        Record("", None, ["one", ["t", "wo"]], None, f"{file}:3"),
        Record(lines[3]["src"], "", [], None, f"{file}:4"),  # type: ignore[arg-type]
    ]


def test_field_names_are_the_users(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "a", "title": "b", "all": ["c"]}\n')
    (record,) = records(file, source="text", target="title", references="all")
    assert record[:3] == ("a", "b", ["c"])


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(tmp_path: Path, ending: bytes, last: bool) -> None:  # noqa: FBT001
    file = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + ending.join([GOOD, GOOD]) + (ending if last else b""))
    assert pairs(file) == [("a", "b"), ("a", "b")]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    odd = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h"
    source, target = write(tmp_path / "a.txt", odd + "\nz\n"), write(tmp_path / "b.txt", "1\n2\n")
    assert pairs(source, target_files=[target]) == [(odd, "1"), ("z", "2")]


def test_tsv_and_csv(tmp_path: Path) -> None:
    tsv = write(tmp_path / "a.tsv", 'a "b\tc\nd\t\n')
    assert pairs(tsv) == [('a "b', "c"), ("d", "")]
    csv = write(tmp_path / "a.csv", 'a,"b, ""c"""\n"two\nlines",d\nlast,e')
    assert pairs(csv) == [("a", 'b, "c"'), ("two\nlines", "d"), ("last", "e")]
    assert [record.where for record in records(csv)] == [f"{csv}:1", f"{csv}:2", f"{csv}:4"]


@pytest.mark.parametrize(("suffix", "cell"), [("tsv", "\t"), ("csv", ",")])
def test_header_rows_name_columns(tmp_path: Path, suffix: str, cell: str) -> None:
    rows = [["n", "tgt", "src"], ["1", "b", "a"], ["2", "d", "c"]]
    file = write(tmp_path / f"a.{suffix}", "".join(cell.join(row) + "\r\n" for row in rows))
    assert pairs(file) == [("a", "b"), ("c", "d")]
    assert pairs(file, source="n", target="src") == [("1", "a"), ("2", "c")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\n", r"a.tsv:1: 2 columns \(source, target\) were expected, the row has 1"),
        ("a.tsv", "a\tb\tc\n", "a.tsv:1: 2 columns .* the row has 3"),
        ("a.csv", "src,tgt\na\n", "a.csv:2: the row has 1 columns, the header says at least 2"),
        ("a.csv", "src,src,tgt\n", "a.csv:1: two columns are called 'src'"),
        ("a.csv", "src,b\na,b\n", "a.csv:1: no column is called 'tgt'"),
        ("a.csv", 'a,"b\n' + "c\n" * 9, "a.csv:1: a quoted cell begins here and never ends"),
        ("a.csv", 'a,"b"c\n', "a.csv:1: not valid CSV"),
        ("a.txt", "a\n", "a.txt: plain text has no targets"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read([write(tmp_path / name, content)]))


def test_formats_are_detected(tmp_path: Path) -> None:
    for name, content in [
        ("a.jsonl", GOOD),
        ("a.ndjson", GOOD),
        ("a.json", GOOD),
        ("a.unknown", b" \n" * 0 + GOOD),
        ("bare", b"\xef\xbb\xbf" + GOOD),
        ("tabbed", b"a\tb"),
        ("a.TSV", b"a\tb"),
        ("a.csv", b"a,b"),
    ]:
        assert pairs(write(tmp_path / name, content)) == [("a", "b")], name
    assert pairs(write(tmp_path / "a.lines", b"x\ny"), need_target=False) == [("x", None), ("y", None)]
    assert pairs(write(tmp_path / "a.tsv", GOOD), format="jsonl") == [("a", "b")]


def test_gzip_by_content_whatever_the_name(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl", "bare"):
        assert pairs(write(tmp_path / name, gzip.compress(GOOD + b"\n") + gzip.compress(GOOD))) == [("a", "b")] * 2
    assert pairs(write(tmp_path / "a.csv.gz", gzip.compress(b"a,b"))) == [("a", "b")]


@pytest.mark.parametrize("cut", [3, 12, 60, -9, -1])
def test_truncated_gzip(tmp_path: Path, cut: int) -> None:
    content = gzip.compress(b"".join(b'{"src": "%d", "tgt": "b"}\n' % (i * 7919) for i in range(999)))
    file = write(tmp_path / "a.jsonl.gz", content[:cut])
    with pytest.raises(DataError, match=r"a.jsonl.gz: the gzip data is broken or cut short after line \d+"):
        list(read([file]))


def test_flipped_gzip(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(GOOD * 50))
    content[-6] ^= 255
    with pytest.raises(DataError, match="the gzip data is broken"):
        list(read([write(tmp_path / "a.jsonl.gz", bytes(content))]))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (GOOD + b"\n", gzip.compress(GOOD)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        (record,) = records("-")
        assert record.where == "<stdin>:1"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\tb")))
    assert pairs(Path("-")) == [("a", "b")]


def test_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(GOOD + b"\n" + GOOD))
    writer.start()
    assert len(pairs(tmp_path / "pipe")) == 2
    writer.join()


def test_parallel_text(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", "1\n\n3\n"), write(tmp_path / "b", gzip.compress(b"x\ny\r\nz"))
    assert pairs(a, a, target_files=[b, b]) == [("1", "x"), ("", "y"), ("3", "z")] * 2


@pytest.mark.parametrize(("left", "right", "short"), [("1\n2\n3\n", "1\n2", "b"), ("1\n", "1\n2\n", "a")])
@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_uneven_parallel_text(tmp_path: Path, left: str, right: str, short: str, policy: str) -> None:
    a, b = write(tmp_path / "a", left), write(tmp_path / "b", right)
    with pytest.raises(DataError, match=rf"/{short}: ends after line \d, but .* goes on"):
        list(read([a], target_files=[b], on_bad_line=policy))


def test_parallel_files_are_as_many(tmp_path: Path) -> None:
    a = write(tmp_path / "a", "1\n")
    with pytest.raises(DataError, match="2 files but 1 target_files"):
        list(read([a, a], target_files=[a]))


def test_bad_bytes_beside_good_ones(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", b"1\n2\n\xff\n"), write(tmp_path / "b", b"x\n\xff\nz\n")
    first, second, third = read([a], target_files=[b], on_bad_line="replace")
    assert isinstance(first, Record)
    assert isinstance(second, BadLine)
    assert isinstance(third, BadLine)
    assert second.where == f"{b}:2"
    assert second.replacement == Record("2", "\ufffd", [], None, f"{a}:2")
    assert third.replacement == Record("\ufffd", "z", [], None, f"{a}:3")


@pytest.mark.parametrize(
    ("name", "message"),
    [("no-such.jsonl", "no such file"), (".", "is a folder, not a file"), ("file/inside", "Not a directory")],
)
@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_files_that_do_not_open(tmp_path: Path, name: str, message: str, policy: str) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(DataError, match=message):
        list(read([tmp_path / name], on_bad_line=policy))


def test_utf16_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a.txt: is UTF-16, not UTF-8") as caught:
        list(read([write(tmp_path / "a.txt", "text\n".encode("utf-16"))], need_target=False))
    assert caught.value.hint == "`iconv -f UTF-16 -t UTF-8` mends it"


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.tsv", "bare.txt"):
        assert list(read([write(tmp_path / name, b"")], need_target=False)) == []


@pytest.mark.parametrize(
    ("option", "message"), [("format", "no such data format: 'x'"), ("on_bad_line", "'x' is not known")]
)
def test_unknown_options(option: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read([], **{option: "x"}))  # type: ignore[arg-type]


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


# what is wrong -> (the line, what is said of it, what `replace` makes of it: None for an empty pair)
BAD = {
    "empty": (b"", "the line is empty", None),
    "blanks": (b"  \t ", "the line is empty", None),
    "carriage returns": (b"\r\r", "the line is empty", None),
    "not JSON": (b"hello", "not valid JSON: Expecting value, column 1", None),
    "half a line": (GOOD[:-3], "not valid JSON: Unterminated string starting at, column 21", None),
    "two objects": (GOOD + GOOD, "not valid JSON: Extra data, column 25", None),
    "array": (b"[1]", "a JSON object was expected, not a list", None),
    "null": (b"null", "a JSON object was expected, not null", None),
    "nested too deep": (b'{"src": ' + b"[" * 99_999, "not valid JSON: maximum recursion depth", None),
    "NaN": (b'{"src": "a", "tgt": NaN}', "not valid JSON: NaN is not JSON", None),
    "endless digits": (b'{"id": ' + b"1" * 9_999 + b"}", "not valid JSON: Exceeds the limit", None),
    "double key": (b'{"src": "a", "src": "b"}', "not valid JSON: the key 'src' is there twice", None),
    "no source": (line(tgt="b"), "'src' is missing", None),
    "null source": (line(src=None, tgt="b"), "'src' is missing", None),
    "no target": (line(src="a"), "'tgt' is missing", None),
    "no references": (line(src="a", refs=[None]), "'tgt' is missing", None),
    "number": (line(src=1, tgt="b"), "'src' must be text or a list of tokens, not a number", None),
    "truth": (line(src="a", tgt=True), "'tgt' must be text or a list of tokens, not true or false", None),
    "object": (line(src={}, tgt="b"), "'src' must be text or a list of tokens, not an object", None),
    "mixed tokens": (line(src=["a", 1], tgt="b"), "'src' must be text or a list of tokens, not a list", None),
    "references as text": (line(src="a", tgt="b", refs="c"), "'refs' must be a list of texts, not text", None),
    "reference as number": (line(src="a", refs=[1]), "'refs' must be text or a list of tokens", None),
    "id as list": (line(src="a", tgt="b", id=[1]), "'id' must be text or a whole number, not a list", None),
    "id as truth": (line(src="a", tgt="b", id=True), "'id' must be text or a whole number", None),
    "NUL byte": (b'{"src": "a\0", "tgt": "b"}', "holds a NUL byte", ("a\ufffd", "b")),
    "NUL escape": (line(src="a\0", tgt="b"), "'src' holds a NUL character", ("a\ufffd", "b")),
    "Latin-1": ('{"src": "é", "tgt": "b"}'.encode("latin-1"), "not UTF-8 (byte 0xe9 at column 10)", ("\ufffd", "b")),
    "cut character": (
        "天".encode()[:2].join([b'{"src": "', b'", "tgt": "b"}']),
        "not UTF-8 (byte 0xe5",
        ("\ufffd", "b"),
    ),
    "overlong": (b'{"src": "\xc0\xaf", "tgt": "b"}', "not UTF-8 (byte 0xc0", ("\ufffd\ufffd", "b")),
    "raw surrogate": (b'{"src": "\xed\xa0\x80", "tgt": "b"}', "not UTF-8 (byte 0xed", ("\ufffd" * 3, "b")),
    "beyond Unicode": (b'{"src": "\xf5\x80\x80\x80", "tgt": "b"}', "not UTF-8 (byte 0xf5", ("\ufffd" * 4, "b")),
    "stray continuation": (b'{"src": "\x80", "tgt": "b"}', "not UTF-8 (byte 0x80", ("\ufffd", "b")),
    "half a pair": (line(src="a\ud83d", tgt="b"), "'src' holds half of a surrogate pair (U+D83D)", ("a\ufffd", "b")),
    "wrong half": (line(src="a", tgt=["\ude00"]), "'tgt' holds half of a surrogate pair (U+DE00)", ("a", ["\ufffd"])),
    "half, and a whole": (
        line(src="\ud83d \U0001f600", tgt="b"),
        "half of a surrogate pair",
        ("\ufffd \U0001f600", "b"),
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("policy", ["fail", "skip", "replace"])
def test_bad_lines(tmp_path: Path, name: str, policy: str) -> None:
    content, message, mended = BAD[name]
    file = write(tmp_path / "train.jsonl", GOOD + b"\n" + content + b"\n" + GOOD + b"\n")
    if policy == "fail":
        with pytest.raises(DataError) as caught:
            list(read([file], on_bad_line=policy))
        assert caught.value.message.startswith(f"{file}:2: ")
        assert message in caught.value.message
        assert len(caught.value.message) < len(str(file)) + 160
        return
    first, bad, last = read([file], on_bad_line=policy)
    assert isinstance(first, Record)
    assert isinstance(bad, BadLine)
    assert last == first._replace(where=f"{file}:3")
    assert bad.where == f"{file}:2"
    assert message in bad.message
    expected = Record(*(mended or ("", "")), [], None, f"{file}:2")
    assert bad.replacement == (None if policy == "skip" else expected)


def test_a_missing_field_says_what_there_is(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", b"\n".join([GOOD] * 1040 + [line(src="a", label=1)]))
    with pytest.raises(DataError) as caught:
        list(read([file]))
    assert caught.value.message == f"{file}:1041: 'tgt' is missing"
    assert caught.value.hint == "the line has 'src', 'label'; the recipe's data section names the fields"


@pytest.mark.parametrize(
    ("content", "format", "expected"),
    [
        (b"a b\r", "text", ("a b", None)),
        (b"", "text", ("", None)),
        (GOOD, "jsonl", ("a", "b")),
        (b'{"src": ["x"], "id": 3}', "jsonl", (["x"], None)),
        (b"a\tb", "tsv", ("a", "b")),
        (b"a", "tsv", ("a", None)),
        (b'"a,b",c', "csv", ("a,b", "c")),
        (b"", "csv", ("", None)),
    ],
)
def test_one_line(content: bytes, format: str, expected: tuple[object, object]) -> None:
    record = parse_line(content, "<stdin>:9", format=format)
    assert (record.source, record.target, record.where) == (*expected, "<stdin>:9")


def test_one_bad_line_names_its_place() -> None:
    with pytest.raises(DataError, match=r"<stdin>:9: not UTF-8 \(byte 0xff at column 2\)"):
        parse_line(b"a\xff", "<stdin>:9", format="text")
    with pytest.raises(DataError, match="<stdin>:9: 'q' is missing"):
        parse_line(b"{}", "<stdin>:9", format="jsonl", source="q")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["jsonl", "text", "tsv", "csv"]))
def test_any_bytes_are_a_record_or_a_data_error(content: bytes, format: str) -> None:
    try:
        record = parse_line(content.replace(b"\n", b""), "x:1", format=format)
    except DataError as error:
        where = error.message.split(": ")[0]
    else:
        where = record.where
    assert where == "x:1"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)] * 2), max_size=9)
)
def test_json_and_csv_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    import csv

    folder = tmp_path_factory.mktemp("rows")
    jsonl = write(folder / "a.jsonl", "".join(json.dumps({"src": s, "tgt": t}) + "\n" for s, t in rows))
    assert pairs(jsonl) == rows
    table = io.StringIO()
    kept = [(s.replace("\r", ""), t.replace("\r", "")) for s, t in rows]
    csv.writer(table, lineterminator="\n").writerows([("src", "tgt"), *kept])
    assert pairs(write(folder / "a.csv", table.getvalue())) == kept


def test_a_long_line(tmp_path: Path) -> None:
    text = "word " * 2_000_000
    assert pairs(write(tmp_path / "a.jsonl", line(src=text, tgt="b"))) == [(text, "b")]
    assert len(pairs(write(tmp_path / "a.csv", f'"{text}",b'))[0][0]) == len(text)  # type: ignore[arg-type]


def test_reading_is_a_stream(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", (line(src="a" * 90, tgt="b" * 90) + b"\n") * 50_000)

    def peak(items: Iterator[object]) -> int:
        tracemalloc.start()
        for _ in items:
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(lines_of([file])) < 1_000_000  # of a file of ten megabytes


def test_wishes_are_read_where_they_are_asked_for() -> None:
    line = b'{"src": "a", "prefix": ["b", "c"], "phrases": ["d e", "f"]}'
    asked = parse_line(line, "x:1", format="jsonl", wishes=True)
    assert (asked.prefix, asked.phrases) == (["b", "c"], ["d e", "f"])
    plain = parse_line(b'{"src": "a", "prefix": 3, "phrases": null}', "x:1", format="jsonl")
    assert (plain.prefix, plain.phrases) == (None, ())
    none = parse_line(b'{"src": "a", "prefix": null, "phrases": null}', "x:1", format="jsonl", wishes=True)
    assert (none.prefix, none.phrases) == (None, ())


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ('"prefix": 3', "x:7: 'prefix' must be text or a list of tokens, not a number"),
        ('"phrases": "a b"', "x:7: 'phrases' must be a list of texts"),
        ('"phrases": ["a", ["b"]]', "x:7: 'phrases' must be a list of texts"),
        ('"phrases": ["a\\u0000"]', "x:7: 'phrases' holds a NUL character"),
    ],
)
def test_wishes_of_the_wrong_kind_name_their_line(wishes: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_line(f'{{"src": "a", {wishes}}}'.encode(), "x:7", format="jsonl", wishes=True)
    assert caught.value.message == message


LINES = [
    '{"src": "a", "tgt": "b"}',
    '{"tgt": "ü \\u00fc", "src": "", "id": 3}',
    '{"src": "a", "tgt": "b", "refs": ["c"]}',
    '{"src": "a", "tgt": null}',
    '{"src": ["a"], "tgt": "b"}',
    '{"src": "a", "tgt": "b", "id": true}',
    '{"src": "a", "src": "b", "tgt": "c"}',
    '{"src": "\\u0000", "tgt": "b"}',
    '{"src": "\\ud83d", "tgt": "\\ude00"}',
    '{"src": "a", "tgt": "b"}, {"src": "c", "tgt": "d"}',
    '{"src": "a", "tgt": "b", "x": [{"y": 1}',
    '{"z": 2}]}',
    '{"src": "a", "tgt": 1e999}',
    "",
    "[1]",
    "nonsense",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=5))
@example(LINES[:1])
@example(LINES[:2])
@example(LINES[9:12])  # as many objects as lines, but not one in each
def test_pairs_of_ordinary_lines_are_their_records(lines: list[str]) -> None:
    """The quick way gives what the careful one does, or leaves it to that."""
    columns = Columns()
    quick = plain_pairs([f"{line}\r\n".encode() for line in lines], columns)
    ordinary = [line for line in lines if line in LINES[:2]]
    assert (quick is None) == (len(ordinary) < len(lines))
    if quick is not None:
        records = [from_json(line, "f:1", columns, need_target=True) for line in lines]
        assert quick == ([one.source for one in records], [one.target for one in records])
