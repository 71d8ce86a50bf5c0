"""The E2E settings on its development set, each text's first reference taken as the output."""

import json
from pathlib import Path

import pytest

from unilmctl import metrics
from unilmctl.metrics import Options

DEV = Path(__file__).resolve().parents[3] / "shared" / "data" / "e2e" / "dev.jsonl"
pytestmark = pytest.mark.skipif(not DEV.exists(), reason="the E2E development set is not beside the repository")


@pytest.fixture(scope="module")
def corpus():
    rows = [json.loads(line)["refs"] for line in DEV.read_text(encoding="utf-8").split("\n") if line]
    several = [texts for texts in rows if len(texts) > 1]
    return [texts[0] for texts in several], [texts[1:] for texts in several]


def test_bleu_is_that_of_sacrebleu_with_none_for_what_is_missing(corpus):
    from sacrebleu.metrics import BLEU

    hypotheses, references = corpus
    most = max(map(len, references))
    streams = [[texts[k] if k < len(texts) else None for texts in references] for k in range(most)]
    theirs = BLEU(lowercase=True, tokenize="13a", force=True).corpus_score(hypotheses, streams).score
    preset = metrics.task("e2e")
    ours = metrics.score("bleu", hypotheses, references, preset.options(Options()))
    assert ours.value == pytest.approx(theirs, abs=1e-9)
    assert ours.signature.startswith("nrefs:var|case:lc|eff:no|tok:13a|smooth:exp")
    assert metrics.score("bleu", hypotheses, references).value < ours.value


def test_a_copied_reference_is_perfect(corpus):
    hypotheses, references = corpus
    with_itself = [[*texts, hypothesis] for hypothesis, texts in zip(hypotheses, references, strict=True)]
    names = ["bleu", "coco_rougeL", "exact_match"]
    assert metrics.evaluate(hypotheses, with_itself, names=names) == pytest.approx(dict.fromkeys(names, 100))


def test_figures(corpus):
    """Written down when BLEU, NIST and COCO ROUGE-L agreed with the official scorer on eleven challenge outputs."""
    preset = metrics.task("e2e")
    figures = metrics.evaluate(*corpus, names=preset.metrics, options=preset.options(Options()))
    assert figures == pytest.approx(FIGURES, abs=1e-4)


FIGURES = {"bleu": 59.95346, "nist": 8.57891, "coco_rougeL": 65.30347}
