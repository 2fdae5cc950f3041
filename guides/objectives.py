"""What inference minimises: values `objective(model, guide, batch) → (loss, Terms)`, in nats per datum."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

from guides.sites import Program, Site, run_program
from ppl_models.batch import Batch, UsageError

__all__ = ["ELBO", "Objective", "Schedule", "Terms", "terms"]

Schedule = Callable[[int, int], float]
"""A number as a function of the step n and of the number of steps N."""


class Terms(NamedTuple):
    """The parts of a bound, each `(particles, batch)`, in nats.

    Attributes:
        log_likelihood: log p(x given z).
        kl: KL(q(z given x) ‖ p(z)) where it is known in closed form, else the sampled log q(z given x) - log p(z).
        weighted: log p(x given z) - kl under the scales of the sites, for losses; the others are free of scales.
    """

    log_likelihood: Tensor
    kl: Tensor
    weighted: Tensor

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound's summands, `(particles, batch)`."""
        return self.log_likelihood - self.kl


Objective = Callable[[Program, Program, Batch], tuple[Tensor, Terms]]


def terms(
    model: Program,
    guide: Program,
    batch: Batch,
    *,
    particles: int = 1,
    weight: float | Tensor = 1.0,
    closed_form: bool = True,
) -> Terms:
    """Run guide and model once each and return the parts of the bound.

    Args:
        model: A Pyro program of one batch.
        guide: A Pyro program of the same batch with the same latent sites.
        batch: The batch, with its observations.
        particles: Samples of the latents per datum, K.
        weight: The scale that latent sites get, in model and guide.
        closed_form: Whether a KL divergence that torch knows is used instead of the sampled one.

    Raises:
        UsageError: The sites of the pair do not match, a site has the wrong shape, or a latent has no density.
    """
    inferred = run_program(guide, batch, weight=weight, particles=particles)
    values = {name: site.value for name, site in inferred.items()}
    generated = run_program(model, batch, values=values, weight=weight, particles=particles)
    _check_pair(inferred, generated)
    shape = (particles, len(batch.index))
    log_likelihood = kl = weighted = next(iter(values.values())).new_zeros(shape)
    for name, site in generated.items():
        if site.is_observed:
            log_prob = site.log_prob(shape)
            log_likelihood = log_likelihood + log_prob
            weighted = weighted + site.weigh(log_prob)
            continue
        posterior = inferred[name]
        divergence = _closed_form(posterior, site) if closed_form else None
        if divergence is not None:
            divergence = posterior.per_datum(divergence, shape)
            kl = kl + divergence
            weighted = weighted - posterior.weigh(divergence)
        else:
            log_q, log_p = posterior.log_prob(shape), site.log_prob(shape)
            kl = kl + log_q - log_p
            weighted = weighted - posterior.weigh(log_q) + site.weigh(log_p)
    return Terms(log_likelihood, kl, weighted)


def _check_pair(inferred: dict[str, Site], generated: dict[str, Site]) -> None:
    latents = {name for name, site in generated.items() if not site.is_observed}
    if not latents or latents != set(inferred):
        raise UsageError(
            f"the model's latent sites are {sorted(latents)}, the guide's are {sorted(inferred)}: they must be the "
            "same, and at least one"
        )
    if not any(site.is_observed for site in generated.values()):
        raise UsageError("the model observes nothing: pass obs=batch.x to its last pyro.sample")
    for name, site in inferred.items():
        base = getattr(site.fn, "base_dist", site.fn)
        if isinstance(base, Delta) or isinstance(site.fn, Delta):
            raise UsageError(f"site '{name}': the guide samples a Delta, which has no density and so no KL divergence")


def _closed_form(posterior: Site, prior: Site) -> Tensor | None:
    """KL(posterior ‖ prior), or None where torch does not know it."""
    try:
        return kl_divergence(posterior.fn, prior.fn)
    except NotImplementedError:
        return None


@dataclass
class ELBO:
    r"""The evidence lower bound, :math:`E_q \log p(x \mid z) - \beta\, KL(q(z \mid x) \| p(z))`.

    Kingma and Welling 2014, arXiv:1312.6114; with :math:`\beta \ne 1` Higgins et al. 2017, beta-VAE; with a schedule
    KL annealing, Bowman et al. 2016, arXiv:1511.06349. The weight acts as Pyro's scale on the latent sites.

    Args:
        kl_weight: β, a number, or a function of step n and steps N, filled in by `before_step`.
        particles: Samples of the latents per datum.
        closed_form: Whether known KL divergences replace sampled ones.
    """

    kl_weight: float | Schedule = 1.0
    particles: int = 1
    closed_form: bool = True
    _scheduled: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def before_step(self, step: int, steps: int, device: torch.device) -> None:
        """Put the schedule's value for this step where the device finds it: the step itself reads no host numbers."""
        if callable(self.kl_weight):
            if self._scheduled is None or self._scheduled.device != device:
                self._scheduled = torch.zeros((), device=device)
            self._scheduled.fill_(self.kl_weight(step, steps))

    def __call__(self, model: Program, guide: Program, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss (the negative weighted bound, mean over particles and data) and its parts."""
        weight = self.kl_weight
        if callable(weight):
            if self._scheduled is None:
                raise UsageError("the KL weight is a schedule: call before_step(step, steps, device) first")
            weight = self._scheduled
        parts = terms(model, guide, batch, particles=self.particles, weight=weight, closed_form=self.closed_form)
        return -parts.weighted.mean(), parts
