"""One process of several meets an error while the others wait for it in different ways; each tells how it ends."""

import os
import sys

from unilmctl.errors import DataError, UserError
from unilmctl.training.distributed import Processes, together


def work(processes: Processes, failing: int) -> None:
    if processes.rank == failing:
        raise DataError("a line is wrong")
    if processes.rank == 2:
        processes.from_first(lambda: None)
    processes.wait()


def main(failing: int) -> None:
    try:
        with together(os.environ) as processes:
            work(processes, failing)
    except UserError as error:
        sys.stderr.write(f"rank {os.environ['RANK']}: {error.exit_code} {error.message!r}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
