"""The run folder: pointers, log, intact and broken checkpoints, other recipes, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import feed_of, optimizer_of, options_of, tiny_encoder

from unilmctl.errors import DataError, ModelError, RecipeError, UserError, WriteError
from unilmctl.runs import Best, RunFolder, StopSignals, alone_in, check_same_run, latest_run, model_folder
from unilmctl.runs.checkpoint import State, load_checkpoint, save_checkpoint
from unilmctl.tokens import train as train_tokenizer
from unilmctl.training import Position, optimizer_tensors, train
from unilmctl.weights import ModelCard, load_model


def fill(text: str = "x") -> object:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / "config.json").write_text("{}")

    return write


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.start("run: runs/one\n")
    return folder


def publish(run: RunFolder, *steps: int) -> None:
    for step in steps:
        run.publish(f"step-{step}", fill(str(step)))  # type: ignore[arg-type]


def test_a_started_run_is_the_last_one(run: RunFolder) -> None:
    assert run.recipe.read_text() == "run: runs/one\n"
    assert latest_run(run.folder.parent) == run.folder


def test_no_last_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no last run"):
        latest_run(tmp_path)


def test_the_newest_checkpoint_is_the_newest_intact_one(run: RunFolder) -> None:
    assert run.newest() == (None, [])
    publish(run, 5, 10, 100)
    assert run.steps() == [5, 10, 100]
    assert run.newest() == (run.checkpoint(100), [])
    (run.checkpoint(100) / "model.safetensors").write_text("10!")
    (run.checkpoint(10) / "MANIFEST.json").unlink()
    found, problems = run.newest()
    assert found == run.checkpoint(5)
    assert len(problems) == 2
    assert "its contents have changed" in problems[0]
    assert "MANIFEST.json: missing" in problems[1]


@given(st.binary(min_size=1, max_size=40), st.integers(0, 39), st.integers(1, 255))
@settings(deadline=None, max_examples=25)
def test_every_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, at: int, by: int
) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.publish("step-1", lambda folder: (folder / "model.safetensors").write_bytes(content) and None)
    path = run.checkpoint(1) / "model.safetensors"
    at %= len(content)
    path.write_bytes(content[:at] + bytes([content[at] ^ by]) + content[at + 1 :])
    assert run.newest()[0] is None


def test_a_failure_while_saving_leaves_the_old_checkpoint_and_nothing_else(run: RunFolder) -> None:
    publish(run, 5)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    for name in ("step-5", "step-6"):
        with pytest.raises(KeyboardInterrupt):
            run.publish(name, fail)
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step-5"]
    assert run.newest() == (run.checkpoint(5), [])


def test_a_checkpoint_may_be_written_again(run: RunFolder) -> None:
    publish(run, 5)
    run.publish("step-5", fill("other"))  # type: ignore[arg-type]
    assert (run.checkpoint(5) / "model.safetensors").read_text() == "other"
    assert run.newest() == (run.checkpoint(5), [])


def test_a_checkpoint_that_was_about_to_be_replaced_is_put_back(run: RunFolder) -> None:
    publish(run, 5, 6)
    aside = run.folder / "checkpoints" / ".step-6.old-here-999"
    run.checkpoint(6).rename(aside)
    run.mend()
    assert run.newest() == (run.checkpoint(6), [])
    publish(run, 7)
    run.checkpoint(7).rename(aside)
    run.mend()  # step-6 is there: what lies beside it has been replaced
    assert run.steps() == [5, 6]


def test_what_a_killed_process_left_half_written_is_no_checkpoint_and_is_removed(run: RunFolder) -> None:
    publish(run, 5, 6, 7)
    half = run.folder / "checkpoints" / ".step-8.tmp-999"
    half.mkdir()
    assert run.newest() == (run.checkpoint(7), [])
    run.prune({"step-7", "step-5"})
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["step-5", "step-7"]


def test_pointers_name_checkpoints_that_are_there(run: RunFolder) -> None:
    assert run.pointed("best") is None
    run.point("best", "step-5")
    assert run.pointed("best") is None
    publish(run, 5)
    assert run.pointed("best") == run.checkpoint(5)
    (run.folder / "best").write_text("")
    assert run.pointed("best") is None


def test_a_run_folder_means_its_best_else_its_latest_model(run: RunFolder) -> None:
    publish(run, 5, 6)
    run.point("latest", "step-6")
    assert model_folder(run.folder) == run.checkpoint(6)
    run.point("best", "step-5")
    assert model_folder(run.folder) == run.checkpoint(5)
    assert model_folder(run.checkpoint(6)) == run.checkpoint(6)
    with pytest.raises(ModelError, match="neither a model folder nor a run with a checkpoint"):
        model_folder(run.folder.parent)


def test_the_log_is_cut_back_to_a_step(run: RunFolder) -> None:
    for step in (2, 4, 6):
        run.log({"event": "steps", "step": step})
        run.log({"event": "evaluation", "step": step, "bleu": 1.5, "text": "é"})
    run.truncate_log(step=4, evaluated=False)
    assert [(entry["event"], entry["step"]) for entry in run.read_log()] == [
        ("steps", 2),
        ("evaluation", 2),
        ("steps", 4),
    ]
    run.log({"event": "evaluation", "step": 4})
    run.truncate_log(step=4, evaluated=True)
    assert len(run.read_log()) == 4


def test_a_last_line_that_was_cut_short_is_left_out(run: RunFolder) -> None:
    run.log({"event": "steps", "step": 2})
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"event": "ste')
    assert run.read_log() == [{"event": "steps", "step": 2}]
    run.truncate_log(step=5, evaluated=True)
    run.log({"event": "steps", "step": 4})
    assert [json.loads(line)["step"] for line in (run.folder / "log.jsonl").read_text().splitlines()] == [2, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"event": "steps", "step"}', r"log\.jsonl:2: not JSON \(Expecting ':' delimiter"),
        ("[" * 100_000, r"log\.jsonl:2: not JSON"),
        ('{"event": "steps"}', r"log\.jsonl:2: has no event and no step"),
        ('["event", "step"]', r"log\.jsonl:2: has no event and no step"),
    ],
)
def test_a_line_of_the_log_that_is_none_is_named(line: str, message: str, run: RunFolder) -> None:
    run.folder.mkdir(exist_ok=True)
    (run.folder / "log.jsonl").write_text(f'{{"event": "steps", "step": 1}}\n{line}\n')
    with pytest.raises(DataError, match=message):
        run.read_log()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        "{}",
        '{"batches": []}',
        '{"batches": [{"epoch": 0, "examples": ["a"]}]}',
        '{"batches": 3}',
    ],
)
def test_a_skipped_step_that_cannot_be_read_is_named(content: str, run: RunFolder) -> None:
    run.note_skipped(3, {"batches": [{"epoch": 0, "examples": [1, 2]}]})
    assert run.read_skipped(3)["batches"] == [{"epoch": 0, "examples": [1, 2]}]
    (run.folder / "skipped" / "step-3.json").write_text(content)
    with pytest.raises(DataError, match=r"step-3\.json: does not say which examples were skipped"):
        run.read_skipped(3)


def test_samples_may_hold_any_character(run: RunFolder) -> None:
    entry = {"event": "evaluation", "step": 1, "samples": ["a\u2028b\x85c\x0cd"]}
    run.start("")
    run.log(entry)
    assert run.read_log() == [entry]


@pytest.mark.parametrize("name", [b"\xff\n", b"", b"../x", b"..", b"a\0b", b"a" * 5000])
def test_a_pointer_to_what_is_no_checkpoint_is_none(name: bytes, run: RunFolder) -> None:
    run.start("")
    (run.folder / "checkpoints").mkdir()
    (run.folder / "best").write_bytes(name)
    assert run.pointed("best") is None


def test_clearing_a_run_leaves_the_stores(run: RunFolder) -> None:
    publish(run, 5)
    run.log({"event": "steps", "step": 1})
    run.point("best", "step-5")
    (run.folder / "store").mkdir()
    run.clear()
    assert [path.name for path in run.folder.iterdir()] == ["store"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(run: RunFolder) -> None:
    run.folder.chmod(0o500)
    with pytest.raises(WriteError, match="cannot write"):
        publish(run, 5)


def test_a_file_in_the_way_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(WriteError, match=r"cannot write .*run"):
        RunFolder(tmp_path / "run").start("run: x\n")


def test_a_second_process_in_a_run_folder_is_told_who_has_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from unilmctl.runs import alone_in\nwith alone_in(Path('run')): input()"
    )
    holding = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE)
    signed = tmp_path / "run" / ".lock"
    deadline = time.monotonic() + 60
    while not (signed.exists() and signed.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError) as caught, alone_in(tmp_path / "run"):
        pytest.fail("two processes in one folder")
    who = f"process {holding.pid} on {socket.gethostname()}"
    assert caught.value.message == f"{tmp_path / 'run'}: {who} is training here"
    assert caught.value.hint == "wait until it has ended, or give the recipe another `run` folder"
    assert caught.value.exit_code == 1
    holding.kill()  # a lock ends with its process, however that ends
    holding.wait()
    with alone_in(tmp_path / "run"):
        assert signed.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert signed.read_text() == ""


def test_an_error_in_a_run_folder_frees_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), alone_in(tmp_path):
            raise KeyError


BEFORE = {"seed": 1, "finetune": {"learning_rate": 0.1, "steps": 10}, "data": {"train": {"files": ["a"]}, "test": None}}


def test_another_recipe_is_refused_with_what_changed() -> None:
    now = {
        "seed": 2,
        "finetune": {"learning_rate": 0.2, "steps": 10},
        "data": {"train": {"files": ["b"]}, "test": None},
    }
    with pytest.raises(RecipeError) as caught:
        check_same_run(BEFORE, now, Path("runs/x"))
    assert caught.value.message == (
        "runs/x holds a run of a different recipe: seed was 1, is 2; finetune.learning_rate was 0.1, is 0.2; "
        "data.train.files was ['a'], is ['b']"
    )
    assert caught.value.hint is not None
    assert "--fresh" in caught.value.hint


def test_steps_may_grow_and_decoding_may_change() -> None:
    now = {**BEFORE, "finetune": {"learning_rate": 0.1, "steps": 20}, "generate": {"beam": 3}}
    check_same_run(BEFORE, now, Path("runs/x"))


def test_a_checkpoint_gives_back_weights_moments_and_state(tmp_path: Path) -> None:
    encoder, options = tiny_encoder(), options_of()
    optimizer = optimizer_of(encoder, options)
    list(train(encoder, optimizer, feed_of(), options))
    tokenizer = train_tokenizer(["a b c"], kind="wordpiece", size=24)
    state = State(Position(6, 2, 0, 1), {"loss": 0.1}, Best("step-3", 0.5), evaluated=False, data="abc")
    save_checkpoint(tmp_path, encoder, ModelCard(), tokenizer, optimizer=optimizer, state=state)
    loaded = load_model(tmp_path).encoder
    fresh = optimizer_of(loaded, options)
    assert load_checkpoint(tmp_path, loaded, fresh) == state
    old, new = optimizer_tensors(encoder, optimizer), optimizer_tensors(loaded, fresh)
    assert old.keys() == new.keys()
    assert all(old[name].equal(new[name]) for name in old)
    assert all(tensor.equal(loaded.state_dict()[name]) for name, tensor in encoder.state_dict().items())


def test_moments_that_cannot_be_written_are_a_write_error(tmp_path: Path) -> None:
    encoder, options = tiny_encoder(), options_of(steps=1)
    optimizer = optimizer_of(encoder, options)
    list(train(encoder, optimizer, feed_of(), options))
    (tmp_path / "training.safetensors").mkdir()
    state = State(Position(1, 0, 1, 0), {}, None, evaluated=True, data="")
    tokenizer = train_tokenizer(["a b c"], kind="wordpiece", size=24)
    with pytest.raises(WriteError, match=r"cannot write .*training\.safetensors"):
        save_checkpoint(tmp_path, encoder, ModelCard(), tokenizer, optimizer=optimizer, state=state)


STATE = '{"position": {"step": 1}, "sums": {}, "best": null, "evaluated": true, "data": ""}'
STATES = (
    '{"position": 3}',
    "[]",
    "[" * 100_000,
    STATE.replace("1", "[]"),
    STATE.replace("1", "Infinity"),
    STATE.replace("{}", '{"loss": "x"}'),
    STATE.replace("null", '{"name": "step-1"}'),
)


def test_a_checkpoint_without_a_state_is_refused(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    for broken in STATES:
        (tmp_path / "state.json").write_text(broken)
        with pytest.raises(ModelError, match=r"state\.json: cannot go on from it"):
            load_checkpoint(tmp_path, encoder, optimizer_of(encoder, options_of()))
    (tmp_path / "state.json").write_text(STATE)
    for moments in (None, b"\xff" * 20):
        if moments:
            (tmp_path / "training.safetensors").write_bytes(moments)
        with pytest.raises(ModelError, match=r"training\.safetensors: cannot go on from it"):
            load_checkpoint(tmp_path, encoder, optimizer_of(encoder, options_of()))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_the_first_signal_is_remembered(number: signal.Signals, code: int) -> None:
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # whoever runs the tests may ignore it
    try:
        with StopSignals() as signals:
            assert not signals()
            os.kill(os.getpid(), number)
            assert signals()
            error = signals.stopped("stopped after step 3")
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    assert (error.exit_code, error.message) == (code, "stopped after step 3")
    assert error.hint == "run the same command again to go on"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = textwrap.dedent("""
        import os, signal
        from unilmctl.runs.signals import StopSignals
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            print("one", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            print("two", flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "one\n")
