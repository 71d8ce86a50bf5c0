"""unilmctl inspect store: how many examples token stores hold, and how long they are.

The folder is one store, or any folder with stores in it, such as a run folder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unilmctl import console
from unilmctl.data.lengths import histogram
from unilmctl.data.store import Store
from unilmctl.errors import DataError

SHARES = (0.5, 0.9, 0.99)
WIDEST = 40


def run(*, folder: Path, as_json: bool = False) -> None:
    """Shows counts, lengths and a histogram for every field of every store; DataError when there is none."""
    found = {str(path): _described(Store.open(path)) for path in _stores(folder)}
    if as_json:
        console.emit(json.dumps(found, ensure_ascii=False))
        return
    headers = ["store", "field", "examples", "tokens", "shortest", "median", "90 %", "99 %", "longest"]
    console.table(
        headers,
        [
            [path, field, *(entry[key] for key in ("examples", "tokens", "shortest", "50%", "90%", "99%", "longest"))]
            for path, fields in found.items()
            for field, entry in fields.items()
        ],
    )
    for path, fields in found.items():
        for field, entry in fields.items():
            console.emit(f"\n{path}: length of {field}")
            _draw(entry["histogram"])


def _stores(folder: Path) -> list[Path]:
    """Folders with a store: this one, or those at most two floors below it."""
    if (folder / "store.json").is_file():
        return [folder]
    found = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/store.json"))
    if not found:
        raise DataError(f"{folder}: no token store", "unilmctl preprocess RECIPE writes them")
    return found


def _described(store: Store) -> dict[str, dict[str, Any]]:
    return {field: _lengths(store.lengths(field)) for field in store.fields}


def _lengths(lengths: NDArray[np.int32]) -> dict[str, Any]:
    entry: dict[str, Any] = {"examples": len(lengths), "tokens": int(lengths.sum())}
    if len(lengths):
        entry["shortest"], entry["longest"] = int(lengths.min()), int(lengths.max())
        places = np.quantile(lengths, SHARES, method="inverted_cdf")
    else:
        entry["shortest"] = entry["longest"] = 0
        places = np.zeros(len(SHARES))
    entry.update({f"{share:.0%}": int(place) for share, place in zip(SHARES, places, strict=True)})
    return {**entry, "histogram": histogram(lengths)}


def _draw(bars: list[tuple[int, int, int]]) -> None:
    most = max((count for _, _, count in bars), default=0)
    names = [f"{first}-{last}" if last > first else f"{first}" for first, last, _ in bars]
    width = max(map(len, names), default=0)
    for name, (_, _, count) in zip(names, bars, strict=True):
        console.emit(f"{name:>{width}}  {'█' * round(WIDEST * count / most):<{WIDEST}}  {count:,}".rstrip())
