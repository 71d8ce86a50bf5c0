"""Loads a checkpoint with as many processes as torchrun has started, the model shared out, and writes it again."""

import os
import sys
from pathlib import Path

from unilmctl.runs.checkpoint import load_checkpoint, save_checkpoint
from unilmctl.tokens import Tokenizer
from unilmctl.training import TrainOptions, build_optimizer
from unilmctl.training.distributed import together
from unilmctl.training.sharding import shard
from unilmctl.weights import load_model


def main(old: Path, new: Path) -> None:
    with together(os.environ) as processes:
        encoder, card = load_model(old)
        shard(encoder, processes)
        optimizer = build_optimizer(encoder, TrainOptions(steps=1))
        state = load_checkpoint(old, encoder, optimizer)
        tokenizer = Tokenizer.load(old)
        save_checkpoint(new, encoder, card, tokenizer, optimizer=optimizer, state=state, processes=processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
