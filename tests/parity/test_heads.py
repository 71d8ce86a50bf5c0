"""Model folders with heads beside the language model's, as transformers reads them."""

from pathlib import Path

import torch
from test_training_replaced import electra
from test_weights_heads import headed, saved
from tiny_checkpoints import tiny
from transformers import BertForMaskedLM, ElectraForMaskedLM, ElectraForPreTraining

from unilmctl.model import HeadConfig
from unilmctl.visibility import FOREVER, Slots


def test_a_folder_with_heads_opens_in_transformers(tmp_path: Path) -> None:
    encoder = headed()
    theirs = BertForMaskedLM.from_pretrained(saved(tmp_path, encoder))
    torch.testing.assert_close(theirs.bert.embeddings.word_embeddings.weight, encoder.embeddings.word.weight)
    torch.testing.assert_close(theirs.cls.predictions.bias, encoder.head.bias)


def test_a_discriminator_opens_in_transformers(tmp_path: Path) -> None:
    encoder = tiny(heads_extra=(HeadConfig("replaced", "replaced"),), family="electra", positions=10, embedding=6)
    theirs = ElectraForPreTraining.from_pretrained(saved(tmp_path, encoder)).eval()
    ids = torch.randint(5, 20, (2, 7))
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits
        hidden = theirs.electra(input_ids=ids).last_hidden_state
        torch.testing.assert_close(encoder.scores("replaced", hidden.flatten(0, 1)).view(2, 7), logits)


def test_a_generator_opens_in_transformers(tmp_path: Path) -> None:
    encoder = electra().eval()
    theirs = ElectraForMaskedLM.from_pretrained(saved(tmp_path, encoder) / "generator").eval()
    ids = torch.randint(5, 24, (2, 7))
    slots = Slots(torch.zeros_like(ids), torch.zeros_like(ids), torch.full_like(ids, FOREVER))
    with torch.no_grad():
        hidden, _ = encoder.generator(ids, torch.arange(7).expand(2, -1), torch.zeros_like(ids), slots)
        torch.testing.assert_close(encoder.generator.logits(hidden), theirs(input_ids=ids).logits)
