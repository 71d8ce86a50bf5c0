"""What a user can do wrong, and how the program then ends.

Every mistake a user can make raises a `UserError` with a message (what is wrong and where), a hint (what to do) and the
exit code of its kind. The command line renders it in one place; anything that is not a `UserError` is a bug and keeps
its traceback.
"""


class UserError(Exception):
    """A mistake the user can mend: `message` says what and where, `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(UserError):
    """The command line itself is wrong."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe is wrong; `message` may hold several lines, one per mistake."""

    exit_code = 3


class DataError(UserError):
    """Input text or a token store is wrong."""

    exit_code = 4


class ModelError(UserError):
    """A checkpoint or model folder is wrong, or refused as unsafe."""

    exit_code = 5


class NumericError(UserError):
    """Training met numbers that are not numbers."""

    exit_code = 6


class OutOfMemory(UserError):
    """The machine has less memory than the work needs."""

    exit_code = 7


class WriteError(UserError):
    """The operating system refused a write (disk full, read-only, I/O error)."""

    exit_code = 74


class Stopped(UserError):
    """A signal stopped the work after its state was saved; running the same command again goes on."""

    exit_code = 75


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, whoever says it: Python, a GPU, or torch on a CPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate" in str(error))
