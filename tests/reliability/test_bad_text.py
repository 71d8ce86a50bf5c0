"""A line that cannot be used is named by file and line, passed over or mended, as `on_bad_line` says; a line that is
merely strange is text like any other. `generate` gives a line for every line, whatever the lines are, and files that
are broken, folders, pipes or changed under the reader end in one message.
"""

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_reading import BAD
from tiny_writer import WORDS, model_folder

from unilmctl.cli import run
from unilmctl.errors import DataError
from unilmctl.generation import read_records
from unilmctl.preparation import TaskData, labelled_texts, prepare, prepare_tasks, prepare_text
from unilmctl.recipe import Split, Tokens

POLICIES = ["fail", "skip", "replace"]
GOOD = b"a b c"
LIMITS = Tokens(max_source=24, max_target=16)

# a line of plain text -> whether it cannot be used
LINES: dict[str, tuple[bytes, bool]] = {
    "empty": (b"", False),
    "one blank": (b" ", False),
    "blanks and tabs": (b" \t  \t", False),
    "carriage return alone": (b"\r", False),
    "carriage return at the end": (b"a b\r", False),
    "carriage returns inside": (b"a\rb\r\rc", False),
    "NUL": (b"a\0b", True),
    "NULs alone": (b"\0\0\0", True),
    "byte-order mark inside": (b"a\xef\xbb\xbfb", False),
    "byte-order mark alone": (b"\xef\xbb\xbf", False),
    "0xff": (b"a \xff b", True),
    "stray continuation": (b"a \x80 b", True),
    "cut character": (b"a \xe5\xa4", True),
    "cut character of four bytes": (b"\xf0\x9f\x98 b", True),
    "overlong slash": (b"\xc0\xaf", True),
    "overlong NUL": (b"a\xc0\x80b", True),
    "raw surrogate": (b"\xed\xa0\xbd", True),
    "CESU-8 pair": (b"\xed\xa0\xbd\xed\xb8\x80", True),
    "beyond Unicode": (b"\xf4\x90\x80\x80", True),
    "Latin-1": ("café".encode("latin-1"), True),
    "Windows-1252": ("“a”".encode("cp1252"), True),
    "GBK": ("中文".encode("gbk"), True),
    "Shift-JIS": ("日本".encode("shift-jis"), True),
    "UTF-16": ("ab".encode("utf-16-le"), True),
    "UTF-32": ("ab".encode("utf-32-le"), True),
    "gzip inside": (gzip.compress(b"a", mtime=0).replace(b"\n", b"."), True),
    "line separator U+2028": ("a\u2028b".encode(), False),
    "paragraph separator U+2029": ("a\u2029b".encode(), False),
    "next line U+0085": ("a\x85b".encode(), False),
    "vertical tab and form feed": (b"a\x0bb\x0cc", False),
    "file, group and record separators": (b"a\x1cb\x1dc\x1ed", False),
    "no-break and ideographic blanks": ("a\u00a0b\u3000c".encode(), False),
    "zero-width characters": ("a\u200bb\u200dc\ufeffd\u2060e".encode(), False),
    "soft hyphens": ("a\u00adb".encode(), False),
    "right to left": ("\u202eabc\u202c \u0627\u0644".encode(), False),
    "a storm of accents": (("a" + "\u0301" * 5000).encode(), False),
    "joined emoji": ("👩‍👩‍👧‍👦 🏳️‍🌈".encode(), False),
    "noncharacters": ("a\ufffe\uffff\U0010ffff".encode(), False),
    "private use": ("\ue000\U000f0000".encode(), False),
    "replacement characters": ("\ufffd\ufffd".encode(), False),
    "tag characters": ("a\U000e0061\U000e007f".encode(), False),
    "unassigned": ("\u0378\U0003ffff".encode(), False),
    "control characters": (bytes(range(1, 9)) + b"\x7f", False),
    "terminal escapes": (b"\x1b[31ma\x1b]0;b\x07", False),
    "special tokens as text": (b"[CLS] a [SEP] [MASK] [PAD] [UNK]", False),
    "special tokens of others": (b"<s> a </s> <mask> <pad>", False),
    "backslashes": (b"a\\nb\\u0000\\", False),
    "quotes": (b"\"a' `b`", False),
    "the start of JSON": (b'{"src": "a"', False),
    "markup of the console": (b"[bold]a[/bold] [/]", False),
    "format signs": (b"%s %(a)s {0} ${HOME}", False),
    "a word of 100,000 letters": (b"a" * 100_000, False),
    "100,000 tokens": (b"a " * 100_000, False),
}
LONG = {
    "10 MB of one word": b"a" * 10_000_000,
    "a million tokens": b"a " * 1_000_000,
    "a million Chinese characters": "中".encode() * 1_000_000,
    "10 MB of blanks": b" " * 10_000_000,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def generate(model: Path, file: Path, policy: str) -> tuple[int, list[str]]:
    """Exit code, and the lines that were written, all or up to the one that could not be read."""
    out, unfinished = file.with_name("out.txt"), file.with_name("out.txt.unfinished")
    for path in (out, unfinished):
        path.unlink(missing_ok=True)
    options = ["--search", "greedy", "--max-length", "3", "--on-bad-line", policy, "--output", str(out)]
    code = run(["generate", str(file), "--model", str(model), *options])
    assert out.exists() == (code == 0)
    text = out.read_bytes() if code == 0 else unfinished.read_bytes() if unfinished.exists() else b""
    assert text.endswith(b"\n") or not text
    return code, text.decode().split("\n")[:-1]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LINES)
def test_generate_answers_every_line_or_names_the_one_it_cannot_read(
    kind: str, policy: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line, bad = LINES[kind]
    file = tmp_path / "in.txt"
    file.write_bytes(b"\n".join([GOOD, line, GOOD, b""]))
    code, lines = generate(model, file, policy)
    said = capfd.readouterr().err
    if bad and policy == "fail":
        assert (code, len(lines)) == (4, 1)
        assert f"error: {file}:2: " in said
        return
    assert (code, len(lines)) == (0, 3)
    assert lines[0] == lines[2] != ""
    assert ("1 of 3 lines could not be read as they are" in said) == bad
    assert lines[1] == "" or not (bad and policy == "skip")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", BAD)
def test_generate_answers_every_json_line_or_names_the_one_it_cannot_read(
    kind: str, policy: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line, reason, mended = BAD[kind]
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"\n".join([b'{"src": "a b"}', line, b'{"src": "a b"}', b""]))
    sound = not line.strip() or "'tgt' is missing" in reason
    code, lines = generate(model, file, policy)
    said = capfd.readouterr().err
    if not sound and policy == "fail":
        assert (code, len(lines)) == (4, 1)
        assert f"error: {file}:2: " in said
        assert reason in said
        return
    assert (code, len(lines)) == (0, 3)
    assert ("1 of 3 lines could not be read as they are" in said) == (not sound)
    if mended is not None:
        (record,) = [
            item.replacement for item in read_records(str(file), on_bad_line="replace") if hasattr(item, "replacement")
        ]
        assert record is not None
        assert (record.source, record.target) == mended


@pytest.mark.reliability
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LONG)
def test_generate_answers_lines_of_any_length(kind: str, policy: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\n".join([GOOD, LONG[kind], GOOD, b""]))
    assert [line != "" for line in generate(model, tmp_path / "in.txt", policy)[1]][::2] == [True, True]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def counted(make: Callable[[], tuple[int, int]], bad: bool, policy: str, where: str, most: int = 3) -> None:
    """What is stored and what was counted as bad, by policy."""
    if bad and policy == "fail":
        with pytest.raises(DataError) as caught:
            make()
        assert caught.value.message.startswith(where)
        return
    stored, counted = make()
    assert counted == bad
    assert stored in ({most - 1} if bad and policy == "skip" else {most - 1, most})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LINES)
def test_parallel_files_keep_step_or_name_the_line(kind: str, policy: str, tokenizer: Path, tmp_path: Path) -> None:
    line, bad = LINES[kind]
    source, target = tmp_path / "a.txt", tmp_path / "b.txt"
    source.write_bytes(b"\n".join([GOOD, GOOD, GOOD, b""]))
    target.write_bytes(b"\n".join([GOOD, line, GOOD, b""]))

    def make() -> tuple[int, int]:
        split = Split(files=[source], target_files=[target])
        found = prepare(
            folder=tmp_path / "store", splits={"train": split}, limits=LIMITS, tokenizer=tokenizer,
            on_bad_line=policy,
        ).report["train"]  # fmt: skip
        return found.examples, found.bad

    counted(make, bad, policy, f"{target}:2: ")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LINES)
def test_text_to_learn_from_is_read_or_named(kind: str, policy: str, tokenizer: Path, tmp_path: Path) -> None:
    line, bad = LINES[kind]
    file = tmp_path / "a.txt"
    file.write_bytes(b"\n".join([GOOD, line, GOOD, b""]))

    def make() -> tuple[int, int]:
        split = Split(files=[file], documents="lines")
        found = prepare_text(
            folder=tmp_path / "store", splits={"train": split}, tokenizer=tokenizer, on_bad_line=policy
        ).report["train"]
        return found.documents, found.bad

    counted(make, bad, policy, f"{file}:2: ")


def escaped(text: bytes) -> bytes:
    """A line as the text of a JSON string, its bytes as they are."""
    for plain, sign in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\0", b"\\u0000")):
        text = text.replace(plain, sign)
    return b"".join(b"\\u%04x" % byte if byte < 32 else bytes([byte]) for byte in text)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("field", ["src", "label"])
def test_labelled_text_is_read_or_named(field: str, kind: str, policy: str, tokenizer: Path, tmp_path: Path) -> None:
    line, bad = LINES[kind]
    file = tmp_path / "a.jsonl"
    fields = {"src": GOOD, "label": b"yes"} | {field: escaped(line)}
    good = b'{"src": "a", "label": "yes"}'
    file.write_bytes(b"\n".join([good, b'{"src": "%s", "label": "%s"}' % (fields["src"], fields["label"]), good]))
    blank = field == "label" and not line.decode("utf-8", "replace").strip()

    def make() -> tuple[int, int]:
        split = Split(files=[file], target="label")
        tasks = {"classify": TaskData("classify", tmp_path / "store", {"train": split})}
        prepared = prepare_tasks(
            folder=tmp_path / "store", tasks=tasks, limits=LIMITS, tokenizer=tokenizer, on_bad_line=policy
        )
        found, labels = prepared.report["train"], prepared.tasks["classify"].labels
        texts = labelled_texts(split, task="classify", labels=labels, on_bad_line=policy)
        assert len(list(texts)) == found.examples
        return found.examples, found.bad

    counted(make, bad or blank, policy if policy == "fail" else "skip", f"{file}:2: ")


LABELS: dict[str, tuple[bytes, str]] = {
    "two minus signs": (b'"--5"', "classify"),
    "a minus sign alone": (b'"-"', "classify"),
    "5,000 digits": (b'"%s"' % (b"7" * 5000), "classify"),
    "digits of another script": ('"٣"'.encode(), "classify"),
    "a superscript": ('"²"'.encode(), "classify"),
    "a truth": (b"true", "classify"),
    "a fraction": (b"0.5", "classify"),
    "infinity by overflow": (b"1e999", "classify"),
    "the smallest number": (b"5e-324", "regress"),
    "a number with blanks": (b'" 3 "', "regress"),
}
BAD_LABELS: dict[str, tuple[bytes, str]] = {
    "beyond float32": (b"1e300", "regress"),
    "beyond float64": (b"1e999", "regress"),
    "not a number": (b'"nan"', "regress"),
    "text for a number": (b'"three"', "regress"),
    "nothing": (b"null", "classify"),
    "a list": (b'["a"]', "classify"),
    "half a surrogate pair": (b'"\\ud83d"', "classify"),
    "NUL": (b'"a\\u0000"', "classify"),
    "two lines": (b'"a\\nb"', "classify"),
}


@pytest.mark.parametrize("kind", [*LABELS, *BAD_LABELS])
@pytest.mark.parametrize("policy", POLICIES)
def test_strange_labels_are_labels_or_named(kind: str, policy: str, tokenizer: Path, tmp_path: Path) -> None:
    label, task = {**LABELS, **BAD_LABELS}[kind]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"src": "a", "label": 3}\n{"src": "a", "label": %s}\n' % label)

    def make() -> tuple[int, int]:
        split = Split(files=[file], target="label")
        found = prepare_tasks(
            folder=tmp_path / "store", tasks={task: TaskData(task, tmp_path / "store", {"train": split})},
            limits=LIMITS, tokenizer=tokenizer, on_bad_line=policy,
        ).report["train"]  # fmt: skip
        return found.examples, found.bad

    counted(make, kind in BAD_LABELS, policy if policy == "fail" else "skip", f"{file}:2: ", most=2)


def pipe_with(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        os.mkfifo(path)
        threading.Thread(target=lambda: path.write_bytes(content), daemon=True).start()

    return make


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


FILES: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "missing": (lambda path: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "is a"),
    "a broken link": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "a socket": (bound, "no such device"),
    "nothing": (lambda path: path.write_bytes(b""), None),
    "/dev/null": (lambda path: path.symlink_to("/dev/null"), None),
    "a pipe": (pipe_with(b"a\nb"), None),
    "a pipe that closes at once": (pipe_with(b""), None),
    "one line feed": (lambda path: path.write_bytes(b"\n"), None),
    "no line feed at the end": (lambda path: path.write_bytes(b"a\nb"), None),
    "UTF-16 with its mark": (lambda path: path.write_bytes("a\nb\n".encode("utf-16")), ":1: "),
    "UTF-32 with its mark": (lambda path: path.write_bytes("a\nb\n".encode("utf-32")), ":1: "),
    "a byte-order mark alone": (lambda path: path.write_bytes(b"\xef\xbb\xbf"), None),
}
EXPECTED = {"one line feed": 1, "no line feed at the end": 2, "a pipe": 2, "a byte-order mark alone": 1}


@pytest.mark.parametrize("kind", FILES)
def test_generate_reads_a_file_or_says_why_not(
    kind: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = FILES[kind]
    monkeypatch.chdir(tmp_path)
    file = Path("in.txt")
    make(file)
    code, lines = generate(model, file, "fail")
    said = capfd.readouterr().err
    if reason is None:
        assert (code, said, len(lines)) == (0, "", EXPECTED.get(kind, 0))
    else:
        assert (code, lines) == (4, [])
        assert said.startswith("error: in.txt")
        assert reason in said.lower()


def cuts() -> Iterator[tuple[str, bytes]]:
    whole = gzip.compress(b"".join(b"a b %d\n" % (number * 7919) for number in range(500)), mtime=0)
    yield from ((f"{count} bytes", whole[:count]) for count in (1, 2, 9, 10, 11, 300))
    yield from ((f"all but {count}", whole[:-count]) for count in (1, 4, 8, 9, 40))
    yield "wrong checksum", whole[:-8] + bytes(4) + whole[-4:]
    yield "wrong length", whole[:-4] + bytes(4)
    yield "wrong method", whole[:2] + b"\x07" + whole[3:]
    yield "nonsense after it", whole + b"nonsense"


CUTS = dict(cuts())


@pytest.mark.parametrize("kind", CUTS)
def test_broken_gzip_is_named(
    kind: str, model: Path, tokenizer: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.txt.gz"
    file.write_bytes(CUTS[kind])
    code, _ = generate(model, file, "replace")
    said = capfd.readouterr().err
    assert code == 4
    assert f"error: {file}: the gzip data is broken or cut short" in said
    with pytest.raises(DataError, match=r"gzip data is broken or cut short|no text"):
        prepare_text(folder=tmp_path / "store", splits={"train": Split(files=[file])}, tokenizer=tokenizer)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_new_end(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("a\nb\n")
    records = read_records(str(file))
    assert next(records) is not None
    with file.open("a") as more:
        more.write("c\n")
    assert [item.source for item in records if item is not None and hasattr(item, "source")] == ["b", "c"]


def test_a_file_that_is_cut_or_deleted_while_it_is_read_ends_early(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("a b\n" * 100_000)
    records = read_records(str(file))
    assert next(records) is not None
    os.truncate(file, 10)
    file.unlink()
    assert 1 < sum(item is not None for item in records) < 100_000
