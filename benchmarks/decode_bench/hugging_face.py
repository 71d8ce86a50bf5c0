"""GPT-2 of BERT-base size with random weights, decoded by transformers."""

from pathlib import Path

import torch
import transformers

from decode_bench.work import VOCABULARY, Engine, Output, Work

PADDING, BEGIN, END = 0, 1, 2


class HuggingFace:
    """The model, ready to decode."""

    def __init__(self, engine: Engine, _folder: Path) -> None:
        torch.manual_seed(1)
        torch.set_num_threads(engine.threads)
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=1024, pad_token_id=PADDING, bos_token_id=BEGIN, eos_token_id=END
        )
        self.model = transformers.GPT2LMHeadModel(config).eval().to(getattr(torch, engine.dtype))

    @torch.inference_mode()
    def decode(self, work: Work) -> list[Output]:
        """Outputs of exactly `work.tokens` tokens."""
        outputs = []
        for batch in work.batches():
            longest = max(map(len, batch)) + 2
            ids = torch.full((len(batch), longest), PADDING)
            for row, words in zip(ids, batch, strict=True):
                row[longest - len(words) - 2 :] = torch.tensor([BEGIN, *words, END])
            found = self.model.generate(
                ids,
                attention_mask=(ids != PADDING).long(),
                num_beams=work.beam,
                min_new_tokens=work.tokens,
                max_new_tokens=work.tokens,
                do_sample=False,
                pad_token_id=PADDING,
                return_dict_in_generate=True,
                output_scores=work.scored,  # it keeps those of every step
            )
            scores = found.sequences_scores.tolist() if work.scored else [0.0] * len(batch)
            outputs += [
                Output(row[longest:].tolist(), score) for row, score in zip(found.sequences, scores, strict=True)
            ]
        return outputs
