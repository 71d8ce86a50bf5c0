"""How long the program takes before it does anything: `--help` against the start of Python itself and of torch.

The promise is 0.4 s for `unilmctl --help`; the smallest of several runs counts, on a warm disk cache.
"""

import subprocess
import sys
import time

RUNS = 5
COMMANDS = {
    "python": ["-c", "pass"],
    "unilmctl --help": ["-m", "unilmctl", "--help"],
    "unilmctl generate --help": ["-m", "unilmctl", "generate", "--help"],
    "unilmctl recipes": ["-m", "unilmctl", "recipes"],
    "import torch": ["-c", "import torch"],
}


def seconds(arguments: list[str]) -> float:
    """The shortest of several runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Prints a line for each command."""
    for name, arguments in COMMANDS.items():
        print(f"{seconds(arguments):6.2f} s  {name}")


if __name__ == "__main__":
    main()
