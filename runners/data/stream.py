"""Shuffled batches without end, resumable to the same bits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_models.batch import Batch, UsageError

__all__ = ["Stream"]


class Stream:
    """An endless iterator of shuffled batches; each epoch is reshuffled and drops its last partial batch.

    The order comes from a generator on the host, so it does not depend on the device and can be saved; it travels
    to the device once an epoch, and no batch waits for the host.

    Attributes:
        size: Data in a batch.
        steps_per_epoch: Batches in an epoch.
        epoch: The epoch, from 0, that the latest batch belongs to.
    """

    def __init__(
        self,
        gather: Callable[[Tensor], Batch],
        length: int,
        size: int,
        *,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        """Shuffle the rows `0 … length - 1`, from which `gather(rows)` makes a batch on `device`.

        `generator` lives on the host; without one the order is that of a generator seeded with 0.

        Raises:
            UsageError: `size` is not within 1 … `length`.
        """
        if not 1 <= size <= length:
            raise UsageError(f"batch size: found {size}, expected 1 to {length}, the data in this split")
        self.size = size
        self.steps_per_epoch = length // size
        self.epoch = 0
        self._gather = gather
        self._length = length
        self._device = device
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._shuffle()

    def __repr__(self) -> str:
        return f"Stream(batches of {self.size}, {self.steps_per_epoch:,} an epoch, in epoch {self.epoch})"

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        if self._position + self.size > self._length:
            self._shuffle()
            self.epoch += 1
        rows = self._rows[self._position : self._position + self.size]
        self._position += self.size
        return self._gather(rows)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as tensors and integers that `torch.load(weights_only=True)` reads."""
        return {
            "permutation": self._rows.to("cpu", torch.int32),
            "position": self._position,
            "epoch": self.epoch,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            UsageError: The state was taken from a split of another length.
        """
        length = len(state["permutation"])
        if length != self._length:
            raise UsageError(f"checkpoint: found a shuffle of {length} data, expected {self._length}, this split's")
        self._rows = state["permutation"].to(self._device, torch.int64)
        self._position = state["position"]
        self.epoch = state["epoch"]
        # A checkpoint may have been loaded straight to another device; a generator's state must lie on the host.
        self._generator.set_state(state["generator"].cpu())

    def _shuffle(self) -> None:
        self._rows = torch.randperm(self._length, generator=self._generator).to(self._device)
        self._position = 0
