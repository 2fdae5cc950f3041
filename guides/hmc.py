"""Hamiltonian Monte Carlo along the path from a prior or a posterior to the joint density of latents and data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import constraints

from guides.evidence import posterior_of
from guides.iwae import importance_terms
from guides.sites import Program, Site, run_program
from ppl_models.batch import Batch, UsageError

__all__ = ["Path", "Point", "path_of", "transition"]


class Point(NamedTuple):
    r"""Where chains are, `(chains, batch, dimensions)`, with log-densities `(chains, batch)` and their gradients.

    The tempered density is :math:`\log f_\beta = \log f_0 + \beta \log (f_1 / f_0)`, `base` and `ratio` here, so
    that it is known at every β from one run of the model.
    """

    z: Tensor
    base: Tensor
    ratio: Tensor
    base_gradient: Tensor
    ratio_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        return self.base + beta * self.ratio

    def gradient(self, beta: float) -> Tensor:
        return self.base_gradient + beta * self.ratio_gradient


@dataclass(frozen=True, eq=False)
class Path:
    """The geometric path of a batch from a base, the prior or a posterior, to the joint density of latents and data.

    Latents of all sites are laid side by side: `(chains, batch, dimensions)`.

    Attributes:
        model: The model.
        guide: The base, or `None` for the prior.
        batch: The batch, with its observations.
        chains: Chains per datum.
        events: The shape of each latent site's event.
    """

    model: Program
    guide: Program | None
    batch: Batch
    chains: int
    events: dict[str, torch.Size]

    def start(self) -> Point:
        """Chains at independent draws from the base."""
        with torch.no_grad():
            base = self.model if self.guide is None else self.guide
            sites = run_program(base, self.batch, particles=self.chains)
        return self.at(self.flat({name: site.value for name, site in sites.items()}))

    def at(self, z: Tensor) -> Point:
        """The point at some latents; where a density is not finite, it is 0."""
        shape = self.chains, len(self.batch.index)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            values = {
                name: part.view(*shape, *event)
                for part, (name, event) in zip(z.split(self._sizes(), -1), self.events.items(), strict=True)
            }
            latent = observed = z.new_zeros(shape)
            for site in run_program(self.model, self.batch, values=values, particles=self.chains).values():
                if site.is_observed:
                    observed = observed + site.log_prob(shape)
                else:
                    latent = latent + site.log_prob(shape)
            base, ratio = latent, observed
            if self.guide is not None:
                sites = run_program(self.guide, self.batch, values=values, particles=self.chains)
                base = sum((site.log_prob(shape) for site in sites.values()), z.new_zeros(shape))
                ratio = latent + observed - base
            # Two gradients: the next temperature asks for another mixture of them at the same point.
            (base_gradient,) = torch.autograd.grad(base.sum(), z, retain_graph=True)
            (ratio_gradient,) = torch.autograd.grad(ratio.sum(), z)
        base, ratio = (part.detach().where(part.isfinite(), -math.inf) for part in (base, ratio))
        return Point(z.detach(), base, ratio, base_gradient, ratio_gradient)

    def flat(self, values: dict[str, Tensor]) -> Tensor:
        """Latents by site, the same for all chains where they have no such dimension, side by side."""
        shape = self.chains, len(self.batch.index)
        parts = [values[name].expand(*shape, *event).reshape(*shape, -1) for name, event in self.events.items()]
        return torch.cat(parts, -1)

    def _sizes(self) -> list[int]:
        return [event.numel() for event in self.events.values()]


def transition(point: Point, path: Path, beta: float, step: Tensor, *, leapfrog: int) -> tuple[Point, Tensor]:
    """A step of Hamiltonian Monte Carlo, which leaves the tempered density invariant (Neal 2011, arXiv:1206.1901).

    Args:
        point: Where the chains are.
        path: The densities.
        beta: β.
        step: The step size of each datum and dimension, `(batch, dimensions)`.
        leapfrog: Steps of the trajectory: so often the model is run.

    Returns:
        Where they are then, and the acceptance probabilities, `(chains, batch)`.
    """
    # Each trajectory is longer or shorter by up to 40 %: one of fixed length comes back to where it began in dimensions
    # whose period divides it. On PPCA this narrowed brackets by a third to two thirds.
    step = step * (0.6 + 0.8 * torch.rand_like(point.base)).unsqueeze(-1)
    momentum = torch.randn_like(point.z)
    before = point.log_density(beta) - 0.5 * momentum.square().sum(-1)
    new, half = point, 0.5 * step * point.gradient(beta)
    for _ in range(leapfrog):
        momentum = momentum + half
        new = path.at(new.z + step * momentum)
        half = 0.5 * step * new.gradient(beta)
        momentum = momentum + half
    after = new.log_density(beta) - 0.5 * momentum.square().sum(-1)
    # A proposal that is not finite has probability 0: NaN is not larger than any number.
    acceptance = (after - before).exp().clamp(max=1).nan_to_num(0.0)
    accepted = torch.rand_like(acceptance) < acceptance
    chosen = (
        torch.where(accepted if there.dim() == 2 else accepted.unsqueeze(-1), there, here)
        for there, here in zip(new, point, strict=True)
    )
    return Point(*chosen), acceptance


@torch.no_grad()
def path_of(model: Program, batch: Batch, posterior: Callable[[Batch], Program] | None, chains: int) -> Path:
    """The path of a batch, refused where chains could not follow it."""
    sites = run_program(model, batch, particles=chains)
    latents = [site for site in sites.values() if not site.is_observed]
    if not 0 < len(latents) < len(sites):
        raise UsageError(f"annealing needs latents and, by obs=batch.x, an observed site; found {list(sites)}")
    for site in sites.values():
        if isinstance(site.scale, Tensor) or site.scale != 1:
            raise UsageError(f"site '{site.name}': annealing allows no scale, such as a KL weight other than 1")
    for site in latents:
        if not _is_real(site):
            raise UsageError(f"site '{site.name}' is a {site.fn}: annealing needs latents that may be any real number")
    guide = None if posterior is None else posterior_of(posterior, batch)
    if guide is not None:
        importance_terms(model, guide, batch, particles=chains)  # refuses what does not match or has no density
    return Path(model, guide, batch, chains, {site.name: site.fn.event_shape for site in latents})


def _is_real(site: Site) -> bool:
    """Whether the support of a site is all of R^n."""
    support = site.fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
