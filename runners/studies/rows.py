"""What tables and findings of studies say of finished runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from runners.studies.point import Made

__all__ = ["at", "final", "in_words", "listed", "milliseconds", "points", "tenths"]


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


def tenths(made: Made) -> dict[str, float]:
    """The mean KL of the first tenth of training and of the last, nats per image."""
    kl = [row["kl"] for row in made.fit.history.rows]
    count = max(len(kl) // 10, 1)
    return {"kl_in_first_tenth": sum(kl[:count]) / count, "kl_in_last_tenth": sum(kl[-count:]) / count}


def in_words(difference: float, error: float) -> str:
    """A paired difference with its standard error: how many nats more or less, or, within two errors, the same."""
    if math.isnan(error):  # of a single image
        return f"{difference:+.2f} nats"
    if not abs(difference) > 2 * error:
        return f"the same within noise ({difference:+.2f} ± {error:.2f} nats)"
    return f"{abs(difference):.2f} ± {error:.2f} nats {'more' if difference > 0 else 'less'}"


def listed(words: Iterable[str]) -> str:
    """Words with commas and an "and" between them, or none of them."""
    *others, last = list(words) or ["none of them"]
    return f"{', '.join(others)} and {last}" if others else last
