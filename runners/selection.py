"""Which of a run's generators was the best, as a classifier sees it that no report uses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from runners.metrics.fidelity import frechet_distance

__all__ = ["Selection"]


class Selection:
    """The generator of the smallest Fréchet distance so far, and the distance at each look.

    A figure that is reported must come from other features: the best of many looks is flattered on its own.

    Args:
        features: From images to `(N, d)`.
        real: Features of real images, `(N, d)`.

    Attributes:
        rows: For each look `step` and `frechet_distance`.
        best: The generator's state at the smallest, and `None` before the first look.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], real: Tensor) -> None:
        self.features, self.real = features, real
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None

    def look(self, generator: nn.Module, images: Tensor, *, step: int) -> None:
        """Take in what a generator has come to after so many steps, by as many images as there are real ones."""
        distance = float(frechet_distance(self.real, self.features(images)))
        if not self.rows or distance < min(row["frechet_distance"] for row in self.rows):
            self.best = {name: value.clone() for name, value in generator.state_dict().items()}
        self.rows.append({"step": step, "frechet_distance": distance})

    @property
    def step(self) -> int:
        """The step of the best, 0 before the first look."""
        return int(min(self.rows, key=lambda row: row["frechet_distance"])["step"]) if self.rows else 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.best = state["rows"], state["best"]
