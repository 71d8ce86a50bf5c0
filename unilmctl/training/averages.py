"""The model as it is shown: evaluated, saved, decoded. It differs from the one in training in two ways.

Its weights may be running averages of those in training, which are often better than any one of them (Polyak and
Juditsky 1992; with exponential forgetting, as here, Tarvainen and Valpola 2017, arXiv 1703.01780). And adapters are
merged into the weights that they adapt.
"""

import torch
from torch import Tensor

from unilmctl.model import Encoder
from unilmctl.model.adapters import adapters, merged

TRAINED = "weights."
"""Before the names of the weights in training, where they are kept beside those that are shown."""

AVERAGE = "average."


class Averages:
    """Running averages of the weights that are trained.

    In the beginning they forget faster than `decay` says: after n steps with (1 + n) / (10 + n) at most, so that the
    first weights do not weigh for ever.
    """

    def __init__(self, encoder: Encoder, decay: float) -> None:
        self.decay = decay
        self.weights = {
            name: tensor.detach().clone() for name, tensor in encoder.named_parameters() if tensor.requires_grad
        }

    @torch.no_grad()
    def update(self, encoder: Encoder, step: int) -> None:
        """Moves the averages towards the weights after step `step`, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in encoder.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(tensor, share)


def shown(encoder: Encoder, averages: Averages | None) -> Encoder:
    """An ordinary encoder with the weights to be shown; the one in training itself where there is no difference.

    It shares memory with the one in training: it is for looking at between two steps.
    """
    if averages is None and not adapters(encoder):
        return encoder
    state = shown_state(encoder, averages)
    with torch.device("meta"):
        plain = Encoder(encoder.config)
    plain.load_state_dict(merged(encoder, state), assign=True)
    return plain.eval()


def shown_state(encoder: Encoder, averages: Averages | None) -> dict[str, Tensor]:
    """The encoder's state, adapters apart, with averages in the place of what they are averages of."""
    return {**encoder.state_dict(), **(averages.weights if averages else {})}


def hidden_tensors(encoder: Encoder, averages: Averages | None) -> dict[str, Tensor]:
    """What a checkpoint needs to go on besides the model that it shows: weights in training, averages."""
    if averages is None and not adapters(encoder):
        return {}
    found = {f"{TRAINED}{name}": tensor.detach() for name, tensor in encoder.state_dict().items()}
    if averages is not None:
        found |= {f"{AVERAGE}{name}": tensor for name, tensor in averages.weights.items()}
    return {name: tensor.contiguous() for name, tensor in found.items()}


@torch.no_grad()
def load_hidden(encoder: Encoder, averages: Averages | None, tensors: dict[str, Tensor]) -> None:
    """Puts the tensors of `hidden_tensors` back, and takes them out of `tensors`."""
    state = encoder.state_dict()
    for name in [name for name in tensors if name.startswith((TRAINED, AVERAGE))]:
        kind, inner = name.split(".", 1)
        tensor = tensors.pop(name)
        if f"{kind}." == TRAINED:
            state[inner].copy_(tensor)
        elif averages is not None:
            averages.weights[inner].copy_(tensor)
