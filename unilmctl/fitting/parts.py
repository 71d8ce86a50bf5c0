"""What a log says of the parts of a loss, where there are several: heads, and the entries of a mix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unilmctl.training import Key, Tally

NAMES = ("loss_sum", "labels", "correct")


def flattened(tallies: Mapping[Key, Tally]) -> dict[str, float]:
    """Tallies as plain numbers that can be added up and kept; what is not a number is left out."""
    return {
        f"{group}/{head}/{name}": float(value)
        for (group, head), tally in tallies.items()
        for name, value in zip(NAMES, tally, strict=True)
        if not math.isnan(value)
    }


def tallies_of(sums: Mapping[str, float]) -> dict[Key, Tally]:
    """The tallies in sums of what `flattened` gave; other sums are passed over."""
    places = dict.fromkeys(name.rpartition("/")[0] for name in sums if "/" in name)
    found: dict[Key, Tally] = {}
    for place in places:
        group, _, head = place.partition("/")
        loss, labels, correct = (sums.get(f"{place}/{name}", math.nan) for name in NAMES)
        found[int(group), head] = Tally(loss, int(labels), correct)
    return found


def parts_of(tallies: Mapping[Key, Tally], names: Sequence[str] = ()) -> dict[str, Any]:
    """The key `parts` of a log entry: loss, labels and accuracy of each part. Nothing where there is only one.

    A part is called after its head; where groups have `names`, NAME/HEAD.
    """
    if len(tallies) < 2:
        return {}
    parts = {}
    for (group, head), tally in sorted(tallies.items()):
        figures: dict[str, Any] = {"loss": tally.loss, "labels": tally.labels}
        if tally.accuracy is not None:
            figures["accuracy"] = tally.accuracy
        parts[f"{names[group]}/{head}" if names else head] = figures
    return {"parts": parts}
