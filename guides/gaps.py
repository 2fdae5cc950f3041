"""How far a guide's bound is from the evidence: what its family costs, and what its encoder."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from guides.evidence import Evidence, importance_sample, joined, posteriors
from guides.families import has_density
from guides.free import Free
from guides.objectives import ELBO
from guides.refine import Refinement, refine
from guides.rules import Adam
from guides.sites import At, Program, run_program
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["SEARCH", "Gaps", "best_posterior", "gaps"]

SEARCH = Refinement(steps=500, rule=Adam(lr=0.05, betas=(0.9, 0.99)), final=0.0, decay=0.0)
"""Gradient steps that find the best posterior of a datum; their size falls to nothing, which averages noise away."""

MOMENTS = 100
"""Samples from which the mean and standard deviations are estimated where a search in another family starts."""


class Gaps(NamedTuple):
    r"""Bounds of the same data, and their distances, `(data,)` each, in nats.

    .. math:: \log p(x) - L(q) = \underbrace{\log p(x) - L(q^*)}_\text{approximation} +
        \underbrace{L(q^*) - L(q)}_\text{amortization}

    with :math:`q^*` the best posterior of q's own family for each datum. The evidence is estimated from below, so the
    gap is at least this; a search that has not converged moves nats from amortization to approximation.

    Attributes:
        guide: The guide as it is, L(q).
        best: The best posterior of each family, its own among them under `own`.
        own: The name of the guide's own family.
    """

    guide: Evidence
    best: dict[str, Evidence]
    own: str

    __repr__ = fields_repr

    @property
    def evidence(self) -> Evidence:
        """What the proposals say that have, of all these, the most effective samples."""
        proposals = (self.guide, *self.best.values())
        return max(proposals, key=lambda found: float(found.effective_samples.mean()))

    @property
    def log_evidence(self) -> Tensor:
        """The importance-sampled log p(x) by those proposals."""
        return self.evidence.log_evidence

    def approximation(self, family: str | None = None) -> Tensor:
        """What a family, by default the guide's own, costs even at its best."""
        return self.log_evidence - self.best[family or self.own].elbo

    @property
    def amortization(self) -> Tensor:
        """What is lost between the best posterior of the guide's family and what the guide says."""
        return self.best[self.own].elbo - self.guide.elbo


def gaps(
    model: Program,
    posterior: Callable[[Batch], Program],
    batches: Iterable[Batch],
    *,
    families: Mapping[str, nn.Module] | None = None,
    own: str = "own",
    refinement: Refinement = SEARCH,
    particles: int = 8,
    samples: int = 1000,
    seed: int = 0,
) -> Gaps:
    """Split the inference gap of each datum, the model frozen (Cremer, Li and Duvenaud 2018, arXiv:1801.03558).

    The best posterior of the guide's own family is searched from where the guide says, so that the amortization gap
    is not negative but for noise; those of other families from the mean and standard deviations of that one. All are
    judged on noise that no search has seen, the same for each.

    Args:
        model: The model, which is not changed.
        posterior: The guide for a batch, at its parameters, such as `fit.posterior`.
        batches: The data, each once.
        families: Other families to search, by name; for models with one latent vector.
        own: What to call the guide's own.
        refinement: The steps of each search.
        particles: Samples of the latents per datum and step.
        samples: Samples that each bound is judged on.
        seed: Of all noise.

    Raises:
        UsageError: The guide has no parameters per datum or no density, there are no data, or families are given and
            the model has not one latent vector of their size.
    """
    found: dict[str, list[Evidence]] = {}
    for start, batch in posteriors(posterior, batches, seed=seed):
        judging = int(torch.randint(2**62, ()))
        if not isinstance(start, At):
            raise UsageError("gaps: the guide has no start(batch), so that no parameters of a datum can be searched")
        if not has_density(getattr(start.guide, "family", None)):
            raise UsageError("gaps: the guide has a rate but no density, so that it has no importance weights")
        search = {"refinement": refinement, "particles": particles}
        candidates = {"guide": start, own: best_posterior(model, start, batch, **search)}
        for name, family in (families or {}).items():
            candidates[name] = best_posterior(model, _in_family(family, candidates[own], batch), batch, **search)
        for name, candidate in candidates.items():
            found.setdefault(name, []).append(_judged(model, candidate, batch, samples=samples, seed=judging))
    whole = {name: joined(parts) for name, parts in found.items()}
    return Gaps(whole.pop("guide"), whole, own)


def best_posterior(
    model: Program, start: At, batch: Batch, *, refinement: Refinement = SEARCH, particles: int = 8
) -> At:
    """The posterior of the best bound for each datum of a batch, searched from a guide at given parameters."""
    objective = ELBO(particles=particles)
    params, _ = refine(model, start.guide, objective, batch, start.params, refinement=refinement)
    return At(start.guide, {name: value.detach() for name, value in params.items()})


def _judged(model: Program, candidate: Program, batch: Batch, *, samples: int, seed: int) -> Evidence:
    return importance_sample(model, lambda _: candidate, [batch], samples=samples, seed=seed)


def _in_family(family: nn.Module, guide: At, batch: Batch) -> At:
    """The Gaussian of independent dimensions with the guide's means and standard deviations, as one of a family.

    Raises:
        UsageError: The guide has several latents, or one of another size.
    """
    sites = run_program(guide, batch, particles=MOMENTS)
    shapes = {name: tuple(site.fn.event_shape) for name, site in sites.items()}
    if list(shapes.values()) != [(family.latents,)]:
        raise UsageError(f"gaps: a family of {family.latents} latents for a guide whose latents are {shapes}")
    (name, site), *_ = sites.items()
    scale, loc = torch.std_mean(site.value, 0)
    free = Free(len(batch.index), family=family, site=name).to(loc.device, loc.dtype)
    return At(free, family.around(loc, scale))
