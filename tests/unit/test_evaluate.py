"""The evaluate command: what it reads, refuses and shows."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from unilmctl.commands.evaluate import Files, evaluate, read_hypotheses, read_references, read_sources, run
from unilmctl.errors import DataError, UsageError
from unilmctl.metrics import Options


@pytest.fixture
def write(tmp_path):
    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def jsonl(*objects) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


# --- reading --------------------------------------------------------------------------------------------------------


def test_lines_end_at_line_feeds_only(write):
    odd = "a\u2028b\x0bc\x85d\re"
    assert read_hypotheses(write("h", f"{odd}\n\nlast")) == [odd, "", "last"]
    assert read_hypotheses(write("h", "one\n\n")) == ["one", ""]


def test_a_byte_order_mark_is_not_text(write):
    assert read_hypotheses(write("h", b"\xef\xbb\xbfone\n")) == ["one"]


def test_compressed_files(write):
    assert read_hypotheses(write("h.gz", gzip.compress(b"one\ntwo\n"))) == ["one", "two"]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\nb\n".encode()), encoding="ascii"))
    assert read_hypotheses("-") == ["é", "b"]


def test_the_best_hypothesis_of_generate(write):
    best = {"id": 1, "hypotheses": [{"text": "best", "score": -1.0}, {"text": "second", "score": -2.0}]}
    assert read_hypotheses(write("h", jsonl(best, {"hypotheses": []}))) == ["best", ""]


def test_references_in_json(write):
    path = write("r", jsonl({"refs": ["a", None, "b"]}, {"refs": "c"}, {"tgt": "d"}, {"tgt": ["e", "f"]}))
    assert read_references([path])[0] == [["a", None, "b"], ["c"], ["d"], ["e f"]]


def test_references_in_parallel_files(write):
    first, second = write("r1", "a\nb\n"), write("r2", "x\n\n")
    assert read_references([first, second]) == ([["a", "x"], ["b", None]], None)
    assert read_references([second])[0] == [["x"], [""]]
    assert read_references([second, write("r", jsonl({"refs": ["y", "z"]}, {"tgt": "w"}))])[0] == [
        ["x", "y", "z"],
        [None, "w"],
    ]


def test_sources_come_from_references_that_have_them_all(write):
    rows = [{"src": "s", "tgt": "a"}, {"src": ["t", "u"], "tgt": "b"}]
    assert read_references([write("r", jsonl(*rows))])[1] == ["s", "t u"]
    assert read_references([write("r", jsonl(rows[0], {"tgt": "b"}))])[1] is None
    assert read_sources(write("s", jsonl(*rows))) == ["s", "t u"]
    assert read_sources(write("s", "s\nt u\n")) == ["s", "t u"]


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(function, *arguments) -> DataError:
    with pytest.raises(DataError) as caught:
        function(*arguments)
    return caught.value


def test_bad_utf8_names_file_and_line(write):
    path = write("h", b"fine\nna\xefve\n")
    mistake = refused(read_hypotheses, path)
    assert mistake.message == f"{path}:2: not UTF-8 (byte 3 is 0xef)"
    assert "iconv" in mistake.hint


def test_an_absent_file(tmp_path):
    mistake = refused(read_hypotheses, tmp_path / "none")
    assert mistake.message == f"{tmp_path / 'none'}: No such file or directory"


def test_a_file_that_is_not_compressed(write):
    path = write("h.gz", "plain\n")
    assert refused(read_hypotheses, path).message.startswith(f"{path}: Not a gzipped file")


def test_a_file_that_was_cut_off(write):
    path = write("h.gz", gzip.compress(b"one\n" * 100)[:-9])
    assert refused(read_hypotheses, path).message.startswith(f"{path}: broken compression: Compressed file ended")


def test_an_empty_file(write):
    assert refused(read_references, [write("r", "")]).message.endswith("r: the file is empty")


BROKEN = [
    ("{oops", "1: not JSON: Expecting property name enclosed in double quotes at column 2"),
    (
        '{"tgt": "a"}\n{"tgt": ' + "[" * 100_000,
        "2: not JSON: maximum recursion depth exceeded while decoding a JSON array",
    ),
    ('{"label": ' + "1" * 5000 + "}", "1: not JSON: Exceeds the limit (4300 digits)"),
    ('{"tgt": "a"}\n[1]', "2: not a JSON object"),
    ('{"tgt": "a"}\n{"src": "b"}', "2: none of 'refs', 'tgt', 'label', 'tags', 'answers'"),
    ('{"tgt": 7}', "1: 7 is neither text nor a list of tokens"),
    ('{"refs": ["a", {"b": 1}]}', '1: {"b": 1} is neither text nor a list of tokens'),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_broken_references(write, content, message):
    path = write("r", content)
    said = refused(read_references, [path]).message
    assert said.startswith(f"{path}:{message}")
    assert len(said) < len(str(path)) + 150


@pytest.mark.parametrize("content", ['{"text": "a"}', '{"hypotheses": ["a"]}', '{"hypotheses": [{"text": 1}]}'])
def test_broken_hypotheses(write, content):
    path = write("h", content)
    mistake = refused(read_hypotheses, path)
    assert mistake.message == f"{path}:1: no hypotheses with a 'text'"
    assert "generate --json" in mistake.hint


def test_broken_sources(write):
    path = write("s", '{"tgt": "a"}')
    assert refused(read_sources, path).message == f"{path}:1: 'src': null is neither text nor a list of tokens"


def test_a_line_without_reference(write):
    one, two = write("r1", "a\n\n"), write("r2", "b\n\n")
    assert refused(read_references, [one, two]).message == f"{one}:2, {two}:2: no reference"
    alone = write("r", jsonl({"refs": []}))
    assert refused(read_references, [alone]).message == f"{alone}:1: no reference"


def test_files_of_different_lengths(write):
    three, two = write("three", "a\nb\nc\n"), write("two", "a\nb\n")
    assert refused(evaluate, Files(three, [two])).message == f"{three} has 3 lines but {two} has 2"
    assert refused(evaluate, Files(two, [two, three])).message == f"{two} has 2 lines but {three} has 3"
    assert refused(evaluate, Files(two, [two], three)).message == f"{three} has 3 lines but {two} has 2"
    assert refused(evaluate, Files(two, [two], None, three)).message == f"{three} has 3 lines but {two} has 2"


def test_no_references(write):
    with pytest.raises(UsageError, match="evaluate: no references"):
        evaluate(Files(write("h", "a\n"), []))


def test_mistakes_in_names_come_before_the_files_are_read(tmp_path):
    nothing = Files(tmp_path / "h", [tmp_path / "r"])
    with pytest.raises(UsageError, match="unknown metric 'blue'; did you mean 'bleu'"):
        evaluate(nothing, ["blue"])
    with pytest.raises(UsageError, match="unknown task 'x'"):
        evaluate(nothing, task="x")


# --- scores ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(write):
    texts = ["the cat sat on the mat", "a dog ran to the park", "birds sing in the tree"]
    worse = ["the cat sat", "a dog", "no birds sing here"]
    return write("h", "\n".join(texts)), write("o", "\n".join(worse)), write("r", "\n".join(texts) + "\n")


def test_scores_without_names_are_the_usual_ones(pair):
    report = evaluate(Files(pair[0], [pair[2]]))
    names = ["bleu", "chrf", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"]
    assert {row.name: row.value for row in report.rows} == pytest.approx(dict.fromkeys(names, 100))
    assert (report.sentences, report.comparisons) == (3, [])
    assert all(row.interval is None for row in report.rows)


def test_confidence_and_comparison(pair):
    report = evaluate(Files(pair[0], [pair[2]], pair[1]), ["rouge1", "distinct1"], confidence=True, seed=5)
    rouge, distinct = report.rows
    assert rouge.interval.seed == 5
    assert distinct.interval is None
    tested, untested = report.comparisons
    assert tested.difference > 0
    assert 0.2 < tested.p_value < 0.3  # all three outputs or none: 2 of 8 swaps, by chance
    assert untested.p_value is None


def test_a_task_brings_its_metrics_and_its_text(write):
    output = write("h", jsonl({"hypotheses": [{"text": "who ' s ( it )"}]}, {"hypotheses": [{"text": "Where ?"}]}))
    truth = write("r", "who 's -lrb- it -rrb-\nwhere ?\n")
    sources = write("s", "one\ntwo\n")
    report = evaluate(Files(output, [truth], None, sources), task="squad_qg")
    assert {row.name: row.value for row in report.rows} == pytest.approx({"bleu": 100, "coco_rougeL": 100})


def test_a_grouped_task_without_sources_says_so(pair, capsys):
    evaluate(Files(pair[0], [pair[2]]), task="squad_qg")
    assert "squad_qg groups lines by their source" in capsys.readouterr().err


def test_options_reach_the_metrics(write):
    output, truth = write("h", "我喜欢狗\n"), write("r", "我喜欢猫\n")
    (row,) = evaluate(Files(output, [truth]), ["rouge1"], options=Options("zh")).rows
    assert row.value == pytest.approx(75)


def test_the_table(pair, capsys):
    run(hypotheses=str(pair[0]), references=[pair[2]], metrics=["bleu"], compare=pair[1], confidence=True)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["metric", "score", "95", "%", "signature"]
    assert shown[1].startswith(
        "bleu    100.00  100.00 to 100.00  nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    )
    assert shown[2] == ""
    assert shown[3].split() == ["metric", "score", "other", "difference", "95", "%", "p"]
    assert len(shown) == 5


def test_json(pair, capsys):
    run(hypotheses=pair[0], references=[pair[2]], metrics=["exact_match"], compare=pair[1], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["sentences"] == 3
    assert shown["scores"][0] | {"name": "exact_match", "value": 100, "interval": None} == shown["scores"][0]
    assert shown["comparisons"][0]["other"] == 0


def test_it_never_loads_torch(pair):
    code = (
        "import sys; from pathlib import Path; from unilmctl.commands.evaluate import run; "
        "run(hypotheses=sys.argv[1], references=[Path(sys.argv[2])]); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(pair[0]), str(pair[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
