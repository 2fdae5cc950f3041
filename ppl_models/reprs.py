"""Short reprs: a line that says what something is, never pages of numbers nor an address in memory."""

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["arguments_repr", "fields_repr"]


def fields_repr(self: Any) -> str:
    """`NAME(field=value, …)` of a named tuple or a dataclass, whose `__repr__` it can be; of tensors see `_brief`."""
    names = getattr(self, "_fields", None) or [field.name for field in dataclasses.fields(self) if field.repr]
    return f"{type(self).__name__}({', '.join(f'{name}={_brief(getattr(self, name))}' for name in names)})"


def arguments_repr(self: nn.Module) -> str:
    """The constructor arguments of a module that are numbers or strings, whose `extra_repr` it can be."""
    kept = {name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters}
    simple = {name: value for name, value in kept.items() if isinstance(value, (bool, int, float, str, tuple))}
    return ", ".join(f"{name}={value!r}" for name, value in simple.items())


def _brief(value: Any) -> str:
    """A tensor's dtype and shape, of figures per datum their mean too; of functions and modules the name."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        # A meta tensor has no values, and those of images would say little.
        told = value.is_floating_point() and value.dim() <= 2 and value.numel() and value.device.type != "meta"
        mean = f", mean {float(value.detach().double().mean()):.4g}" if told else ""
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{mean}{where}>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_brief(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (nn.Module, torch.distributions.Distribution)):
        return type(value).__name__
    if callable(value) and not dataclasses.is_dataclass(value):
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)
