"""A device that is not the processor, for machines that have no other: what is on it cannot be mixed with what is not.

A `Far` tensor says that it is on `FAR` and keeps its numbers in an ordinary tensor. Everything it does is done with
that one, so results are those of the processor; but an operation that meets tensors of both kinds fails, as it would
between a processor and a GPU. Exempt are, as there, lone numbers of the processor, and copies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "far"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class _Module:
    """What torch asks of a device about mixed precision and chance: nothing."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
FAR = torch.device(NAME, 0)


class Far(Tensor):
    """A tensor that says it is on `FAR`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Far":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=FAR,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(op, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(op, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """`torch.tensor` fills its result where no mode looks: it is made here, then copied."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is not torch.tensor or kwargs.get("device") is None:
            return function(*args, **kwargs)
        return torch.tensor(*args, **{**kwargs, "device": None}).to(kwargs["device"])


@contextmanager
def reachable() -> Iterator[None]:
    """Within the block, tensors can also be made on `FAR`."""
    with _Lists(), _Operations():
        yield


def _apply(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    far = [value for value in tensors if isinstance(value, Far)]
    near = [value for value in tensors if not isinstance(value, Far) and value.ndim]
    if far and near and op not in COPIES:
        raise RuntimeError(f"{op} meets tensors of both devices: {[tuple(value.shape) for value in near]} are near")
    wanted = kwargs.get("device")
    lands = bool(far) if wanted is None else torch.device(wanted).type == FAR.type
    if op is torch.ops.aten.copy_.default:
        lands = isinstance(args[0], Far)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map_only(Far, lambda value: value.inner, (args, kwargs))
    found = op(*plain_args, **plain_kwargs)
    if not lands:
        return found
    wrapped = tree_map_only(Tensor, Far, found)
    return return_and_correct_aliasing(op, args, kwargs, wrapped) if far else wrapped
