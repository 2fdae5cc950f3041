"""What tables of studies say of a finished run."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from runners.studies.point import Made

__all__ = ["at", "final", "milliseconds", "points"]


def final(made: Made) -> dict[str, Any]:
    """ELBO, log-likelihood and KL of the test images with standard errors, nats per image, and the seconds of training.

    Columns without their errors but for the ELBO's, so that a table fits a page.
    """
    test = made.result["test"]
    found = {name: test[name] for name in ("elbo", "elbo_se", "log_likelihood", "kl") if name in test}
    return found | {"seconds": made.result["seconds"]}


def milliseconds(made: Made) -> float:
    """What a step of training took."""
    return 1e3 * made.fit.history.seconds / made.fit.history.step


def points(made: Made, x: str, y: str = "elbo") -> list[tuple[float, float]]:
    """A figure of a run's history against the step or the seconds."""
    return [(row[x], row[y]) for row in made.fit.history.rows]


def at(rows: Sequence[Mapping[str, float]], x: str, value: float, y: str = "elbo") -> float | None:
    """What a figure of a run's history was when `x`, the step or the seconds, had come to `value`.

    On the straight line between two rows; there is nothing to say before the first row and after the last.
    """
    for row in rows:
        if row[x] == value:
            return row[y]
    for first, last in pairwise(rows):
        if first[x] < value < last[x]:
            share = (value - first[x]) / (last[x] - first[x])
            return first[y] + share * (last[y] - first[y])
    return None
