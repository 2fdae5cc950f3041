"""Chains along a path of tempered densities: the temperatures, tuned and frozen step sizes, and the weights."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from guides.hmc import Path, Point, transition
from ppl_models.batch import UsageError

__all__ = ["Annealing", "Progress", "StepSizes", "anneal", "tune"]

Progress = Callable[[Any], Iterable[int]]
"""Wraps a range, as `tqdm` does."""

WARM_UP = 30
"""Transitions at the base with which tuning begins."""

TUNING = 200
"""Transitions along the path in which step sizes are tuned."""

KNOTS = 20
"""Means of step sizes that are kept of those, a divisor of their number; between them sizes are interpolated."""


@dataclass(frozen=True)
class Annealing:
    r"""How chains go from the base to the posterior.

    With the fraction :math:`u = t / T` of the way, `"linear"` is :math:`\beta = u` and `"sigmoid"` is
    :math:`\sigma(4 (2 u - 1))`, moved and stretched to begin at 0 and end at 1 (Wu et al. 2017, arXiv:1611.04273).

    Args:
        temperatures: Steps of β from 0 to 1, T; with 1 this is importance sampling from the base.
        chains: Independent chains per datum, K.
        leapfrog: Steps of a Hamiltonian trajectory.
        schedule: How β grows.
        acceptance: The share of accepted proposals that step sizes are tuned to.
    """

    temperatures: int = 1000
    chains: int = 8
    leapfrog: int = 10
    schedule: Literal["sigmoid", "linear"] = "sigmoid"
    acceptance: float = 0.65

    def __post_init__(self) -> None:
        if min(self.temperatures, self.chains, self.leapfrog) < 1:
            raise UsageError(
                f"Annealing: found {self.temperatures} temperatures, {self.chains} chains and {self.leapfrog} leapfrog "
                "steps, expected 1 or more of each"
            )
        if self.schedule not in ("sigmoid", "linear"):
            raise UsageError(f"Annealing: found schedule {self.schedule!r}, expected sigmoid or linear")
        if not 0 < self.acceptance < 1:
            raise UsageError(f"Annealing: found acceptance {self.acceptance}, expected a number between 0 and 1")

    def beta(self, fraction: float) -> float:
        """β at a fraction of the way, both from 0 to 1."""
        if self.schedule == "linear":
            return fraction
        first, here, last = (1 / (1 + math.exp(-4 * (2 * u - 1))) for u in (0.0, fraction, 1.0))
        return (here - first) / (last - first)


@dataclass(frozen=True, eq=False)
class StepSizes:
    """Step sizes along a path, frozen: log-linear between equally spaced knots.

    Attributes:
        log: Their logarithms at the middles of equal parts of the way, `(knots, batch, dimensions)`.
    """

    log: Tensor

    def at(self, fraction: float) -> Tensor:
        """The step sizes at a fraction of the way, `(batch, dimensions)`."""
        place = min(max(fraction * len(self.log) - 0.5, 0.0), len(self.log) - 1.0)
        knot = min(int(place), len(self.log) - 2)
        return torch.lerp(self.log[knot], self.log[knot + 1], place - knot).exp()


@pyro.validation_enabled(False)
def tune(path: Path, annealing: Annealing, *, progress: Progress = iter) -> StepSizes:
    r"""Step sizes that come near the acceptance that is asked for, from a run of their own along the path.

    A dimension's step is :math:`\epsilon / \sqrt{g}`, with the datum's :math:`\epsilon` driven by the acceptance of its
    chains and g a moving average of the squared gradient, which for a Gaussian is the diagonal of its precision. On
    PPCA with posteriors that are 1 to 30 times narrower than the prior, brackets were a quarter to a third narrower
    than with one size for all dimensions.
    """
    point = path.start()
    size = point.z.new_full(point.z.shape[1:2], 0.5).log()
    square = None
    kept = []
    for n in progress(range(WARM_UP + TUNING)):
        beta = annealing.beta((max(n - WARM_UP, 0) + 0.5) / TUNING)
        now = point.gradient(beta).nan_to_num(0.0, 0.0, 0.0).square().mean(0)
        square = now if square is None else torch.lerp(square, now, 0.1)
        log_step = size.unsqueeze(-1) - 0.5 * square.clamp(min=1e-8).log()
        point, acceptance = transition(point, path, beta, log_step.exp(), leapfrog=annealing.leapfrog)
        size = size + 0.5 * (acceptance.mean(0) - annealing.acceptance)
        kept.append(log_step)
    return StepSizes(torch.stack(kept[WARM_UP:]).unflatten(0, (KNOTS, -1)).mean(1))


@pyro.validation_enabled(False)
def anneal(
    path: Path,
    point: Point,
    steps: StepSizes | None,
    annealing: Annealing,
    *,
    reverse: bool = False,
    progress: Progress = iter,
) -> tuple[Tensor, Tensor]:
    """Run chains along a path, from draws of the base forward or from draws of the posterior in reverse.

    The weight comes before the transition, and none follows the last one, where it would change nothing: so the
    reverse is the same loop with the temperatures in reverse order.

    Returns:
        The log-weights, `(chains, batch)` in float64, of p(x) or in reverse of 1 / p(x), and the mean acceptance
        probability over chains and temperatures, `(batch,)`.
    """
    fractions = [t / annealing.temperatures for t in range(annealing.temperatures + 1)]
    if reverse:
        fractions.reverse()
    log_weight = torch.zeros_like(point.ratio, dtype=torch.float64)
    rejected = torch.zeros_like(point.ratio[0], dtype=torch.float64)
    for t in progress(range(annealing.temperatures)):
        here, there = fractions[t], fractions[t + 1]
        log_weight = log_weight + (annealing.beta(there) - annealing.beta(here)) * point.ratio.double()
        if t < annealing.temperatures - 1:
            point, acceptance = transition(
                point, path, annealing.beta(there), steps.at(there), leapfrog=annealing.leapfrog
            )
            rejected = rejected + (1 - acceptance.mean(0))
    return log_weight, 1 - rejected / max(annealing.temperatures - 1, 1)
