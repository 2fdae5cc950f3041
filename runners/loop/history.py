"""What a run's steps returned: a row of means at each logging interval, and the last thousand steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["WINDOW", "Diverged", "History"]

WINDOW = 1000
"""Steps that a final training figure averages over."""


class Diverged(UsageError):
    """A step returned a number that is not finite; `step` says which."""

    def __init__(self, step: int, name: str) -> None:
        super().__init__(f"'{name}' is not finite at step {step}")
        self.step = step


class History:
    """Scalars of each step, kept on the device and read only when a row is due.

    Args:
        averaged: What makes of the steps since the last row, `(steps, names)`, those of all processes.

    Attributes:
        step: Steps done.
        rows: One dict per logging interval, the means over it.
        seconds: Time spent in steps, resumed ones included.
    """

    def __init__(self, *, averaged: Callable[[Tensor], Tensor] | None = None) -> None:
        self.averaged = averaged
        self.step = self._settled = 0
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self._names: list[str] = []
        self._window: Tensor | None = None

    def __repr__(self) -> str:
        return f"History({self.step:,} steps, {len(self.rows):,} rows)"

    def record(self, scalars: dict[str, Tensor]) -> None:
        """Take in a step's scalars, without reading them."""
        self._names = self._names or list(scalars)
        # By name: what was resumed may have been written in another order.
        values = torch.stack([scalars[name].detach() for name in self._names])
        if self._window is None:
            self._window = torch.zeros(WINDOW, len(values), dtype=values.dtype, device=values.device)
        self._window[self.step % WINDOW].copy_(values)
        self.step += 1

    def log(self) -> dict[str, float]:
        """Add and return a row: the means over the steps since the last one.

        Raises:
            Diverged: One of those steps returned NaN or infinity.
        """
        self.rows.append({"step": self.step, **self.check(), "seconds": round(self.seconds, 2)})
        return self.rows[-1]

    def check(self) -> dict[str, float]:
        """The means over the steps since the last row, none where there are none.

        Raises:
            Diverged: One of those steps returned NaN or infinity.
        """
        self._settle()
        count = min(self.step - int(self.rows[-1]["step"] if self.rows else 0), WINDOW)
        means = self._mean(count) if count else {}
        if not all(math.isfinite(value) for value in means.values()):
            step, name = (~self._last(count).isfinite()).nonzero()[0].tolist()
            raise Diverged(self.step - count + step, self._names[name])
        return means

    def final(self) -> dict[str, float]:
        """Means over the last 1000 steps, or all of them where there were fewer."""
        return self.recent(WINDOW)

    def recent(self, count: int) -> dict[str, float]:
        """Means over the last `count` steps, 1000 at most; of several processes, since the last row this one's own."""
        count = min(count, self.step, WINDOW)
        return self._mean(count) if count else {}

    def state_dict(self) -> dict[str, Any]:
        kept = {"step": self.step, "seconds": self.seconds, "rows": self.rows}
        return kept | {"names": self._names, "window": self._window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self._settled = self.step
        self._names, self._window = state["names"], state["window"]

    def _settle(self) -> None:
        """Once a row, not at each step, put what all processes found in place of what this one did."""
        count = min(self.step - self._settled, WINDOW)
        if count and self.averaged is not None:
            self._window.index_copy_(0, self._places(count), self.averaged(self._last(count)))
        self._settled = self.step

    def _last(self, count: int) -> Tensor:
        """The last `count` steps, oldest first, `(count, names)`."""
        return self._window.index_select(0, self._places(count))

    def _places(self, count: int) -> Tensor:
        """Where they are in the window."""
        return (torch.arange(self.step - count, self.step) % WINDOW).to(self._window.device)

    def _mean(self, count: int) -> dict[str, float]:
        # In double precision, so that a row does not depend on the order of summation.
        means = self._last(count).double().mean(0).tolist()
        return dict(zip(self._names, means, strict=True))
