"""CTranslate2 with random weights: a decoder-only GPT-2, and encoder-decoders.

The models are made and converted in a process of their own. The one that decodes does not load torch: its OpenMP
runtime would disturb CTranslate2's, and its memory would be counted as CTranslate2's.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from decode_bench.work import VOCABULARY, Engine, Output, Work

LAYERS = {"encoder-decoder 12+12": 12, "encoder-decoder 6+6": 6}
"""Layers of encoder and of decoder, each; the rest is of BERT-base size. 6+6 is BART-base."""

WORDS = [f"w{number}" for number in range(VOCABULARY)]
NUMBER = {word: number for number, word in enumerate(WORDS)}
PADDING, BEGIN, END, UNKNOWN = 0, 1, 2, 3


class CTranslate2:
    """A converted model, ready to decode."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        sys.modules["torch"] = None  # type: ignore[assignment]
        if "avx512vl" in _processor():
            os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")  # it is chosen by itself on Intel's processors only
        import ctranslate2

        self.generative = engine.model == "GPT-2"
        kind: Any = ctranslate2.Generator if self.generative else ctranslate2.Translator
        self.model = kind(
            str(folder / f"{engine.model} {engine.dtype}"),
            device="cpu",
            compute_type=engine.dtype,
            inter_threads=engine.workers,
            intra_threads=engine.threads,
        )

    def decode(self, work: Work) -> list[Output]:
        """Outputs of exactly `work.tokens` tokens."""
        sources = [[WORDS[BEGIN], *(WORDS[word] for word in words), WORDS[END]] for words in work.sources()]
        if self.generative:
            found = self.model.generate_batch(
                sources,
                max_batch_size=work.batch,
                beam_size=work.beam,
                min_length=work.tokens,
                max_length=work.tokens,
                include_prompt_in_result=False,
                return_scores=True,
            )
            return [Output(one.sequences_ids[0], one.scores[0]) for one in found]
        found = self.model.translate_batch(
            sources,
            max_batch_size=work.batch,
            beam_size=work.beam,
            min_decoding_length=work.tokens,
            max_decoding_length=work.tokens,
            max_input_length=0,
            return_scores=True,
        )
        return [Output([NUMBER[word] for word in one.hypotheses[0]], one.scores[0]) for one in found]


def _processor() -> str:
    """What Linux says about the processor; nothing elsewhere."""
    about = Path("/proc/cpuinfo")
    return about.read_text() if about.exists() else ""


def prepare(engine: Engine, folder: Path) -> None:
    """Writes the engine's model into `folder`, unless it is there."""
    target = folder / f"{engine.model} {engine.dtype}"
    if target.exists():
        return
    import ctranslate2
    import torch

    class Random(ctranslate2.converters.Converter):
        """A model with random weights instead of a downloaded one."""

        def _load(self) -> object:
            with torch.no_grad():
                return _specification(engine.model)

    Random().convert(str(target), quantization=None if engine.dtype == "float32" else engine.dtype)


def _specification(model: str) -> object:
    """The random model in CTranslate2's terms."""
    import torch
    import transformers
    from ctranslate2.converters.transformers import BartLoader, GPT2Loader

    torch.manual_seed(1)
    special = {"pad_token": WORDS[PADDING], "bos_token": WORDS[BEGIN], "eos_token": WORDS[END]}
    vocabulary = SimpleNamespace(
        **special,
        unk_token=WORDS[UNKNOWN],
        get_vocab=lambda: NUMBER,
        convert_ids_to_tokens=lambda number: WORDS[number],
    )
    numbers = {"pad_token_id": PADDING, "bos_token_id": BEGIN, "eos_token_id": END}
    if model == "GPT-2":
        small = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=1024, **numbers)
        return GPT2Loader()(transformers.GPT2LMHeadModel(small).eval(), vocabulary)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=768,
        encoder_layers=LAYERS[model],
        decoder_layers=LAYERS[model],
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        decoder_start_token_id=END,
        forced_eos_token_id=None,
        **numbers,
    )
    config.normalize_before, config.normalize_embedding = False, True  # as BART is; the converter asks for both
    return BartLoader()(transformers.BartForConditionalGeneration(config).eval(), vocabulary)
