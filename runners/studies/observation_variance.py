"""What does the observation variance σ² do to reconstructions, codes and samples, set low, set high and learned?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from runners import figures
from runners.data import head
from runners.pictures import reconstructions
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 9)

VARIANCES = (0.001, 0.01, 0.03, 0.1, 1.0)
LEARNED = "learned"
SHOWN = 10
"""Images in a row."""


def runs(*, quick: bool) -> dict[str, Point]:
    """A Gaussian likelihood at each variance, and one that learns it; of photographs S8's deep networks."""
    shared = {"guide": "amortized", "likelihood": "gaussian", "steps": 300 if quick else 3000}
    shared |= {"model": "mlp"} if quick else {}
    settings = {f"{variance:g}": {"sigma2": variance} for variance in VARIANCES}
    settings[LEARNED] = {"sigma2": 0.05, "learn_sigma2": True}
    # A few hundred photographs are soon learned by heart.
    photographs = {"preset": "s8", "model": "deep", "pictures": 0, "steps": 20 if quick else 600}
    return {
        name: of_svi(**shared, **own)._replace(photographs=photographs | {"learn_sigma2": False} | own)
        for name, own in settings.items()
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The bound and its parts at each variance, reconstructions and samples."""
    size = math.prod(next(iter(made.values())).fit.data.shape)
    table = [_row(name, one.result, size) for name, one in made.items()]
    return Answer(table, {"observation_variance": _picture(made)}, [_ends(table), _learned(table), _even(table)])


def _row(name: str, result: Mapping[str, Any], size: int) -> dict[str, Any]:
    r"""A run's figures; with the variance at its error, E log p(x|z) is :math:`-\frac d2 (1 + \log 2 \pi e)`."""
    test, gaussian = result["test"], result["gaussian"]
    error = gaussian["test_squared_error"]
    return {
        "run": name,
        "variance": gaussian["variance"],
        "course_variance": gaussian["course_sigma2"],
        **{name: test[name] for name in ("elbo", "elbo_se", "kl") if name in test},
        "squared_error": error,
        "error_in_training": gaussian["train_squared_error"],
        "elbo_at_its_error": -size / 2 * (1 + math.log(2 * math.pi * error)) - test["kl"],
        "course_loss": gaussian["course_loss"],
        "seconds": result["seconds"],
    }


def _ends(table: Sequence[Mapping[str, Any]]) -> str:
    fixed = [row for row in table if row["run"] != LEARNED]
    least, most = fixed[0], fixed[-1]
    return (
        f"From σ² = {least['run']} to {most['run']} the KL goes from {least['kl']:.1f} to {most['kl']:.1f} nats and "
        f"the squared error per pixel of test images from {least['squared_error']:.4f} to {most['squared_error']:.4f}."
    )


def _learned(table: Sequence[Mapping[str, Any]]) -> str:
    learned = next(row for row in table if row["run"] == LEARNED)
    fixed = max((row for row in table if row is not learned), key=lambda row: row["elbo"])
    gap = learned["elbo"] - fixed["elbo"]
    # Of images in pairs it would be less: what is hard for one is hard for the other.
    error = math.hypot(learned.get("elbo_se", 0.0), fixed.get("elbo_se", 0.0))
    nothing = ", which means nothing" if abs(gap) < 2 * error else ""
    return (
        f"Learned, it ends at {learned['variance']:.4f}, where the squared error is "
        f"{learned['error_in_training']:.4f} in training and {learned['squared_error']:.4f} on test images; the test "
        f"ELBO is then {gap:+.1f} nats from that "
        f"of the best fixed one, {fixed['run']} (standard error at most {error:.1f}{nothing})."
    )


def _even(table: Sequence[Mapping[str, Any]]) -> str:
    best = max(table, key=lambda row: row["elbo_at_its_error"])
    which = "learned" if best["run"] == LEARNED else f"trained at {best['run']}"
    return (
        "With each run's variance set to its own squared error on the test images, so that only the codes and the "
        f"means count, the largest ELBO is {best['elbo_at_its_error']:.1f}, of the run {which}."
    )


def _picture(made: Mapping[str, Made]) -> Figure:
    """Test images, their reconstructions by each run, and samples of each."""
    batch = head(next(iter(made.values())).fit.data.test, SHOWN)
    again, samples = {"data": batch.x}, {}
    for name, one in made.items():
        label = "learned σ²" if name == LEARNED else f"σ² = {name}"
        again[label] = reconstructions(one.fit, batch)
        samples[f"samples, {label}"] = one.fit.samples(len(batch.x))
    return figures.filmstrips([again, samples])
