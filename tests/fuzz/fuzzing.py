"""Fuzzes the readers, guided by which lines of them an input reaches: `fuzzing.py SECONDS [TARGET...]`.

Each target has a process of its own. Inputs that reach something new are kept in `.fuzz/TARGET`, and the next run
begins with them. One that ends in anything but a value or a UserError is written to `.fuzz/TARGET-...`, and its
traceback to `.fuzz/TARGET.log`, once for each place in the code that raises; the exit code is then 1.
"""

import hashlib
import re
import subprocess
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".fuzz"
INSTRUMENTED = ["unilmctl", "yaml"]
"""Modules whose lines guide the fuzzer; what is not written in Python cannot."""
LIMITS = ("-timeout=5", "-rss_limit_mb=4096", "-max_len=16384", "-print_final_stats=1")

sys.path += [str(ROOT), *(str(ROOT / "tests" / name) for name in ("reliability", "unit", "e2e", "fuzz", ""))]


def main(seconds: str, *names: str) -> int:
    """Runs the targets one after another, says how many inputs each has tried, and gives the exit code."""
    from targets import TARGETS

    findings = []
    for name in names or TARGETS:
        (KEPT / name).mkdir(parents=True, exist_ok=True)
        for old in KEPT.glob(f"{name}-*"):
            old.unlink()
        with (KEPT / f"{name}.log").open("w") as log:
            code = subprocess.run(
                [sys.executable, __file__, "--inside", name, seconds], stderr=log, check=False
            ).returncode
        said = (KEPT / f"{name}.log").read_text(errors="replace")
        tried = re.findall(r"^(?:#|stat::number_of_executed_units: )(\d+)", said, re.M)
        found = sorted(str(path.relative_to(ROOT)) for path in KEPT.glob(f"{name}-*"))
        print(
            f"{name}: {tried[-1] if tried else 0} inputs, exit code {code}, findings: {', '.join(found) or 'none'}",
            flush=True,
        )
        findings += found or [name] * (code != 0)
    return int(bool(findings))


def inside(name: str, seconds: str) -> None:
    """Fuzzes one target until the time is up, which ends the process."""
    import atheris
    from torch._weights_only_unpickler import Unpickler

    Unpickler.load = atheris.instrument_func(Unpickler.load)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from targets import TARGETS, bounded, refusal

    target, places = TARGETS[name], set()
    for number, seed in enumerate(target.seeds()):
        (KEPT / name / f"seed-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            refusal(target, data, folder)
        except BaseException as error:  # a panic of a library is no Exception
            frames = [str(frame) for frame in traceback.extract_tb(error.__traceback__) if "unilmctl" in frame.filename]
            key = hashlib.sha256("\n".join([type(error).__name__, *frames]).encode()).hexdigest()[:12]
            if key not in places:
                places.add(key)
                (KEPT / f"{name}-{key}").write_bytes(data)
                traceback.print_exc()

    with TemporaryDirectory() as inner, bounded():
        folder = Path(inner)
        arguments = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={KEPT}/{name}-", str(KEPT / name)]
        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(*sys.argv[2:])
    sys.exit(main(*sys.argv[1:]))
