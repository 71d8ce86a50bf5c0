"""Draws the pictures of docs/masks.md: `python docs/masks.py` writes them, `--check` says which are out of date."""

import sys
from pathlib import Path
from typing import NamedTuple

from unilmctl.commands.inspect.mask import run
from unilmctl.visibility import draw_svg

HERE = Path(__file__).parent / "masks"
TEXT = "the mask decides what a transformer is good at"


class Shown(NamedTuple):
    """What is drawn: one text, or a source and a target; with a rate and a seed that show something."""

    source: str = TEXT
    target: str | None = None
    rate: float | None = None
    seed: int = 1


PAIR = Shown("who writes the summary ?", "the same encoder does", rate=0.5)
PICTURES = {
    "pseudo": PAIR,
    "masked": PAIR,
    "causal": PAIR._replace(rate=None),
    "bidirectional": Shown(rate=0.3),
    "left-to-right": Shown(rate=0.3),
    "right-to-left": Shown(rate=0.3),
    "seq2seq": PAIR._replace(rate=0.3),
    "partial": Shown(rate=0.5, seed=9),
    "permuted": Shown(rate=0.4, seed=7),
    "permuted-compensated": Shown(rate=0.3, seed=4),
    "infilling": Shown(rate=0.5, seed=7),
    "infilling-in-place": Shown(seed=3),
    "block-diffusion": Shown(seed=3),
    "span-boundary": Shown(rate=0.4, seed=1),
    "replaced": Shown(rate=0.3),
    "next-token": Shown(),
    "similar": PAIR._replace(rate=None),
}


def drawn() -> dict[Path, str]:
    """Every picture as it is now, by the file it belongs in."""
    return {
        HERE / f"{objective}.svg": draw_svg(run(objective=objective, **shown._asdict()).picture)
        for objective, shown in PICTURES.items()
    }


def main(arguments: list[str]) -> int:
    """Writes every picture, or with `--check` only compares; 1 when one is out of date."""
    stale = {path: text for path, text in drawn().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if "--check" in arguments:
            sys.stderr.write(f"{path} is out of date: run python docs/masks.py\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
