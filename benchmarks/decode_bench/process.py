"""An engine's process, seen from the benchmark."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import beside

from decode_bench.work import Engine, Work


class Process(beside.Process):
    """One engine, its models made ready in the folder, waiting for work."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        program = ["-m", "decode_bench.child", str(folder), json.dumps(asdict(engine))]
        super().__init__(engine.label, program, threads=engine.threads, prepare=["prepare"])

    def ask(self, asked: str, work: Work) -> dict[str, Any]:
        """The answer to one request; EngineError when there is none."""
        found: dict[str, Any] = self.answer({"asked": asked, "work": asdict(work)})
        return found
