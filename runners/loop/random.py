"""Random states that a run owns, so that nothing between two of its steps can change its numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["RandomState", "forked"]


class RandomState:
    """The state of torch's generators on the CPU and, where it is used, one CUDA device.

    Args:
        seed: Where it starts.
        device: The device that the run computes on.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self._active = False
        with forked(seed, device):
            self._state = _capture(device)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the global state for a while; the caller's own comes back afterwards."""
        outer = _capture(self.device)
        _restore(self._state, self.device)
        self._active = True
        try:
            yield
        finally:
            self._active = False
            self._state = _capture(self.device)
            _restore(outer, self.device)

    def state_dict(self) -> dict[str, Tensor]:
        return _capture(self.device) if self._active else self._state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._state = state
        if self._active:
            _restore(state, self.device)


@contextmanager
def forked(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for pictures, evaluation and checks, and put the old state back afterwards."""
    outer = _capture(device)
    # Not torch.manual_seed, which would seed every other CUDA device as well.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    try:
        yield
    finally:
        _restore(outer, device)


def _capture(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
