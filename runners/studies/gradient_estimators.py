"""How much do estimates of the encoder's gradient vary, through the samples and by the score function?"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from guides import terms
from guides.gradients import Moments, elbo_gradient, moments
from runners import figures
from runners.data import head
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 7)

IMAGES = 20
SAMPLES = 100
"""Samples of each image from which its baseline is estimated, none of them used again."""

REFERENCE = 16
"""Particles of the draws whose mean is taken for the gradient itself."""

ESTIMATORS: dict[str, dict[str, Any]] = {
    "pathwise, closed-form KL": {"estimator": "closed-form"},
    "pathwise": {"estimator": "pathwise"},
    "sticking the landing": {"estimator": "stl"},
    "score": {"estimator": "score"},
    "score, baseline": {"estimator": "score", "baseline": "given"},
    "score, others' mean": {"estimator": "score", "baseline": "others"},
}


class Measured(NamedTuple):
    """What was drawn at a stage of training.

    Attributes:
        moments: By estimator and number of particles.
        signal: The squared length of the gradient itself.
        unit: The gradient's component along the direction that components of draws are along, the noisy mean of others.
    """

    moments: dict[tuple[str, int], Moments]
    signal: float
    unit: float


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder hardly trained, trained a little, and trained."""
    steps, shared = ((1, 300), {"model": "mlp"}) if quick else ((1, 300, 3000), {})
    return {f"{count} step{'s' * (count > 1)}": of_svi(guide="amortized", steps=count, **shared) for count in steps}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The variance of each estimator at each stage, and at the last against the number of particles."""
    draws, particles = 40 if quick else 200, (1, 4, 16)
    # By what they came to: --steps may have been typed.
    made = {f"{one.fit.history.step:,} step{'s' * (one.fit.history.step > 1)}": one for one in made.values()}
    last = list(made)[-1]
    found = {name: _measured(one, draws, particles if name == last else particles[:1]) for name, one in made.items()}
    table = [row for stage, one in found.items() for row in _rows(stage, one)]
    by, _, unit = found[last]
    variances = {
        name: {count: float(each.trace) for (other, count), each in by.items() if other == name} for name in ESTIMATORS
    }
    components = {name: each.along / unit for (name, count), each in by.items() if count == 1}
    said = f"The encoder's gradient after {last}: {IMAGES} images, {draws} draws"
    picture = figures.gradients(variances, components, title=said)
    return Answer(table, {"gradient_estimators": picture}, _finding(table, variances))


def _measured(one: Made, draws: int, particles: Sequence[int]) -> Measured:
    """The moments of each estimator on the first training images, the model as it is."""
    fit = one.fit
    batch = head(fit.data.train, IMAGES)
    with fit.aside():
        given = terms(fit.model, fit.guide, batch, particles=SAMPLES, closed_form=False).elbo.mean(0)
        with torch.enable_grad():
            gradient = partial(elbo_gradient, fit.model, fit.guide, batch)
            reference = moments(partial(gradient, estimator="closed-form", particles=REFERENCE), draws=draws, seed=1)
            found = {}
            for name, how in ESTIMATORS.items():
                baseline = {"given": given, "others": "others"}.get(how.get("baseline", ""))
                drawn = partial(gradient, **how | {"baseline": baseline})
                for count in particles:
                    if count > 1 or how.get("baseline") != "others":
                        drawing = partial(drawn, particles=count)
                        found[name, count] = moments(drawing, draws=draws, direction=reference.mean)
    length = float(reference.mean.norm())
    signal = float(reference.signal) if reference.signal > 0 else length**2  # where noise is all that there is
    return Measured(found, signal, signal / length)


def _rows(stage: str, one: Measured) -> list[dict[str, Any]]:
    """The estimators with one particle: how far draws are from the gradient, and whether their mean is."""
    pathwise = one.moments["pathwise", 1].trace
    rows = []
    for (name, count), each in one.moments.items():
        if count == 1:
            along = each.along / one.unit
            rows.append(
                {
                    "stage": stage,
                    "estimator": name,
                    "variance": float(each.trace),
                    "times_pathwise": float(each.trace / pathwise),
                    "times_squared_gradient": float(each.trace) / one.signal,
                    "mean_along": float(along.mean()),
                    "mean_along_se": float(along.std() / len(along) ** 0.5),
                }
            )
    return rows


def _finding(table: Sequence[Mapping[str, Any]], variances: Mapping[str, Mapping[int, float]]) -> list[str]:
    by = {(row["stage"], row["estimator"]): row for row in table}
    stages = list(dict.fromkeys(row["stage"] for row in table))

    def ratios(name: str) -> str:
        return ", ".join(f"{by[stage, name]['times_pathwise']:,.3g} after {stage}" for stage in stages)

    last = {name: by[stages[-1], name] for name in ESTIMATORS if (stages[-1], name) in by}
    noise = {name: f"{row['times_squared_gradient']:,.3g}" for name, row in last.items()}
    ratio = {name: f"{row['times_pathwise']:.2g}" for name, row in last.items()}
    biased = [row for row in table if not abs(row["mean_along"] - 1) <= 3 * row["mean_along_se"]]
    falls = "; ".join(
        f"{name} ÷ {traces[min(traces)] / traces[max(traces)]:.3g} from {min(traces)} to {max(traces)} particles"
        for name, traces in variances.items()
        if len(traces) > 1
    )
    return [
        f"With one sample the score function's variance is that of the pathwise gradient times {ratios('score')}; with "
        f"each image's mean as its baseline times {ratios('score, baseline')}.",
        f"After {stages[-1]} the variance is {noise['pathwise']} times the squared length of the gradient itself by "
        f"the pathwise estimator, {noise['score']} times by the score; the KL in closed form makes the former "
        f"{ratio['pathwise, closed-form KL']} times as large, leaving out the score term "
        f"{ratio['sticking the landing']} times.",
        f"In theory none has a bias: along the gradient the mean of {len(table) - len(biased)} of the table's "
        f"{len(table)} rows is within three standard errors of it.",
        f"More particles (variance: {falls}) make up for some of that at their own price; independent samples divide "
        "it by their number.",
    ]
