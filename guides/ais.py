"""Annealed importance sampling: the evidence from Markov chains, and on simulated data a bracket around it."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

from guides.iwae import importance_terms
from guides.sites import Program, Site, run_program
from ppl_models.batch import Batch, UsageError

__all__ = ["Annealed", "Annealing", "Bracket", "Path", "Point", "Steps", "ais", "anneal", "bdmc", "transition", "tune"]

Progress = Callable[[Any], Iterable[int]]
"""Wraps a range, as `tqdm` does."""

WARM_UP, TUNING, KNOTS = 30, 200, 20
"""Transitions that step sizes are tuned in: first at the base, then on the path; and from how many means they are
interpolated."""


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


class Annealed(NamedTuple):
    """What annealing says of each datum, `(data,)` each, in float64.

    Attributes:
        log_evidence: log p(x) in nats: a lower bound in expectation, in reverse an upper bound.
        effective_chains: (Σ w)² / Σ w², from 1 where one chain has all the weight to K where all weigh the same; 0
            where none has any.
        acceptance: The mean acceptance probability over chains and temperatures.
    """

    log_evidence: Tensor
    effective_chains: Tensor
    acceptance: Tensor


class Bracket(NamedTuple):
    """Bounds from below and above of the evidence of the same simulated data."""

    lower: Annealed
    upper: Annealed

    @property
    def gap(self) -> Tensor:
        """How far they are apart in nats, `(data,)`; its mean bounds what `lower` misses, in expectation."""
        return self.upper.log_evidence - self.lower.log_evidence


def ais(
    model: Program,
    batches: Iterable[Batch],
    *,
    posterior: Callable[[Batch], Program] | None = None,
    annealing: Annealing = Annealing(),  # noqa: B008
    seed: int = 0,
    progress: Progress = iter,
) -> Annealed:
    r"""Annealed importance sampling of the evidence: :math:`\log \frac1K \sum_k w_k` of each datum.

    Neal 2001, arXiv:physics/9803008; for decoders Wu et al. 2017, arXiv:1611.04273. Along
    :math:`f_\beta \propto p(z)\, p(x \mid z)^\beta`, or :math:`q(z)^{1 - \beta}\, p(x, z)^\beta` from a posterior,

    .. math:: \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{f_1(z_{t-1})}{f_0(z_{t-1})},

    where :math:`z_0 \sim f_0` and :math:`z_t` comes from :math:`z_{t-1}` by a step of Hamiltonian Monte Carlo that
    leaves :math:`f_{\beta_t}` invariant. Step sizes, one for each datum, dimension and temperature, are tuned by a run
    of their own with noise of its own, and then frozen: so w is an unbiased estimate of p(x), and its logarithm a lower
    bound in expectation, the tighter the more temperatures.

    Args:
        model: The model, in eval mode; its latents range over all real numbers. It is not changed.
        batches: The data, each once.
        posterior: From a batch to a guide at its parameters, such as `fit.posterior`, where chains start; by default
            they start from the prior.
        annealing: Temperatures, chains and trajectories.
        seed: Of the noise. The global random state moves on: fork it where that matters.
        progress: Wraps the range of each run's temperatures, such as `tqdm`: two runs a batch.

    Raises:
        UsageError: A latent has bounds, a scale or no density, or model and guide do not match.
    """
    found = []
    for batch, seeds in _seeded(batches, seed):
        path, steps = _prepared(model, batch, posterior, annealing, seeds, progress)
        found.append(_forward(path, steps, annealing, seeds, progress))
    return _joined(found)


def bdmc(
    model: Program,
    batches: Iterable[Batch],
    *,
    posterior: Callable[[Batch], Program] | None = None,
    annealing: Annealing = Annealing(),  # noqa: B008
    seed: int = 0,
    progress: Progress = iter,
) -> Bracket:
    r"""Bidirectional Monte Carlo: bounds from below and above of the evidence of data that the model simulates.

    Grosse, Ghahramani and Adams 2015, arXiv:1511.02543. The latents :math:`z^*` that a datum was simulated from are an
    exact sample of its posterior, from which chains run back to the base: the same transitions and step sizes in
    reverse order, each weight an unbiased estimate of 1 / p(x). A small gap says that `ais` with these settings can be
    trusted on real data, as far as their posteriors are like those of simulated ones.

    Args:
        model: The model, as for `ais`; its observed site is called `x`.
        batches: Their labels and indices are kept, their `x` is replaced by simulated data.
        posterior: As for `ais`; it is asked for the simulated data.
        annealing: Temperatures, chains and trajectories.
        seed: Of the noise, and of the simulated data.
        progress: Wraps the range of each run's temperatures: three runs a batch.

    Raises:
        UsageError: As for `ais`; or the model does not simulate `x` and nothing else.
    """
    lower, upper = [], []
    for batch, seeds in _seeded(batches, seed):
        torch.manual_seed(seeds.simulation)
        latents, batch = _simulated(model, batch)
        path, steps = _prepared(model, batch, posterior, annealing, seeds, progress)
        lower.append(_forward(path, steps, annealing, seeds, progress))
        torch.manual_seed(seeds.reverse)
        point = path.at(path.flat(latents))
        upper.append(_annealed(*anneal(path, point, steps, annealing, reverse=True, progress=progress), sign=-1))
    return Bracket(_joined(lower), _joined(upper))


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
        posterior: The base, or `None` for the prior.
        batch: The batch, with its observations.
        chains: Chains per datum.
        events: The shape of each latent site's event.
    """

    model: Program
    posterior: Program | None
    batch: Batch
    chains: int
    events: dict[str, torch.Size]

    def start(self) -> Point:
        """Chains at independent draws from the base."""
        with torch.no_grad():
            base = self.model if self.posterior is None else self.posterior
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
            if self.posterior is not None:
                sites = run_program(self.posterior, self.batch, values=values, particles=self.chains)
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
    # Each trajectory is longer or shorter by up to 40 %: one of fixed length comes back near to where it began wherever
    # a dimension's period divides it, and the chain stays there. On PPCA this alone narrowed the bracket to a half.
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


@dataclass(frozen=True, eq=False)
class Steps:
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
def tune(path: Path, annealing: Annealing, *, progress: Progress = iter) -> Steps:
    r"""Step sizes that come near the acceptance that is asked for, from a run of their own along the path.

    A dimension's step is :math:`\epsilon / \sqrt{g}`, with the datum's :math:`\epsilon` driven by the acceptance of its
    chains and g a moving average of the squared gradient, which for a Gaussian is the diagonal of its precision.
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
    return Steps(torch.stack(kept[WARM_UP:]).unflatten(0, (KNOTS, -1)).mean(1))


@pyro.validation_enabled(False)
def anneal(
    path: Path,
    point: Point,
    steps: Steps | None,
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


class Seeds(NamedTuple):
    """Of the noise of one batch."""

    posterior: int
    tuning: int
    forward: int
    reverse: int
    simulation: int


def _seeded(batches: Iterable[Batch], seed: int) -> Iterator[tuple[Batch, Seeds]]:
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        yield batch, Seeds(*torch.randint(2**62, (len(Seeds._fields),), generator=generator).tolist())


def _simulated(model: Program, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
    """Latents from the prior by site, and the batch with data from the model given them."""
    with torch.no_grad():
        sites = run_program(model, batch._replace(x=None))
    if "x" not in sites or any(site.is_observed for site in sites.values()):
        raise UsageError(f"simulated data are the model's site 'x', its only observed one; found sites {list(sites)}")
    x = sites.pop("x").value
    return {name: site.value for name, site in sites.items()}, batch._replace(x=x)


def _prepared(
    model: Program,
    batch: Batch,
    posterior: Callable[[Batch], Program] | None,
    annealing: Annealing,
    seeds: Seeds,
    progress: Progress,
) -> tuple[Path, Steps | None]:
    """A batch's path and step sizes, with which nothing moves where there is one temperature."""
    torch.manual_seed(seeds.posterior)
    path = _path(model, batch, posterior, annealing.chains)
    torch.manual_seed(seeds.tuning)
    return path, tune(path, annealing, progress=progress) if annealing.temperatures > 1 else None


@torch.no_grad()
def _path(model: Program, batch: Batch, posterior: Callable[[Batch], Program] | None, chains: int) -> Path:
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
    guide = None if posterior is None else posterior(batch)
    if guide is not None:
        importance_terms(model, guide, batch, particles=chains)  # refuses what does not match or has no density
    return Path(model, guide, batch, chains, {site.name: site.fn.event_shape for site in latents})


def _is_real(site: Site) -> bool:
    """Whether the support of a site is all of R^n."""
    support = site.fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def _forward(path: Path, steps: Steps | None, annealing: Annealing, seeds: Seeds, progress: Progress) -> Annealed:
    torch.manual_seed(seeds.forward)
    return _annealed(*anneal(path, path.start(), steps, annealing, progress=progress))


def _annealed(log_weight: Tensor, acceptance: Tensor, *, sign: int = 1) -> Annealed:
    """Chains taken together; of weights of 1 / p(x) with sign -1."""
    total = log_weight.logsumexp(0)
    effective = (2 * total - (2 * log_weight).logsumexp(0)).exp().nan_to_num(0.0)
    return Annealed(sign * (total - math.log(len(log_weight))), effective, acceptance)


def _joined(parts: list[Annealed]) -> Annealed:
    return Annealed(*(torch.cat(values) for values in zip(*parts, strict=True)))
