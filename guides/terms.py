"""The parts that every bound is made of, from one run of the guide and one of the model."""

from functools import reduce
from operator import add
from typing import NamedTuple

from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

from guides.families import gaussian_kl
from guides.sites import Program, Site, full_precision, run_program
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["Terms", "run_pair", "terms", "terms_of"]


class Terms(NamedTuple):
    """The parts of a bound, each `(particles, batch)`, in nats.

    Attributes:
        log_likelihood: log p(x given z).
        site_kl: By latent site, KL(q(z given x) ‖ p(z)) where it is known in closed form or stated by the guide, else
            the sampled log q(z given x) - log p(z).
        scaled_log_likelihood: The log-likelihood under the scales of the sites, for losses; what is reported is free
            of scales.
        scaled_kl: The sum of the KL terms under the scales of the sites, likewise; a closed form has the guide's, as
            in Pyro, a sampled one the guide's and the model's.
    """

    log_likelihood: Tensor
    site_kl: dict[str, Tensor]
    scaled_log_likelihood: Tensor
    scaled_kl: Tensor

    __repr__ = fields_repr

    @property
    def kl(self) -> Tensor:
        """The KL terms of all latent sites together, `(particles, batch)`."""
        return reduce(add, self.site_kl.values())

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound's summands, `(particles, batch)`."""
        return self.log_likelihood - self.kl


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
        closed_form: Whether a KL divergence that is known is used instead of the sampled one; never for a latent that
            the model samples after, but the guide before, another one.

    Raises:
        UsageError: The sites of the pair do not match, a site has the wrong shape, or a latent has no density.
    """
    inferred, generated = run_pair(model, guide, batch, particles=particles, weight=weight)
    return terms_of(inferred, generated, shape=(particles, len(batch.index)), closed_form=closed_form)


def run_pair(
    model: Program, guide: Program, batch: Batch, *, particles: int = 1, weight: float | Tensor = 1.0
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The sites of the guide, and of the model at the guide's latents; the arguments are those of `terms`."""
    inferred = run_program(guide, batch, weight=weight, particles=particles)
    values = {name: site.value for name, site in inferred.items()}
    return inferred, run_program(model, batch, values=values, weight=weight, particles=particles)


def terms_of(
    inferred: dict[str, Site], generated: dict[str, Site], *, shape: tuple[int, int], closed_form: bool = True
) -> Terms:
    """The parts of the bound from the sites of a guide and of a model that ran with the guide's values.

    Args:
        inferred: The guide's sites.
        generated: The model's sites.
        shape: Particles and batch size.
        closed_form: Whether a KL divergence that is known is used instead of the sampled one.

    Raises:
        UsageError: As for `terms`.
    """
    _check_pair(inferred, generated)
    first = next(iter(inferred.values())).value
    log_likelihood = scaled_log_likelihood = scaled_kl = first.new_zeros(shape)
    site_kl: dict[str, Tensor] = {}
    order = list(inferred)
    for name, site in generated.items():
        if site.is_observed:
            log_prob = site.log_prob(shape)
            log_likelihood = log_likelihood + log_prob
            scaled_log_likelihood = scaled_log_likelihood + site.weigh(log_prob)
            continue
        posterior = inferred[name]
        divergence = posterior.rate
        # With q(z1 given x) q(z2 given z1) and p(z1 given z2), the closed form at a sampled z2 would be the divergence
        # over another z1 than the one that z2 was drawn from: not the bound.
        ordered = site_kl.keys().isdisjoint(order[order.index(name) :])
        if divergence is None and closed_form and ordered:
            divergence = _closed_form(posterior, site)
        if divergence is not None:
            divergence = posterior.per_datum(divergence, shape)
            scaled_kl = scaled_kl + posterior.weigh(divergence)
        else:
            log_q, log_p = posterior.log_prob(shape), site.log_prob(shape)
            divergence = log_q - log_p
            scaled_kl = scaled_kl + posterior.weigh(log_q) - site.weigh(log_p)
        site_kl[name] = divergence.expand(shape)
    return Terms(log_likelihood, site_kl, scaled_log_likelihood, scaled_kl)


def _check_pair(inferred: dict[str, Site], generated: dict[str, Site]) -> None:
    """Refuse a guide and a model whose latent sites do not match, or latents without a density.

    Raises:
        UsageError: So it is.
    """
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
        if site.rate is None and (isinstance(base, Delta) or isinstance(site.fn, Delta)):
            raise UsageError(
                f"site '{name}': the guide samples a Delta, which has no density and so no KL divergence; a guide "
                'that knows its rate states it, infer={"rate": …}'
            )


def _closed_form(posterior: Site, prior: Site) -> Tensor | None:
    """KL(posterior ‖ prior), or None where it is not known."""
    with full_precision(posterior.value.device):
        try:
            return kl_divergence(posterior.fn, prior.fn)
        except NotImplementedError:
            return gaussian_kl(posterior.fn, prior.fn)
