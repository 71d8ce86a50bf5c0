"""Recipes: the section on pre-training, its mix, and what must hold in it."""

from pathlib import Path

import pytest
from recipe_texts import SCRATCH, mistakes, ok

from unilmctl.recipe import dump_yaml, load

TEXT = SCRATCH


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_weights_are_numbers_or_fractions() -> None:
    mix = "[{objective: bidirectional, weight: 1/3}, {objective: seq2seq, weight: 2}]"
    recipe = ok(f"{TEXT}pretrain: {{mix: {mix}}}\n")
    assert recipe.pretrain is not None
    assert [entry.weight for entry in recipe.pretrain.mix] == [pytest.approx(1 / 3), 2.0]
    assert [entry.label for entry in recipe.pretrain.mix] == ["bidirectional", "seq2seq"]


def test_what_is_written_out_is_of_one_command_alone() -> None:
    recipe = ok(TEXT + "pretrain: {}\n")
    assert {"finetune", "evaluate"} - recipe.resolved().keys() == {"finetune", "evaluate"}
    assert "pretrain" not in ok(TEXT).resolved()
    Path("resolved.yaml").write_text(dump_yaml(recipe))
    assert load("resolved.yaml").resolved() == recipe.resolved()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "pretrain: {mix: [{objective: bidirectional},\n  {objective: bidirektional}]}\n",
            "r.yaml:5:15: pretrain.mix[1].objective: must be one of bidirectional, left-to-right,",
        ),
        (
            "pretrain: {mix: [{objective: bidirectional, wait: 2}]}\n",
            "r.yaml:4:45: pretrain.mix[0].wait: unknown key; did you mean 'weight'?",
        ),
        (
            "pretrain: {mix: [{objective: bidirectional, weight: 1/0}]}\n",
            "r.yaml:4:53: pretrain.mix[0].weight: must be a number; got '1/0'",
        ),
        ("pretrain: {mix: []}\n", "r.yaml:4:17: pretrain.mix: must not be empty"),
        (
            "pretrain: {mix: [{objective: seq2seq}, {objective: seq2seq}]}\n",
            "r.yaml:4:40: pretrain.mix[1].name: a second 'seq2seq'; give each a name of its own",
        ),
        (
            "pretrain: {mix: [{objective: seq2seq, random: 0.6, keep: 0.5}]}\n",
            "r.yaml:4:47: pretrain.mix[0].random: random and keep are shares of one whole, together they are 1.1",
        ),
        (
            "pretrain: {mix: [{objective: partial, pair: adjacent}]}\n",
            "r.yaml:4:45: pretrain.mix[0].pair: 'partial' reads a passage as none",
        ),
        (
            "pretrain: {mix: [{objective: seq2seq, pair: next-sentence}]}\n",
            "r.yaml:4:45: pretrain.mix[0].pair: 'seq2seq' reads a passage as adjacent",
        ),
        (
            "pretrain: {mix: [{objective: seq2seq, window: 9}]}\n",
            "r.yaml:4:47: pretrain.mix[0].window: a window is for next-token and causal",
        ),
        (
            "pretrain: {mix: [{objective: partial, units: given}]}\n",
            "r.yaml:4:46: pretrain.mix[0].units: units of the data need data.train.segmenter: given",
        ),
        (
            "pretrain: {steps: 2000, stages: [{steps: 900, mix: [{objective: partial}]}]}\n",
            "r.yaml:4:19: pretrain.steps: 2000 steps, but the stages have 900",
        ),
        (
            "pretrain: {steps: 2000, stages: [{steps: 2000, mix: [{objective: partial, kepp: 0}]}]}\n",
            "r.yaml:4:75: pretrain.stages[0].mix[0].kepp: unknown key; did you mean 'keep'?",
        ),
        (
            "pretrain: {steps: 2000,\n  mix: [{objective: causal}],\n"
            "  stages: [{steps: 2000, mix: [{objective: causal}]}]}\n",
            "r.yaml:5:8: pretrain.mix: mix and stages exclude each other; each stage has a mix",
        ),
        (
            "pretrain: {mix: [{objective: bidirectional, pair: sentence-order}], head_weights: {next-sentence: 2}}\n",
            "r.yaml:4:99: pretrain.head_weights.next-sentence: no objective of the mix trains this head; "
            "those that are trained: lm, sentence-order",
        ),
        (
            "pretrain: {mix: [{objective: replaced}, {objective: seq2seq}]}\n",
            "r.yaml:4:53: pretrain.mix[1].objective: 'replaced' is learnt by two models at once, which nothing else",
        ),
        (
            "pretrain: {mix: [{objective: replaced}], sharding: full}\n",
            "r.yaml:4:52: pretrain.sharding: a model with a generator cannot be shared out",
        ),
        (
            "pretrain: {generator_size: 0.5}\n",
            "r.yaml:4:28: pretrain.generator_size: a generator is for the objective 'replaced'",
        ),
        (
            "pretrain: {steps: 5}\n",
            "r.yaml:4:19: pretrain.warmup: 1000 steps of warm-up in 5 steps of training",
        ),
        (
            "pretrain: {}\nfinetune: {steps: 500}\n",
            "r.yaml:5:11: finetune: a recipe that pre-trains has no such section; make it two recipes",
        ),
    ],
)
def test_mistakes_in_the_mix_are_told_with_their_place(text: str, said: str) -> None:
    (found,) = mistakes(TEXT + text)
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("data", "rest", "said"),
    [
        (
            "{train: {files: [a], source: b}}",
            "pretrain: {}\n",
            "data.train.source: a key for pairs, but pretrain reads text",
        ),
        (
            "{train: {files: [a], format: tsv}}",
            "pretrain: {}\n",
            "data.train.format: 'tsv' is for pairs, but pretrain reads text",
        ),
        (
            "{train: {files: [a], documents: lines}}",
            "",
            "data.train.documents: a key for text, but there is no section pretrain",
        ),
        (
            "{generated: numbers, train: {files: [a]}}",
            "pretrain: {}\n",
            "data.generated: built-in data is pairs; pretrain reads text",
        ),
    ],
)
def test_text_and_pairs_have_keys_of_their_own(data: str, rest: str, said: str) -> None:
    text = f"data: {data}\nmodel: {{architecture: bert}}\ntokens: {{train: {{kind: bpe}}}}\n{rest}"
    (found,) = mistakes(text)
    assert found.split(": ", 1)[1] == said


def test_word_vectors_have_a_width_of_their_own_in_electra() -> None:
    (found,) = mistakes(TEXT.replace("bert}", "bert, embedding: 64}"))
    assert found == "r.yaml:2:40: model.embedding: BERT's word vectors are as wide as hidden"
    shape = ok(TEXT.replace("bert}", "electra, embedding: 64}")).model.shape
    assert shape is not None
    assert (shape.architecture, shape.embedding, shape.hidden) == ("electra", 64, 768)


def test_a_passage_fits_the_positions() -> None:
    text = "data: {train: {files: [a]}}\nmodel: {architecture: bert, positions: 128}\ntokens: {train: {kind: bpe}}\n"
    (found,) = mistakes(text + "pretrain: {}\n")
    assert found == "r.yaml:2:40: model.positions: 128 positions are too few: tokens.max_length is 512"
    assert ok(text + "pretrain: {}\n", "tokens.max_length=128").tokens.max_length == 128
