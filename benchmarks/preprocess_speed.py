"""How fast text becomes token ids, against the bare library on the same text in the same run.

    python benchmarks/preprocess_speed.py [--data FILE.jsonl] [--copies N] [--kind wordpiece|bpe|sentencepiece]

Prints pairs a second, in wall time and in CPU time, and the ratio to the bare library (its fastest call, all cores) for
our tokenizer alone, and for the whole way from a JSONL file to a token store with one process and with all. Without
--data it makes its own text: words drawn by Zipf's law.
"""

import argparse
import json
import os
import pickle
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece
import tokenizers

from unilmctl.data.encoding import FIELDS, Coder, encode_chunks
from unilmctl.data.reading import Record, chunks_of, read
from unilmctl.tokens import Tokenizer, train

AT_ONCE = 4000


class Limits(NamedTuple):
    """The recipe's defaults."""

    max_source: int = 464
    max_target: int = 48
    truncate: str = "tail"


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON lines with src and tgt")
    parser.add_argument("--copies", type=int, default=1, help="how often the data is repeated")
    parser.add_argument("--kind", default="wordpiece", choices=["wordpiece", "bpe", "sentencepiece"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.jsonl"
        text = arguments.data.read_bytes() if arguments.data else made_up(50_000)
        file.write_bytes(text * arguments.copies)
        measure(file, Path(folder), arguments.kind)


def measure(file: Path, folder: Path, kind: str) -> None:
    """Prints a line for every way."""
    records = [item for item in read([file]) if isinstance(item, Record)]
    texts = [str(text) for record in records for text in (record.source, record.target)]
    tokenizer = train(texts[:50_000], kind=kind, size=8000)
    cores = len(os.sched_getaffinity(0))
    megabytes, load = file.stat().st_size / 1e6, os.getloadavg()[0]
    print(f"{len(records):,} pairs, {megabytes:.1f} MB, {kind}, {cores} cores, load {load:.1f}")
    bare = bare_encoder(tokenizer, kind)
    import torch  # noqa: F401 - reading it is no part of writing a store

    ways: dict[str, Callable[[], object]] = {
        "bare library": lambda: bare(texts),
        "our tokenizer": lambda: encode(texts, tokenizer),
        "file to store, 1 process": lambda: write_store(file, folder / "one", tokenizer, 1),
        f"file to store, {cores} processes": lambda: write_store(file, folder / "all", tokenizer, cores),
    }
    first = None
    for name, way in ways.items():
        wall, cpu = clock(way)
        first = first or (wall, cpu)
        rates = f"{len(records) / wall:10,.0f}/s wall {len(records) / cpu:10,.0f}/s cpu"
        print(f"{name:28} {rates}   ratio {first[0] / wall:5.2f} wall {first[1] / cpu:5.2f} cpu")


def bare_encoder(tokenizer: Tokenizer, kind: str) -> Callable[[list[str]], object]:
    """The library's own way to encode many texts, with our vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        if kind == "sentencepiece":
            processor = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spiece.model")
            return lambda texts: processor.encode(texts, num_threads=os.cpu_count())
        if kind == "bpe":
            library = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        else:
            library = tokenizers.implementations.BertWordPieceTokenizer(
                f"{folder}/vocab.txt", lowercase=False
            )._tokenizer
        return lambda texts: [one.ids for one in library.encode_batch_fast(texts, add_special_tokens=False)]


def encode(texts: list[str], tokenizer: Tokenizer) -> None:
    """All texts, a few thousand at a time, with no word remembered at first."""
    fresh = pickle.loads(pickle.dumps(tokenizer))
    for start in range(0, len(texts), AT_ONCE):
        fresh.encode_flat(texts[start : start + AT_ONCE])


def write_store(file: Path, folder: Path, tokenizer: Tokenizer, processes: int) -> None:
    """What `unilmctl preprocess` does with one file."""
    from unilmctl.data.store import StoreWriter  # not above: it reaches torch, and new processes read this file

    coder = Coder.of(pickle.loads(pickle.dumps(tokenizer)), Limits())  # a copy remembers no words
    with StoreWriter(folder, FIELDS, {}) as writer:
        for chunk in encode_chunks(chunks_of([file]), coder, processes=processes):
            writer.add_many(**chunk.arrays)


def clock(way: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, those of other processes included."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    way()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def made_up(pairs: int) -> bytes:
    """JSON lines of words drawn by Zipf's law from 50,000 invented ones."""
    random = np.random.default_rng(1)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(random.choice(syllables, size=size)) for size in random.integers(1, 5, 50_000)]
    lines = []
    for source, target in zip(random.poisson(25, pairs) + 1, random.poisson(15, pairs) + 1, strict=True):
        drawn = [words[min(rank, len(words)) - 1] for rank in random.zipf(1.2, source + target)]
        lines.append(json.dumps({"src": " ".join(drawn[:source]), "tgt": " ".join(drawn[source:])}))
    return ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    main()
