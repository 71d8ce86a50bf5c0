"""An engine's process from inside: one request a line on standard input, one answer a line on standard output.

python -m decode_bench.child FOLDER ENGINE            ENGINE: the fields of `work.Engine` as JSON
python -m decode_bench.child FOLDER ENGINE prepare    writes the engine's model into FOLDER and ends
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from decode_bench.work import Engine, Output, Work

BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024


class Decodes(Protocol):
    """What every engine offers."""

    def decode(self, work: Work) -> list[Output]:
        """One output a sentence, in order."""


def load(engine: Engine, folder: Path) -> Any:
    """The engine itself; only its own library is loaded."""
    if engine.program == "CTranslate2":
        from decode_bench.ctranslate import CTranslate2

        return CTranslate2(engine, folder)
    if engine.program == "Hugging Face":
        from decode_bench.hugging_face import HuggingFace

        return HuggingFace(engine, folder)
    if engine.program == "s2s-ft's way":
        from decode_bench.twin import SlowTwin

        return SlowTwin(engine, folder)
    from decode_bench.ours import Ours

    return Ours(engine, folder)


def answer(loaded: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What one request asks for."""
    work = Work(**request["work"] | {"lengths": tuple(request["work"]["lengths"])})
    if request["asked"] == "decode":
        return timed(loaded, work)
    return {"found": getattr(loaded, request["asked"])(work)}


def timed(loaded: Decodes, work: Work) -> dict[str, Any]:
    """Outputs, wall and CPU seconds, and the most memory that this process ever held [GB]."""
    wall, cpu = time.perf_counter(), time.process_time()
    outputs = loaded.decode(work)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT / 1e9,
        "ids": [output.ids for output in outputs],
        "scores": [output.score for output in outputs],
    }


def main() -> None:
    """Answers until standard input ends."""
    folder, engine = Path(sys.argv[1]), Engine(**json.loads(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    if sys.argv[3:] == ["prepare"]:
        prepare(engine, folder)
        return
    loaded = load(engine, folder)
    for line in sys.stdin:
        print(json.dumps(answer(loaded, json.loads(line))), file=answers, flush=True)


def prepare(engine: Engine, folder: Path) -> None:
    """Writes the engine's model where it reads one from a folder."""
    if engine.program == "CTranslate2":
        from decode_bench.ctranslate import prepare as convert

        convert(engine, folder)
    elif engine.program == "unilmctl":
        from decode_bench.ours import prepare as save

        save(folder)


if __name__ == "__main__":
    main()
