"""Model folders with heads beside the language model's, as transformers reads them."""

from pathlib import Path

import pytest
import torch
from test_training_replaced import electra
from test_weights_heads import headed, saved
from tiny_checkpoints import WORDS, tiny, write_vocabulary
from transformers import BertForMaskedLM, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from unilmctl.model import HeadConfig
from unilmctl.visibility import FOREVER, Slots
from unilmctl.weights import load_model
from unilmctl.weights.converting import convert


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


@pytest.mark.parametrize("embedding", [8, 6])
def test_a_released_discriminator_comes_with_its_head_and_goes_back(embedding: int, tmp_path: Path) -> None:
    torch.manual_seed(4)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = ElectraConfig(vocab_size=len(WORDS), embedding_size=embedding, max_position_embeddings=10, **sizes)
    theirs = ElectraForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path / "released")
    write_vocabulary(tmp_path / "released")
    report = convert(str(tmp_path / "released"), tmp_path / "ours")
    assert report.left_over == []
    encoder, _ = load_model(tmp_path / "ours")
    assert [(head.name, head.kind) for head in encoder.config.heads_extra] == [("replaced", "replaced")]
    ids = torch.randint(5, 20, (2, 7))
    slots = Slots(torch.zeros_like(ids), torch.zeros_like(ids), torch.full_like(ids, FOREVER))
    with torch.no_grad():
        hidden, _ = encoder(ids, torch.arange(7).expand(2, -1), torch.zeros_like(ids), slots)
        scores = encoder.scores("replaced", hidden.flatten(0, 1)).view(2, 7)
        torch.testing.assert_close(scores, theirs(input_ids=ids).logits)
    back = ElectraForPreTraining.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    again = convert(str(tmp_path / "ours"), tmp_path / "again")
    assert again.left_over == again.missing == []


def test_a_generator_opens_in_transformers(tmp_path: Path) -> None:
    encoder = electra().eval()
    theirs = ElectraForMaskedLM.from_pretrained(saved(tmp_path, encoder) / "generator").eval()
    ids = torch.randint(5, 24, (2, 7))
    slots = Slots(torch.zeros_like(ids), torch.zeros_like(ids), torch.full_like(ids, FOREVER))
    with torch.no_grad():
        hidden, _ = encoder.generator(ids, torch.arange(7).expand(2, -1), torch.zeros_like(ids), slots)
        torch.testing.assert_close(encoder.generator.logits(hidden), theirs(input_ids=ids).logits)
