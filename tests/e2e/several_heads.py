"""Trains a tiny model with every kind of head, alone or under torchrun: several_heads.py OUTPUT [sharded]."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from test_training_heads import headed, rich, rich_feed
from tiny_training import optimizer_of, options_of

from unilmctl.rows import Example, Frame, Row
from unilmctl.training import train
from unilmctl.training.distributed import together
from unilmctl.training.sharding import shard, whole


def sparse(example: Example, frame: Frame, random: np.random.Generator) -> Row:
    """Some heads have labels in few of the batches of a step only."""
    row = rich(example, frame, random)
    rare = () if random.random() < 0.2 else ("topic", "boundary")
    return replace(row, labels={head: labels for head, labels in row.labels.items() if head not in rare})


def main(output: Path, *, sharded: bool) -> None:
    options = options_of(steps=3, accumulate=2, warmup=0, learning_rate=1e-3, head_weights={"tag": 0.5})
    with together(os.environ) as processes:
        encoder = headed()
        if sharded:
            shard(encoder, processes)
        optimizer = optimizer_of(encoder, options)
        steps = list(train(encoder, optimizer, replace(rich_feed(), objective=sparse), options, processes=processes))
        plain = whole(encoder, processes)
        if plain is not None:
            save_file({name: tensor.contiguous() for name, tensor in plain.state_dict().items()}, output)
            told = [[step.loss, sorted(map(repr, step.tallies)), step.labels] for step in steps]
            output.with_suffix(".json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sharded=sys.argv[2:] == ["sharded"])
