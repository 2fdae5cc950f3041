"""Checkpoints: the state of named parts in one file, written atomically and read with `weights_only=True`."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ppl_models import UsageError
from runners.loop import processes
from runners.loop.atomic import write_atomically
from runners.loop.errors import first_line

__all__ = ["OfRank", "Part", "digest", "load_checkpoint", "read_checkpoint", "save_checkpoint"]


class Part(Protocol):
    """Anything with a state of tensors, numbers, strings, lists and dicts."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take a state over."""


class OfRank:
    """A part that each of several processes has its own of: its state is that of all of them, in their order.

    Where a state is of another number of processes, the part stays as it is.
    """

    def __init__(self, part: Part) -> None:
        self.part = part

    def state_dict(self) -> dict[str, Any]:
        own = self.part.state_dict()
        return own if processes.count() == 1 else {"ranks": processes.gathered(own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        states = state.get("ranks", [state])
        if len(states) == processes.count():
            self.part.load_state_dict(states[processes.rank()])


def digest(*modules: nn.Module) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of modules' states: equal where they are, bit for bit."""
    made = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            made.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()[:12]


def save_checkpoint(path: Path, parts: dict[str, Part]) -> None:
    """Write the parts' states to `path`, whole or not at all; of several processes all ask, and rank 0 writes."""
    states = {name: part.state_dict() for name, part in parts.items()}
    if processes.rank() == 0:
        write_atomically(path, lambda file: torch.save(states, file))


def read_checkpoint(path: Path, *, device: torch.device) -> dict[str, Any]:
    """The states in `path`, by part.

    Raises:
        UsageError: The file is not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the sums
        if damaged:
            raise UsageError(f"{path}: not a readable checkpoint ({damaged} is damaged)")
        states = torch.load(path, map_location=device, weights_only=True)
    except UsageError:
        raise
    except Exception as error:  # bytes that somebody changed can raise anything in a zip and pickle reader
        raise UsageError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if not isinstance(states, dict):
        raise UsageError(f"{path}: holds a {type(states).__name__}, expected the states of a checkpoint")
    return states


def load_checkpoint(path: Path, parts: dict[str, Part], *, device: torch.device) -> None:
    """Give the parts the states in `path`.

    Raises:
        UsageError: The file is not a checkpoint, or one of other parts.
    """
    states = read_checkpoint(path, device=device)
    if set(states) != set(parts):
        raise UsageError(f"{path}: a checkpoint of {sorted(states)}, expected one of {sorted(parts)}")
    for name, part in parts.items():
        try:
            part.load_state_dict(states[name])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: its '{name}' does not fit this run ({first_line(error)})") from error
