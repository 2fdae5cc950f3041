"""Where in a run a figure was smallest, and what was trained there."""

import math
from typing import Any

from torch import Tensor, nn

__all__ = ["Best"]


class Best:
    """The state of a module at the smallest figure so far, and the figure at each look.

    Args:
        figure: What the figure is called.

    Attributes:
        rows: For each look `step`, the figure, by its name, and what was taken in beside it.
        state: The module's state at the smallest, and `None` before the first look.
    """

    def __init__(self, figure: str) -> None:
        self.figure = figure
        self.rows: list[dict[str, float]] = []
        self.state: dict[str, Tensor] | None = None

    def take(self, found: float, module: nn.Module, *, step: int, **beside: float) -> None:
        """Take in what the figure is after so many steps, and what else is to be in the row."""
        if self.state is None or found < self._of(self._first()):
            self.state = {name: value.clone() for name, value in module.state_dict().items()}
        self.rows.append({"step": step, self.figure: found, **beside})

    @property
    def step(self) -> int:
        """The step of the best, 0 before the first look."""
        return int(self._first()["step"]) if self.rows else 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.state = state["rows"], state["best"]

    def _first(self) -> dict[str, float]:
        """The look at which the figure was smallest."""
        return min(self.rows, key=self._of)

    def _of(self, row: dict[str, float]) -> float:
        """Its figure; one that is no number is worse than any."""
        return row[self.figure] if math.isfinite(row[self.figure]) else math.inf
