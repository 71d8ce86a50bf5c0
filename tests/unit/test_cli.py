"""How the program ends: what a person is told, and the exit code."""

import errno
import os

import pytest
import typer

from unilmctl import cli, errors


class OutOfMemoryError(RuntimeError):
    """Has the name that torch gives to its own."""


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UserError, 1),
        (errors.UsageError, 2),
        (errors.RecipeError, 3),
        (errors.DataError, 4),
        (errors.ModelError, 5),
        (errors.NumericError, 6),
        (errors.OutOfMemory, 7),
        (errors.WriteError, 74),
        (errors.Stopped, 75),
    ],
)
def test_every_kind_of_mistake_has_its_exit_code(
    kind: type[errors.UserError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("what is wrong", "what to do")

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run([]) == code
    assert capsys.readouterr() == ("", "error: what is wrong\nhint: what to do\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x"), 74, "runs/x: No space left on device"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), 74, "input or output: Input/output error"),
        (MemoryError(), 7, "not enough memory"),
        (OutOfMemoryError("CUDA out of memory"), 7, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7, "not enough memory"),
    ],
)
def test_what_the_machine_refuses_is_said_plainly(error: Exception, code: int, message: str) -> None:
    mistake = cli.as_mistake(error)
    assert mistake is not None
    assert (mistake.exit_code, mistake.message) == (code, message)


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("x"), RuntimeError("a bug"), OSError("no number")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert cli.as_mistake(error) is None
    with pytest.raises(type(error)):
        cli.run([])


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run([]) == 130


def test_debugging_shows_the_traceback_of_mistakes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNILMCTL_DEBUG", "1")
    with pytest.raises(typer.TyperException):
        cli.run(["generate", "--no-such-option"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["finetune"], "Missing argument 'RECIPE'"),
        (["generate", "--nbset", "3"], "No such option: --nbset"),
        (["generate", "--beam", "many"], "Invalid value for '--beam'"),
        (["generate", "--beam", "0"], "Invalid value for '--beam'"),
        (["generate", "--search", "magic"], "Invalid value for '--search'"),
    ],
)
def test_usage_errors_are_one_plain_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {message}")
    assert lines[1].startswith("hint: unilmctl")


def test_only_what_was_given_is_handed_on() -> None:
    assert cli.signatures._given(beam=None, forbid=[], seed=0, top_p=0.5) == {"seed": 0, "top_p": 0.5}
