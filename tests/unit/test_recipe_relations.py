"""Recipes: what must hold between keys."""

from pathlib import Path

import pytest
from recipe_texts import MINIMAL, SCRATCH, mistakes


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "data: {generated: numbers, train: {files: [a, b]}}\nmodel: {init: m}\n",
            "r.yaml:1:43: data.train.files: built-in data is one JSON-lines file a split",
        ),
        (
            "data: {train: {files: [a]}}\n",
            "r.yaml:1:1: model: needs init (a model folder) or architecture (from scratch)",
        ),
        (
            "data: {train: {files: [a]}}\nmodel: {init: m,\n  architecture: bert}\n",
            "r.yaml:3:17: model.architecture: init and architecture exclude each other; set one of them to null",
        ),
        (
            MINIMAL[:-2] + ", layers: 3}\n",
            "r.yaml:2:26: model.layers: a size of a model from scratch, but model.init brings its own",
        ),
        (
            "data: {train: {files: [a], target_files: [b, c]}}\nmodel: {init: m}\n",
            "r.yaml:1:42: data.train.target_files: 2 target files for 1 files; parallel text needs as many",
        ),
        (
            "data: {train: {files: [a], target_files: [b], format: csv}}\nmodel: {init: m}\n",
            "r.yaml:1:42: data.train.target_files: parallel files are plain text, but format is 'csv'",
        ),
        (
            SCRATCH + "finetune: {steps: 5, warmup: 6}\n",
            "r.yaml:4:30: finetune.warmup: 6 steps of warm-up in 5 steps of training",
        ),
        (
            SCRATCH + "finetune: {steps: 5}\n",
            "r.yaml:4:19: finetune.warmup: 500 steps of warm-up in 5 steps of training",
        ),
        (
            SCRATCH + "finetune: {random: 0.6, keep: 0.5}\n",
            "r.yaml:4:20: finetune.random: random and keep are shares of one whole, together they are 1.1",
        ),
        (
            SCRATCH + "finetune: {average_last: 3}\n",
            "r.yaml:4:26: finetune.average_last: 3 checkpoints to average, but keep_last is 2",
        ),
        (
            SCRATCH + "finetune: {keep_best_by: bleu}\n",
            "r.yaml:4:26: finetune.keep_best_by: 'bleu' is measured on data.valid, which is absent",
        ),
        (
            SCRATCH + "finetune: {lora: {rank: 4}}\n",
            "r.yaml:4:18: finetune.lora: adapters are for a model that has learnt something: model.init",
        ),
        (
            MINIMAL + "finetune: {lora: {rank: 4}, freeze: [head]}\n",
            "r.yaml:3:37: finetune.freeze: with adapters nothing else is trained anyway",
        ),
        (
            MINIMAL + "finetune: {lora: {targets: [qkv, qkv]}}\n",
            "r.yaml:3:28: finetune.lora.targets: a linear layer is named twice",
        ),
        (
            MINIMAL + "finetune: {sharding: full, ema: 0.9}\n",
            "r.yaml:3:22: finetune.sharding: "
            "a model that is shared out among processes has neither adapters nor averages",
        ),
        (
            SCRATCH + "generate: {min_length: 60}\n",
            "r.yaml:4:24: generate.min_length: at least 60 tokens, but at most 48",
        ),
        (SCRATCH + "generate: {nbest: 6}\n", "r.yaml:4:19: generate.nbest: 6 hypotheses from a beam of 5"),
        (
            SCRATCH + "generate: {nbest: 2, search: greedy}\n",
            "r.yaml:4:19: generate.nbest: greedy search gives one hypothesis",
        ),
        (
            SCRATCH + "generate: {beam_groups: 2, diversity: 1}\n",
            "r.yaml:4:25: generate.beam_groups: a beam of 5 cannot be 2 groups of one size",
        ),
        (
            SCRATCH + "generate: {beam_groups: 5}\n",
            "r.yaml:4:25: generate.diversity: 5 groups without diversity would all write the same",
        ),
        (
            SCRATCH + "generate: {diversity: 1}\n",
            "r.yaml:4:23: generate.diversity: diversity is between groups, and there is one",
        ),
        (
            SCRATCH + "generate: {search: s2s-ft, forbid_phrase: [a]}\n",
            "r.yaml:4:43: generate.forbid_phrase: s2s-ft search knows no forbidden phrases",
        ),
        (
            SCRATCH + "generate: {search: sample, must: [a]}\n",
            "r.yaml:4:34: generate.must: sample search knows no phrases that must appear",
        ),
        (
            SCRATCH + "generate: {beam_groups: 5, diversity: 1, must: [a]}\n",
            "r.yaml:4:48: generate.must: groups of a beam know no phrases that must appear",
        ),
        (
            SCRATCH + "generate: {search: s2s-ft, repetition_penalty: 1.2}\n",
            "r.yaml:4:48: generate.repetition_penalty: s2s-ft search knows no repetition penalty",
        ),
        (
            SCRATCH.replace("{kind: bpe}", "{kind: bpe}, max_source: 500"),
            "r.yaml:3:42: model.positions: 512 positions are too few: tokens.max_source + tokens.max_target is 548",
        ),
        (
            SCRATCH.replace("tokens: {train: {kind: bpe}}\n", ""),
            "r.yaml:2:23: tokens: a model from scratch needs tokens.train (a new vocabulary) "
            "or tokens.tokenizer (a folder)",
        ),
        (
            SCRATCH.replace("{kind: bpe}", "{kind: bpe}, tokenizer: t"),
            "r.yaml:3:17: tokens.train: train and tokenizer exclude each other; set one of them to null",
        ),
        (
            MINIMAL + "tokens: {train: {kind: bpe}}\n",
            "r.yaml:3:17: tokens.train: model.init brings its vocabulary; a new one is for a model from scratch",
        ),
    ],
)
def test_relations_between_keys_are_checked(text: str, said: str) -> None:
    assert mistakes(text) == [said]


def test_a_relation_is_silent_about_values_that_are_wrong_themselves() -> None:
    found = mistakes(SCRATCH + "finetune: {steps: abc, warmup: 40000, average_last: 9}\nmodel2: 1\n")
    assert [line.split(": ")[1] for line in found] == ["finetune.steps", "finetune.average_last", "model2"]


def test_relations_are_checked_even_when_whole_sections_are_missing_or_wrong() -> None:
    assert mistakes("finetune: {steps: 5, warmup: 6}\ndata: 5\n") == [
        "r.yaml:1:1: model: needs init (a model folder) or architecture (from scratch)",
        "r.yaml:1:30: finetune.warmup: 6 steps of warm-up in 5 steps of training",
        "r.yaml:2:7: data: must be a mapping of keys to values; got 5",
    ]
    found = mistakes("seed: 1\ngenerate: {nbest: 9}\nmodel: {init: m}\ndata: {valid: {}}\n")
    assert found == [
        "r.yaml:2:19: generate.nbest: 9 hypotheses from a beam of 5",
        "r.yaml:4:7: data.train: required, but absent",
        "r.yaml:4:15: data.valid.files: required, but absent",
    ]
