"""What a step does that a CUDA graph cannot hold: waits, numbers of the host, tensors in the place of others."""

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Fixed", "Scalars", "Work", "numbers", "tensors", "watched"]

Scalars = dict[str, Tensor]
Work = Callable[[], Scalars]


def watched(work: Work, *, device: torch.device) -> tuple[Scalars, str | None]:
    """Do work; returns what it returns, and what a graph on that CUDA device cannot hold of what it did, if anything.

    That is: to wait for the device, to draw random numbers on the host, or to read memory and then give it up for
    other memory that the next step would read, as `self.mean = 0.9 * self.mean + x` does.
    """
    state, reads, mode = torch.get_rng_state(), _Reads(device), torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with reads:
                found = work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    waits = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
    for warning in caught:
        # Of the mode itself torch warns as well, that it does not see everything.
        if warning not in waits and "Synchronization debug mode" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if waits:
        return found, f"the host waits for the device at {Path(waits[0].filename).name}:{waits[0].lineno}"
    if not torch.equal(state, torch.get_rng_state()):
        return found, "random numbers are drawn on the host"
    if reads.given_up():
        return found, f"a tensor is read ({reads.given_up()}) and then replaced, expected an update in place"
    return found, None


class _Reads(TorchDispatchMode):
    """The memory of a device that operations read and did not allocate themselves."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self._made: set[int] = set()
        self._read: dict[int, tuple[weakref.ref[torch.UntypedStorage], str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in self._storages((args, kwargs)):
            if func is torch.ops.aten.lift_fresh.default:  # how a tensor of Python numbers first shows itself
                self._made.add(storage._cdata)
            elif storage._cdata not in self._made:
                self._read.setdefault(storage._cdata, (weakref.ref(storage), func.__name__))
        found = func(*args, **kwargs)
        self._made.update(s._cdata for s in self._storages(found) if s._cdata not in self._read)
        return found

    def given_up(self) -> str | None:
        """The operation that read memory that is no more, if one did."""
        return next((name for storage, name in self._read.values() if storage() is None), None)

    def _storages(self, values: Any) -> Iterator[torch.UntypedStorage]:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.device == self.device:
                yield value.untyped_storage()


class Fixed(NamedTuple):
    """A Python number, and where it is kept."""

    kept: dict[str, Any]
    key: str
    number: float

    @property
    def changed(self) -> bool:
        """Whether there is another one now."""
        return self.kept.get(self.key) != self.number


def numbers(pieces: Mapping[str, Any]) -> dict[str, Fixed]:
    """The Python numbers among the attributes of pieces, their modules and optimisers' groups, by name."""
    kept: dict[str, dict[str, Any]] = {}
    for role, piece in pieces.items():
        if isinstance(piece, nn.Module):
            kept |= {name: vars(module) for name, module in piece.named_modules(prefix=role)}
        elif isinstance(piece, torch.optim.Optimizer):
            kept |= {f"{role}.param_groups[{i}]": group for i, group in enumerate(piece.param_groups)}
        else:
            kept[role] = getattr(piece, "__dict__", {})
    return {
        f"{name}.{key}": Fixed(where, key, value)
        for name, where in kept.items()
        for key, value in where.items()
        if isinstance(value, (bool, int, float))
    }


def tensors(pieces: Mapping[str, Any]) -> dict[str, int]:
    """Where the tensors among the attributes of pieces are, by name."""
    kept = {name: getattr(piece, "__dict__", {}) for name, piece in pieces.items()}
    return {f"{n}.{k}": v.data_ptr() for n, where in kept.items() for k, v in where.items() if isinstance(v, Tensor)}
