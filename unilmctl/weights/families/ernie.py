"""ERNIE 1.0 to 3.0 of Baidu: BERT, since version 2 with an embedding for the task that the text is for.

The task is the first one here, as in transformers when nobody says another: the released models were trained with it on
masked language. (Sun et al. 2019 and 2020, arXiv 1904.09223 and 1907.12412.)
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unilmctl.model import ModelConfig
from unilmctl.weights.families.bert import BERT
from unilmctl.weights.families.family import BERT_EMBEDDINGS
from unilmctl.weights.values import Values


def _tasks(values: Values, config: ModelConfig) -> ModelConfig:
    return replace(config, tasks=values.integer("task_type_vocab_size", 3) if values.raw.get("use_task_id") else 0)


def _written_tasks(config: ModelConfig) -> Mapping[str, Any]:
    return {"use_task_id": config.tasks > 0, **({"task_type_vocab_size": config.tasks} if config.tasks else {})}


ERNIE = replace(
    BERT,
    prefix="ernie",
    architecture="ErnieForMaskedLM",
    embeddings={**BERT_EMBEDDINGS, "task": "embeddings.task_type_embeddings"},
    relative="",
    read=_tasks,
    write=_written_tasks,
)
