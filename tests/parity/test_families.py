"""The encoder against `transformers`: the same random weights give the same hidden states and logits.

Every family that transformers has, tiny and random, through a folder that transformers wrote and `load_model` read.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unilmctl.model import Encoder
from unilmctl.model.positions import relative_bucket
from unilmctl.objectives import masked, pseudo
from unilmctl.rows import Example, Frame, pad
from unilmctl.visibility import FOREVER, PADDING, Slots, visible
from unilmctl.weights import convert, load_model, save_model

transformers = pytest.importorskip("transformers")

SHARED = Path(__file__).parents[3] / "shared" / "parity"
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "attn_implementation": "eager",
}

MODERN = {"max_position_embeddings": 40, "local_attention": 8, "global_rope_theta": 160.0} | dict.fromkeys(
    ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
)

FAMILIES = {
    "bert": ("BertForMaskedLM", "BertConfig", {"max_position_embeddings": 40, "type_vocab_size": 2}),
    "bert-six-segments": ("BertForMaskedLM", "BertConfig", {"max_position_embeddings": 40, "type_vocab_size": 6}),
    "bert-relu": ("BertForMaskedLM", "BertConfig", {"max_position_embeddings": 40, "hidden_act": "relu"}),
    "bert-gelu-new": ("BertForMaskedLM", "BertConfig", {"max_position_embeddings": 40, "hidden_act": "gelu_new"}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", {"max_position_embeddings": 42, "type_vocab_size": 1}),
    "roberta-relu": (
        "RobertaForMaskedLM",
        "RobertaConfig",
        {"max_position_embeddings": 42, "type_vocab_size": 1, "hidden_act": "relu"},
    ),
    "xlm-roberta": (
        "XLMRobertaForMaskedLM",
        "XLMRobertaConfig",
        {"max_position_embeddings": 42, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "albert": (
        "AlbertForPreTraining",
        "AlbertConfig",
        {"max_position_embeddings": 40, "embedding_size": 16, "num_hidden_groups": 1},
    ),
    "albert-two-groups": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        {"max_position_embeddings": 40, "embedding_size": 32, "num_hidden_groups": 2, "hidden_act": "relu"},
    ),
    "mpnet": ("MPNetForMaskedLM", "MPNetConfig", {"max_position_embeddings": 42}),
    "ernie-1": (
        "ErnieForPreTraining",
        "ErnieConfig",
        {"max_position_embeddings": 40, "hidden_act": "relu", "layer_norm_eps": 1e-5},
    ),
    "ernie-3": ("ErnieForMaskedLM", "ErnieConfig", {"max_position_embeddings": 40, "use_task_id": True}),
    "roformer": (
        "RoFormerForMaskedLM",
        "RoFormerConfig",
        {"max_position_embeddings": 40, "embedding_size": 16, "hidden_act": "gelu_new"},
    ),
    "roformer-unprojected": (
        "RoFormerForMaskedLM",
        "RoFormerConfig",
        {"max_position_embeddings": 64, "embedding_size": 32, "hidden_act": "relu"},
    ),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", {**MODERN, "num_hidden_layers": 5}),
    "modernbert-biases": (
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {
            **{**MODERN, "global_attn_every_n_layers": 2, "hidden_activation": "relu", "norm_bias": True},
            **dict.fromkeys(("attention_bias", "mlp_bias", "classifier_bias"), True),
        },
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", {"max_position_embeddings": 40, "embedding_size": 16}),
    "electra-unprojected": (
        "ElectraForMaskedLM",
        "ElectraConfig",
        {"max_position_embeddings": 40, "embedding_size": 32, "hidden_act": "relu"},
    ),
}


def random_model(family: str) -> torch.nn.Module:
    """A transformers model whose every parameter is random, biases and norms too."""
    model_class, config_class, more = FAMILIES[family]
    config = getattr(transformers, config_class)(**{**SIZES, **more})
    model = getattr(transformers, model_class)(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue  # a constant
            centre = 1.0 if name.lower().endswith("norm.weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=list(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[torch.nn.Module, Encoder]:
    model = random_model(request.param)
    model.save_pretrained(tmp_path)
    return model, load_model(tmp_path).encoder


def padded_batch(encoder: Encoder, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor, Slots, Tensor]:
    """Ids, positions, segments, slots of a bidirectional batch, and which tokens are real."""
    config, width = encoder.config, max(lengths)
    generator = torch.Generator().manual_seed(3)
    real = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, config.vocabulary, real.shape, generator=generator)
    ids = torch.where(real, ids, config.pad)
    segments = torch.randint(0, max(config.segments, 1), real.shape, generator=generator)
    positions = torch.arange(width).expand(real.shape)
    document = torch.where(real, 0, PADDING)
    slots = Slots(document, torch.zeros_like(ids), torch.full_like(ids, FOREVER))
    return ids, positions, segments, slots, real


def theirs(model: torch.nn.Module, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Hidden states after the last layer, and logits."""
    known = inspect.signature(model.forward).parameters
    inputs = {name: value for name, value in inputs.items() if name in known}
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    return out.hidden_states[-1], out.logits if "logits" in out else out.prediction_logits


def their_positions(encoder: Encoder, positions: Tensor) -> Tensor:
    return positions + encoder.config.reserved_positions


def their_mask(encoder: Encoder, mask: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
    """A mask [B, 1, T, T] to be added to the scores: ModernBERT wants one of each kind of layer."""
    lowest = torch.finfo(torch.float32).min
    if encoder.config.family != "modernbert":
        return torch.where(mask, 0.0, lowest)
    close = (positions[:, None, :, None] - positions[:, None, None, :]).abs() <= encoder.config.window
    kinds = {"full_attention": mask, "sliding_attention": mask & close}
    return {kind: torch.where(one, 0.0, lowest) for kind, one in kinds.items()}


@pytest.mark.parametrize("lengths", [[17], [17, 9, 1], [40]])
def test_padded_bidirectional_batches_agree(pair: tuple[torch.nn.Module, Encoder], lengths: list[int]) -> None:
    model, encoder = pair
    ids, positions, segments, slots, real = padded_batch(encoder, lengths)
    with torch.no_grad():
        hidden, _ = encoder(ids, positions, segments, slots)
        logits = encoder.logits(hidden)
    expected, expected_logits = theirs(
        model,
        input_ids=ids,
        attention_mask=real.long(),
        token_type_ids=segments,
        position_ids=their_positions(encoder, positions),
    )
    torch.testing.assert_close(hidden[real], expected[real], **TOLERANCE)
    torch.testing.assert_close(logits[real], expected_logits[real], **TOLERANCE)


def test_positions_are_counted_as_the_family_counts_them(pair: tuple[torch.nn.Module, Encoder]) -> None:
    model, encoder = pair
    ids, positions, _, slots, real = padded_batch(encoder, [12])
    segments = torch.zeros_like(ids)
    with torch.no_grad():
        logits = encoder.logits(encoder(ids, positions, segments, slots)[0])
    _, expected = theirs(model, input_ids=ids, attention_mask=real.long(), token_type_ids=segments)
    torch.testing.assert_close(logits, expected, **TOLERANCE)


def test_the_pair_head_agrees(pair: tuple[torch.nn.Module, Encoder]) -> None:
    model, encoder = pair
    if encoder.pair is None or encoder.pooler is None:
        pytest.skip("this model has none")
    ids, positions, segments, slots, real = padded_batch(encoder, [12, 7])
    with torch.no_grad():
        first = encoder(ids, positions, segments, slots)[0][:, 0]
        out = model(input_ids=ids, attention_mask=real.long(), token_type_ids=segments)
        found = encoder.pair(torch.tanh(encoder.pooler(first)))
    expected = out.sop_logits if "sop_logits" in out else out.seq_relationship_logits
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_a_unilm_mask_agrees(pair: tuple[torch.nn.Module, Encoder]) -> None:
    model, encoder = pair
    last = max(encoder.config.segments - 1, 0)
    frame = Frame(
        pad=encoder.config.pad, start=5, separator=6, mask=7, vocabulary=97, source_segment=0, target_segment=last
    )
    random = np.random.default_rng(1)
    by_slots = encoder.relative is not None or encoder.config.position == "interleaved"
    objective = masked if by_slots else pseudo  # theirs takes distances between slots, not positions
    rows = [
        objective(Example(random.integers(8, 97, source), random.integers(8, 97, target)), frame, random)
        for source, target in ((6, 5), (3, 4))
    ]
    batch = pad(rows, pad_id=frame.pad)
    with torch.no_grad():
        hidden, _ = encoder(batch.ids, batch.positions, batch.segments, batch.slots)
        logits = encoder.logits(hidden)
    mask = visible(batch.slots, batch.slots)[:, None]
    assert not bool(mask.all())
    expected, expected_logits = theirs(
        model,
        input_ids=batch.ids,
        attention_mask=their_mask(encoder, mask, batch.positions),
        token_type_ids=batch.segments,
        position_ids=their_positions(encoder, batch.positions),
    )
    real = batch.slots.document != PADDING
    torch.testing.assert_close(hidden[real], expected[real], **TOLERANCE)
    torch.testing.assert_close(logits[real], expected_logits[real], **TOLERANCE)


def test_the_folder_we_write_opens_in_transformers_with_every_weight(
    pair: tuple[torch.nn.Module, Encoder], tmp_path: Path
) -> None:
    model, encoder = pair
    loaded = load_model(tmp_path)
    save_model(tmp_path / "ours", encoder, loaded.card, None)
    reopened, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    original, again = model.state_dict(), reopened.state_dict()
    assert original.keys() == again.keys()
    assert all(torch.equal(original[name], again[name]) for name in original)


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 64), (16, 128)])
def test_relative_buckets_are_those_recorded(buckets: int, furthest: int) -> None:
    recorded = SHARED / "misc" / "rel_pos_bucket.json"
    if not recorded.exists():
        pytest.skip(f"needs the recorded buckets at {recorded}")
    cases = json.loads(recorded.read_text())
    found = relative_bucket(torch.tensor(cases["values"]), buckets=buckets, furthest=furthest)
    assert found.tolist() == cases["buckets"][f"{buckets}/{furthest}"]


def test_released_unilm2_names_convert_to_exactly_the_recorded_weights(tmp_path: Path) -> None:
    folder = SHARED / "models" / "tiny_relpos"
    if not folder.exists():
        pytest.skip(f"needs the recorded model at {folder}")
    report = convert(str(folder / "raw_unilm2.safetensors"), tmp_path / "model")
    assert (report.missing, report.left_over, report.head) == ([], [], "trained")
    expected, found = load_file(folder / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("name", ["tiny_type2", "tiny_relpos"])
def test_a_round_trip_of_the_recorded_models_is_bit_equal(name: str, tmp_path: Path) -> None:
    folder = SHARED / "models" / name
    if not folder.exists():
        pytest.skip(f"needs the recorded model at {folder}")
    encoder, card = load_model(folder)
    assert (card.source_segment, card.target_segment, card.max_source) == (0, 1, None)
    save_model(tmp_path, encoder, card, None)
    expected, found = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
