"""transformers' BertLMHeadModel, trained on the next token of the target; padded to the longest of the batch."""

import random

import torch
import transformers

from train_bench.process import timed
from train_bench.work import LENGTHS, PAD, SEPARATOR, START, VOCABULARY, Done, Engine

IGNORED = -100


class HuggingFace:
    """The model and torch's AdamW as transformers' trainer sets it up."""

    def __init__(self, engine: Engine) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(engine.threads)
        self.engine = engine
        config = transformers.BertConfig(vocab_size=VOCABULARY, is_decoder=True, max_position_embeddings=640)
        self.model = transformers.BertLMHeadModel(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=7e-5, fused=True)

    def step(self, lengths: str, examples: int, place: float) -> Done:
        """One step on examples drawn at random."""
        chosen = random.Random(int(100 * place)).sample(LENGTHS[lengths].pairs(), examples)
        rows = [[START, *source, SEPARATOR, *target, SEPARATOR] for source, target in chosen]
        longest = max(map(len, rows))
        ids, labels = torch.full((examples, longest), PAD), torch.full((examples, longest), IGNORED)
        for index, (row, (source, _)) in enumerate(zip(rows, chosen, strict=True)):
            ids[index, : len(row)] = torch.tensor(row)
            labels[index, len(source) + 2 : len(row)] = ids[index, len(source) + 2 : len(row)]

        def work() -> None:
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.engine.precision == "bfloat16"):
                out = self.model(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels, use_cache=False)
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

        return Done(timed(self.engine, work), sum(map(len, rows)))
