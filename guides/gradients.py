"""Estimators of the gradient of the ELBO by a guide's parameters, and how much they vary from draw to draw."""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from guides.iwae import importance_terms
from guides.sites import At, run_program
from guides.terms import terms, terms_of
from ppl_models.batch import Batch, UsageError

__all__ = ["ESTIMATORS", "Estimator", "Moments", "elbo_gradient", "moments"]

Estimator = Literal["closed-form", "pathwise", "stl", "score"]

ESTIMATORS: tuple[Estimator, ...] = ("closed-form", "pathwise", "stl", "score")


def elbo_gradient(
    model: Callable[[Batch], object],
    guide: nn.Module,
    batch: Batch,
    *,
    estimator: Estimator = "pathwise",
    particles: int = 1,
    baseline: Tensor | Literal["others"] | None = None,
) -> dict[str, Tensor]:
    r"""A draw of an unbiased estimate of :math:`\nabla_\phi E_{q_\phi(z \mid x)} f(z)`, a mean over the data.

    With :math:`f = \log p(x, z) - \log q_\phi(z \mid x)`, and :math:`z = g_\phi(\epsilon, x)`:

    - `"score"`: :math:`(f(z) - b) \nabla_\phi \log q_\phi(z \mid x)`, each datum with its own f; the latents need no
      derivative (Williams 1992, REINFORCE; Ranganath, Gerrish and Blei 2014, arXiv:1401.0118);
    - `"pathwise"`: :math:`\nabla_\phi f(g_\phi(\epsilon, x))` (Kingma and Welling 2014, arXiv:1312.6114);
    - `"closed-form"`: likewise, with KL divergences in closed form where they are known, as `ELBO` trains;
    - `"stl"`: as pathwise but without :math:`\nabla_\phi \log q_\phi(z)` at fixed z, whose mean is 0 (Roeder, Wu and
      Duvenaud 2017, arXiv:1703.09194): no noise where q is the posterior.

    A survey: Mohamed et al. 2020, arXiv:1906.10652.

    Args:
        model: The model.
        guide: The guide, a module with parameters.
        batch: The batch.
        estimator: Which one.
        particles: Samples of the latents per datum, K, of which the estimate is the mean.
        baseline: Of the score estimator, b: a number for each datum `(batch,)` that does not depend on these samples,
            `"others"`, the mean of f over a datum's other particles, or none.

    Returns:
        By the names of the guide's parameters; ascent, where losses are descended.

    Raises:
        UsageError: There is no such estimator, or the baseline is none of it or of a single particle.
    """
    if estimator not in ESTIMATORS:
        raise UsageError(f"estimator: found {estimator!r}, expected {', '.join(ESTIMATORS)}")
    if baseline is not None and estimator != "score":
        raise UsageError(f"baseline: changes nothing for the estimator {estimator}, only for score")
    if isinstance(baseline, str) and (baseline != "others" or particles < 2):
        raise UsageError(
            f"baseline: found {baseline!r} and {particles} particles, expected 'others' and two or more of them"
        )
    if estimator == "score":
        value = _score_surrogate(model, guide, batch, particles=particles, baseline=baseline)
    elif estimator == "stl":
        value = importance_terms(model, guide, batch, particles=particles, gradient="stl").elbo.mean()
    else:
        value = terms(model, guide, batch, particles=particles, closed_form=estimator == "closed-form").elbo.mean()
    trained = {name: parameter for name, parameter in guide.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(value, list(trained.values()), materialize_grads=True)
    return dict(zip(trained, found, strict=True))


def _score_surrogate(
    model: Callable[[Batch], object],
    guide: nn.Module,
    batch: Batch,
    *,
    particles: int,
    baseline: Tensor | Literal["others"] | None,
) -> Tensor:
    """A scalar whose gradient by the guide's parameters is the score-function estimate."""
    program = At(guide, guide.start(batch)) if hasattr(guide, "start") else guide
    shape = (particles, len(batch.index))
    with torch.no_grad():
        drawn = run_program(program, batch, particles=particles)
        values = {name: site.value for name, site in drawn.items()}
        generated = run_program(model, batch, values=values, particles=particles)
        weight = terms_of(drawn, generated, shape=shape, closed_form=False).elbo
        if isinstance(baseline, str):
            baseline = (weight.sum(0) - weight) / (particles - 1)
    inferred = run_program(program, batch, values=values, particles=particles)
    log_q = reduce(add, (site.log_prob(shape) for site in inferred.values()))
    return (log_q * (weight if baseline is None else weight - baseline)).mean()


class Moments(NamedTuple):
    """What repeated draws of a gradient come to, in float64.

    Attributes:
        mean: Of each parameter's gradient, `(parameters,)`.
        variance: Likewise, unbiased; its sum is the trace of the covariance.
        along: Each draw's component along a direction, `(draws,)`, where one was given.
        draws: How many.
    """

    mean: Tensor
    variance: Tensor
    along: Tensor
    draws: int

    @property
    def trace(self) -> Tensor:
        """The trace of the covariance, the mean squared distance of a draw from the mean."""
        return self.variance.sum()

    @property
    def signal(self) -> Tensor:
        r"""The squared length of the mean without what noise adds, :math:`\|\bar g\|^2 - \mathrm{tr}/n`."""
        return self.mean.square().sum() - self.trace / self.draws


def moments(
    gradient: Callable[[], dict[str, Tensor]], *, draws: int, direction: Tensor | None = None, seed: int = 0
) -> Moments:
    """Draw a gradient again and again, and keep its moments (Welford's recursion, so that no draw is kept).

    Args:
        gradient: From the global random state to a draw, such as `partial(elbo_gradient, model, guide, batch)`.
        draws: How many, two or more.
        direction: Along which each draw's component is kept, `(parameters,)`, of any length but 0.
        seed: Of the noise. The global random state moves on: fork it where that matters.

    Raises:
        UsageError: There are fewer than two draws.
    """
    if draws < 2:
        raise UsageError(f"draws: found {draws}, expected 2 or more, between which a gradient can vary")
    torch.manual_seed(seed)
    mean = squares = torch.zeros((), dtype=torch.float64)
    along = []
    for count in range(1, draws + 1):
        drawn = torch.cat([value.flatten() for value in gradient().values()]).double()
        distance = drawn - mean
        mean = mean + distance / count
        squares = squares + distance * (drawn - mean)
        if direction is not None:
            along.append(drawn @ (direction / direction.norm()))
    return Moments(mean, squares / (draws - 1), torch.stack(along) if along else mean.new_zeros(0), draws)
