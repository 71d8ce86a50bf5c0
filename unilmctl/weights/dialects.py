"""Other spellings of the same weights, turned into the family's own names.

Old checkpoints say gamma and beta, some leave out the `bert.` prefix, UniLM 2 fuses query, key and value, s2s-ft keeps
copies of tied tensors. Each dialect is one small function from tensors to tensors; none of them looks at a value
except to compare a copy with its original.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unilmctl.errors import ModelError
from unilmctl.weights.families import FAMILIES, Family
from unilmctl.weights.names import Tensors


class Leftover(NamedTuple):
    """A tensor of the checkpoint that is not in the model, and why."""

    name: str
    reason: str


def normalised(tensors: Tensors, family: Family) -> tuple[Tensors, list[Leftover]]:
    """The tensors under the family's usual names, and the copies and constants that were taken out."""
    for dialect in DIALECTS:
        tensors = dialect(tensors, family)
    return _without_duplicates(tensors, family)


def _renamed(tensors: Tensors, new_name: Callable[[str], str]) -> Tensors:
    """The tensors under new names, no two of which may be the same."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if new_name(name) in found:
            raise ModelError(f"the checkpoint is ambiguous: '{new_name(name)}' is there under two names")
        found[new_name(name)] = tensor
    return found


def _without_wrapper(tensors: Tensors, family: Family) -> Tensors:
    """`module.` in front of every name: left by data-parallel training."""
    if all(name.startswith("module.") for name in tensors):
        return _renamed(tensors, lambda name: name.removeprefix("module."))
    return tensors


def _modern_norms(tensors: Tensors, family: Family) -> Tensors:
    """`gamma` and `beta` are a norm's weight and bias."""
    return _renamed(tensors, lambda name: re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name)))


def _as_bert(tensors: Tensors, family: Family) -> Tensors:
    """Old copies of ERNIE, and NEZHA and RoFormer as they were released, are named as if they were BERT."""
    if family not in (FAMILIES["ernie"], FAMILIES["nezha"], FAMILIES["roformer"]):
        return tensors
    return _renamed(tensors, lambda name: re.sub(r"^bert\.", f"{family.prefix}.", name))


ALBERT_PARTS = (
    (r"^bert\.encoder\.transformer\.group_(\d+)\.inner_group_0\.", r"encoder.albert_layer_groups.\1.albert_layers.0."),
    (r"\.attention_1\.self\.", ".attention."),
    (r"\.attention_1\.output\.dense\.", ".attention.dense."),
    (r"_layers\.0\.LayerNorm\.", "_layers.0.attention.LayerNorm."),
    (r"\.LayerNorm_1\.", ".full_layer_layer_norm."),
    (r"\.ffn_1\.intermediate\.output\.dense\.", ".ffn_output."),
    (r"\.ffn_1\.intermediate\.dense\.", ".ffn."),
    (r"^bert\.pooler\.dense\.", "pooler."),
    (r"^bert\.", ""),
    (r"^cls\.predictions\.(transform\.)?", "predictions."),
    (r"^cls\.seq_relationship\.", "sop_classifier.classifier."),
)
"""Google's names of the parts of an ALBERT, and those without prefix in PyTorch."""


def _albert_of_google(tensors: Tensors, family: Family) -> Tensors:
    """ALBERT as it was released: in TensorFlow, and called BERT."""
    if family is not FAMILIES["albert"] or not any(name.startswith("bert.encoder.transformer.") for name in tensors):
        return tensors

    def named(name: str) -> str:
        for old, new in ALBERT_PARTS:
            name = re.sub(old, new, name)
        return name

    return _renamed(tensors, named)


def _with_prefix(tensors: Tensors, family: Family) -> Tensors:
    """A bare encoder (`embeddings.`, `encoder.`) gets the prefix it has inside a model with heads."""
    if any(name.startswith(f"{family.prefix}.") for name in tensors):
        return tensors
    return _renamed(tensors, lambda name: family.named(name) if name.startswith(family.bare) else name)


def _split_queries(tensors: Tensors, family: Family) -> Tensors:
    """UniLM 2: one `qkv_linear`, a bias for queries and values, none for keys (a key bias cancels in the softmax)."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".self.")
        if last == "qkv_linear.weight":
            if tensor.dim() != 2 or tensor.shape[0] % 3:
                raise ModelError(f"'{name}' has shape {list(tensor.shape)}, which is not three matrices")
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{stem}.self.{part}.weight"] = rows
        elif last == "q_bias":
            found[f"{stem}.self.query.bias"] = tensor.reshape(-1)
        elif last == "v_bias":
            found[f"{stem}.self.value.bias"] = tensor.reshape(-1)
            found[f"{stem}.self.key.bias"] = torch.zeros_like(tensor).reshape(-1)
        else:
            found[name] = tensor
    return found


def _relative_bias(tensors: Tensors, family: Family) -> Tensors:
    """UniLM 2 keeps the relative bias inside the encoder."""
    old, new = f"{family.prefix}.encoder.rel_pos_bias.weight", f"{family.prefix}.rel_pos_bias.weight"
    return _renamed(tensors, lambda name: new if name == old else name)


DIALECTS: tuple[Callable[[Tensors, Family], Tensors], ...] = (
    _without_wrapper,
    _modern_norms,
    _as_bert,
    _albert_of_google,
    _with_prefix,
    _split_queries,
    _relative_bias,
)


def _copies(family: Family) -> dict[str, str]:
    """Names under which files keep a second copy: copy -> original."""
    words = f"{family.named(family.embeddings['word'])}.weight"
    return dict.fromkeys(family.word_copies, words) | dict.fromkeys(family.bias_copies, family.bias)


def _of_training(tensors: Tensors) -> tuple[Tensors, list[Leftover]]:
    """Without what a TensorFlow checkpoint has for training alone (see `tensorflow`)."""
    states = [name for name in tensors if name.startswith("/")]
    if not states:
        return tensors, []
    more = f" and {len(states) - 1} more" if len(states) > 1 else ""
    kept = {name: tensor for name, tensor in tensors.items() if name not in states}
    return kept, [Leftover(f"{states[0][1:]}{more}", "of the training, not of the model; not read")]


CONSTANTS = (
    ".position_ids",
    ".token_type_ids",
    ".relative_positions_encoding.positions_encoding",
    "crit_mask_lm_smoothed.one_hot",
)


def _without_duplicates(tensors: Tensors, family: Family) -> tuple[Tensors, list[Leftover]]:
    kept, left = _of_training(dict(tensors))
    for copy, original in _copies(family).items():
        if copy in kept:
            tensor = kept.pop(copy)
            if original not in kept:
                kept[original] = tensor
            elif _equal(tensor, kept[original]):
                left.append(Leftover(copy, f"the same as {original}"))
            else:
                left.append(Leftover(copy, f"differs from {original}, to which the output layer is tied here"))
    for name in [name for name in kept if name.endswith(CONSTANTS)]:
        del kept[name]
        left.append(Leftover(name, "a constant that needs no storing"))
    return kept, left


def _equal(copy: Tensor, original: Tensor) -> bool:
    return copy.shape == original.shape and torch.equal(copy.to(original.dtype), original)
