"""Which of a run's generators was the best, as a classifier sees it that no report uses."""

from typing import Any

from torch import Tensor, nn

from ppl_models import UsageError
from runners.best import Best
from runners.metrics.classifiers import Trained
from runners.metrics.distances import frechet_distance, kernel_distance

__all__ = ["Selection"]


class Selection(Best):
    """The generator of the smallest distance so far, and the distance at each look.

    A figure that is reported must come from other features: the best of many looks is flattered on its own. It is the
    Fréchet distance or, of images too few for that, the kernel distance.

    Attributes:
        about: What is known of the classifier whose features these are, once there is one.
        real: Features of real images, `(N, d)`, or `None` before.
    """

    def __init__(self) -> None:
        super().__init__("frechet_distance")
        self.about: dict[str, Any] = {}
        self.real: Tensor | None = None

    def judge_by(self, classifier: Trained, images: Tensor) -> None:
        """Look at generators by this classifier, beside these real images, from now on.

        Raises:
            UsageError: Those before were looked at by another one, whose distances do not compare.
        """
        if self.about and self.about["hash"] != classifier.hash:
            raise UsageError(
                f"selection: the best so far was chosen by the classifier {self.about['hash']}, found "
                f"{classifier.hash}, in whose features distances do not compare"
            )
        if not self.about:
            self.about = {name: value for name, value in classifier._asdict().items() if name != "network"}
        self.features = classifier.network.to(images.device).features
        self.real = self.features(images)
        self.figure = "frechet_distance" if len(self.real) >= 2 * self.real.shape[1] else "kernel_distance"

    def look(self, generator: nn.Module, images: Tensor, *, step: int, **beside: float) -> None:
        """Take in what a generator has come to after so many steps, by as many images as there are real ones."""
        made = self.features(images)
        if self.figure == "frechet_distance":
            found = frechet_distance(self.real, made)
        else:
            found = kernel_distance(self.real, made, size=len(made) // 2).mean
        self.take(found, generator, step=step, **beside)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"about": self.about, "figure": self.figure}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.about, self.figure = state["about"], state["figure"]
