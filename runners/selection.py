"""Which of a run's generators was the best, as a classifier sees it that no report uses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from runners.metrics.distances import frechet_distance, kernel_distance

__all__ = ["Selection"]


class Selection:
    """The generator of the smallest distance so far, and the distance at each look.

    A figure that is reported must come from other features: the best of many looks is flattered on its own.

    Args:
        features: From images to `(N, d)`.
        real: Features of real images, `(N, d)`.
        about: What is known of the classifier that they are of, its `hash` above all.

    Attributes:
        distance: Which one: the Fréchet distance or, of images too few for that, the kernel distance.
        rows: For each look `step` and that distance, by its name.
        best: The generator's state at the smallest, and `None` before the first look.
    """

    def __init__(
        self, features: Callable[[Tensor], Tensor], real: Tensor, *, about: dict[str, Any] | None = None
    ) -> None:
        self.features, self.real, self.about = features, real, dict(about or {})
        self.distance = "frechet_distance" if len(real) >= 2 * real.shape[1] else "kernel_distance"
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None

    def look(self, generator: nn.Module, images: Tensor, *, step: int) -> None:
        """Take in what a generator has come to after so many steps, by as many images as there are real ones."""
        made = self.features(images)
        if self.distance == "frechet_distance":
            found = frechet_distance(self.real, made)
        else:
            found = kernel_distance(self.real, made, size=len(made) // 2).mean
        if not self.rows or found < min(row[self.distance] for row in self.rows):
            self.best = {name: value.clone() for name, value in generator.state_dict().items()}
        self.rows.append({"step": step, self.distance: found})

    @property
    def step(self) -> int:
        """The step of the best, 0 before the first look."""
        return int(min(self.rows, key=lambda row: row[self.distance])["step"]) if self.rows else 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "about": self.about}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["about"] != self.about:  # distances in other features do not compare
            raise ValueError(f"chosen so far by the classifier {state['about']}, found {self.about}")
        self.rows, self.best = state["rows"], state["best"]
