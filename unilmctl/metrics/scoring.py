"""The closed table of metrics, and the ways to ask for them."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from unilmctl.errors import UsageError
from unilmctl.metrics.labels import accuracy, confusion, correlation, tags
from unilmctl.metrics.matching import coqa_f1, distinct, exact_match, squad
from unilmctl.metrics.rouge import coco_rouge_l, rouge, rouge155
from unilmctl.metrics.significance import RESAMPLES, SEED, bootstrap, interval
from unilmctl.metrics.translation import nist, sentence_bleu, translation
from unilmctl.metrics.values import Measured, Options, References, Score, check

One = Callable[[str, list[str], References, Options], Measured]
Family = Callable[[list[str], list[str], References, Options], dict[str, Measured]]

ONES: dict[str, One] = {
    **dict.fromkeys(("bleu", "bleu1", "bleu2", "bleu3", "chrf", "chrf++", "ter"), translation),
    "sentence_bleu": sentence_bleu,
    "nist": nist,
    "coco_rougeL": coco_rouge_l,
    "exact_match": exact_match,
    "coqa_f1": coqa_f1,
    **dict.fromkeys(("squad_em", "squad_f1"), squad),
    "accuracy": accuracy,
    **dict.fromkeys(("f1", "macro_f1", "matthews"), confusion),
    **dict.fromkeys(("pearson", "spearman"), correlation),
    **dict.fromkeys(("tag_f1", "tag_precision", "tag_recall", "tag_accuracy"), tags),
    **dict.fromkeys(("distinct1", "distinct2", "distinct3", "distinct4"), distinct),
}
# These share their counting: the texts are cut once for all of a family's names.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("rouge1", "rouge2", "rouge3", "rouge4", "rougeL", "rougeLsum"), rouge),
    **dict.fromkeys(("rouge155_1", "rouge155_2", "rouge155_L"), rouge155),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "rouge": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "rouge155": ("rouge155_1", "rouge155_2", "rouge155_L"),
    "distinct": ("distinct1", "distinct2"),
}
NAMES = (*ONES, *FAMILIES)
LOWER_IS_BETTER = frozenset({"ter"})


def expand(names: Sequence[str]) -> list[str]:
    """Groups such as `rouge` spelt out, each name once, in order; raises UsageError for an unknown name."""
    spelt: dict[str, None] = {}
    for name in names:
        if name not in GROUPS and name not in NAMES:
            known = {other.lower(): other for other in (*GROUPS, *NAMES)}
            close = get_close_matches(name.lower(), known, n=1)
            guess = f"; did you mean '{known[close[0]]}'?" if close else ""
            raise UsageError(f"unknown metric '{name}'{guess}", f"use some of {', '.join([*NAMES, *GROUPS])}")
        spelt.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return list(spelt)


def measure(
    names: Sequence[str], hypotheses: list[str], references: References, options: Options
) -> dict[str, Measured]:
    """Count every sentence once for each metric; `references[i]` are those of `hypotheses[i]`, None a missing one.

    Raises UsageError for an unknown metric, tokenizer or language, DataError for texts that cannot be scored.
    """
    check(hypotheses, references)
    wanted = expand(names)
    counted: dict[str, Measured] = {}
    for name in wanted:
        if name in ONES:
            counted[name] = ONES[name](name, hypotheses, references, options)
        elif name not in counted:
            family = FAMILIES[name]
            members = [other for other in wanted if FAMILIES.get(other) is family]
            counted.update(family(members, hypotheses, references, options))
    return {name: counted[name] for name in wanted}


def report(name: str, measured: Measured, *, resamples: int = 0, seed: int = SEED) -> Score:
    """One row of a table; with `resamples`, and where sentences can be resampled, also its 95 % interval."""
    drawn = resamples > 0 and measured.resampled
    bounds = interval(bootstrap(measured, resamples=resamples, seed=seed), seed=seed) if drawn else None
    return Score(name, measured.value, measured.signature, bounds, measured.details(measured.table.sum(axis=0)))


def score(
    name: str,
    hypotheses: list[str],
    references: References,
    options: Options | None = None,
    *,
    confidence: bool = False,
    seed: int = SEED,
) -> Score:
    """One metric (no group) of one system; raises as `measure` does."""
    if name in GROUPS:
        raise UsageError(f"'{name}' is several metrics", f"use one of {', '.join(GROUPS[name])}")
    measured = measure([name], hypotheses, references, options or Options())[name]
    return report(name, measured, resamples=RESAMPLES if confidence else 0, seed=seed)


def evaluate(
    hypotheses: list[str], references: References, *, names: Sequence[str], options: Options | None = None
) -> dict[str, float]:
    """The bare figures, for validation by generation: name -> figure (in per cent; NIST in bits)."""
    measured = measure(names, hypotheses, references, options or Options())
    return {name: entry.value for name, entry in measured.items()}
