"""Shards: which records, which parts, and one output in the end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_writer import model_folder

from unilmctl.commands import generate
from unilmctl.data.parsing import Record
from unilmctl.errors import DataError, UsageError
from unilmctl.generation import Digest, Shard, merged, open_part, shard_of
from unilmctl.generation.sharding import WHOLE

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3"}
FILE = Path("out")


def record(text: str) -> Record:
    return Record(text, None, [], None, "x:1")


def test_shards_as_people_say_them() -> None:
    assert shard_of("1/4", "-", None, {}) == Shard(0, 4)
    assert shard_of("4/4", "-", None, {}).name == "4/4"
    assert shard_of(None, "-", None, {}) == WHOLE
    assert shard_of(None, "-", None, {"RANK": "0", "WORLD_SIZE": "1"}) == WHOLE
    assert shard_of(None, "-", None, {"RANK": "0"}) == WHOLE
    assert shard_of(None, "in", FILE, TORCHRUN) == Shard(1, 3)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/4/2", "-1/4", "1/0"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard_of(text, "-", None, {})
    assert caught.value.message == f"--shard cannot be '{text}'"
    assert caught.value.hint == "1/4 is the first of four, 4/4 the last"


@pytest.mark.parametrize(
    ("asked", "source", "output", "message"),
    [
        (None, "in", None, "several processes cannot share standard output"),
        (None, "-", FILE, "several processes cannot share standard input"),
        ("1/2", "in", FILE, "--shard and torchrun exclude each other: torchrun makes the shards itself"),
    ],
)
def test_what_torchrun_cannot_share(asked: str | None, source: str, output: Path | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        shard_of(asked, source, output, TORCHRUN)
    assert caught.value.message == message


def test_a_shard_takes_every_nth_record_and_keeps_the_pauses() -> None:
    a, b, c, d = map(record, "abcd")
    assert list(Shard(1, 3).mine([a, None, b, c, None, None, d])) == [None, b, None, None]
    assert list(Shard(0, 3).mine([a, None, b, c, None, None, d])) == [a, None, None, None, d]


def write_part(output: Path, shard: Shard, records: int, lines: int, facts: str = "same") -> Digest:
    digest = Digest(facts)
    with open_part(output, shard, digest) as write:
        whole = [record(str(number)) for number in range(records)]
        for one in shard.mine(digest.watched(whole)):
            assert isinstance(one, Record)
            write([f"{one.source}.{line}" for line in range(lines)])
    return digest


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.integers(0, 13),
    lines=st.integers(1, 3),
    order=st.integers(1, 5).flatmap(lambda count: st.permutations(range(count))),
)
def test_the_last_shard_to_finish_merges_in_order(tmp_path: Path, records: int, lines: int, order: list[int]) -> None:
    output, count = tmp_path / "out", len(order)
    output.unlink(missing_ok=True)
    for index in order:
        assert not output.exists()
        digest = write_part(output, Shard(index, count), records, lines)
        assert merged(output, count, digest, lines) == (index == order[-1])
    expected = [f"{record}.{line}" for record in range(records) for line in range(lines)]
    assert output.read_text().split("\n")[:-1] == expected
    assert list(tmp_path.iterdir()) == [output]


def test_parts_of_something_else_are_not_taken(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_part(output, Shard(0, 2), 5, 1, facts="other options")
    digest = write_part(output, Shard(1, 2), 5, 1)
    assert not merged(output, 2, digest, 1)
    write_part(output, Shard(0, 2), 6, 1)
    assert not merged(output, 2, digest, 1)
    write_part(output, Shard(0, 2), 5, 1)
    assert merged(output, 2, digest, 1)
    assert not merged(output, 2, digest, 1)  # another shard that finishes at the same time comes too late


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> None:
        with open_part(tmp_path / "out", Shard(0, 2), Digest()) as write:
            write(["a"])
            raise DataError("x:2: broken")

    with pytest.raises(DataError):
        failing()
    assert list(tmp_path.iterdir()) == []


LINES = "".join(json.dumps({"src": text, "id": text}) + "\n" for text in ("a b", "", "c", "d e f", "g", "a a", "b"))
SAMPLING = {"search": "sample", "nbest": 2, "temperature": 2.0}


def run(folder: Path, shard: str | None, name: str = "out", **options: Any) -> None:
    given = {"options": SAMPLING, **options}
    generate.run(source=str(folder / "in"), model=folder / "model", output=folder / name, shard=shard, **given)


@pytest.mark.parametrize("as_json", [False, True])
def test_shards_write_the_very_lines_that_one_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    model_folder(tmp_path / "model")
    (tmp_path / "in").write_text(LINES)
    run(tmp_path, None, "whole", as_json=as_json)
    for shard in ("3/3", "1/3"):
        run(tmp_path, shard, as_json=as_json)
        assert not (tmp_path / "out").exists()
    assert f"{tmp_path / 'out.part-1-of-3'} waits for the other parts" in capsys.readouterr().err
    run(tmp_path, "2/3", as_json=as_json)
    assert f"{tmp_path / 'out'} is whole" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == (tmp_path / "whole").read_text()
    assert len(set((tmp_path / "out").read_text().splitlines())) > 5
    assert {path.name for path in tmp_path.iterdir()} == {"in", "model", "out", "whole"}


def test_a_part_with_other_options_or_another_model_is_made_again(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    (tmp_path / "in").write_text(LINES)
    run(tmp_path, "1/2", options={"beam": 2})
    run(tmp_path, "2/2", options={"beam": 3})
    assert not (tmp_path / "out").exists()
    model_folder(tmp_path / "model", generate={"min_length": 1})
    run(tmp_path, "1/2", options={"beam": 3})
    assert not (tmp_path / "out").exists()
    run(tmp_path, "2/2", options={"beam": 3, "batch_tokens": 50, "workers": 1})
    assert len((tmp_path / "out").read_text().splitlines()) == 7


def test_without_an_output_file_a_shard_writes_its_own_lines(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    model_folder(tmp_path / "model")
    (tmp_path / "in").write_text(LINES)
    generate.run(source=str(tmp_path / "in"), model=tmp_path / "model", shard="2/2", as_json=True)
    assert [json.loads(line)["id"] for line in capsysbinary.readouterr().out.splitlines()] == ["", "d e f", "a a"]
