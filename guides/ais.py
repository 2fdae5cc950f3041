"""Annealed importance sampling: the evidence from Markov chains, and on simulated data a bracket around it."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from guides.annealing import Annealing, Progress, StepSizes, anneal, tune
from guides.evidence import effective, joined, seeded
from guides.hmc import Path, path_of
from guides.sites import Program, run_program
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["Annealed", "Bracket", "ais", "bdmc"]


class Annealed(NamedTuple):
    """What annealing says of each datum, `(data,)` each, in float64.

    Attributes:
        log_evidence: log p(x) in nats: a lower bound in expectation, in reverse an upper bound.
        effective_chains: (Σ w)² / Σ w², from 1 where one chain has all the weight to K where all weigh the same; 0
            where none has any.
        acceptance: The mean acceptance probability over chains and transitions; 1 where one temperature has none.
    """

    log_evidence: Tensor
    effective_chains: Tensor
    acceptance: Tensor

    __repr__ = fields_repr


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
    :math:`f_\beta = p(z)\, p(x \mid z)^\beta`, or :math:`f_\beta = q(z)^{1 - \beta}\, p(x, z)^\beta` from a posterior,

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
        UsageError: A latent has bounds, a scale or no density, model and guide do not match, or there are no data.
    """
    found = []
    for batch, drawn in seeded(batches, seed, len(Seeds._fields)):
        seeds = Seeds(*drawn)
        path, steps = _prepared(model, batch, posterior, annealing, seeds, progress)
        found.append(_forward(path, steps, annealing, seeds, progress))
    return joined(found)


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
        UsageError: As for `ais`; or the model does not simulate `x` and nothing else, or has no finite density there.
    """
    lower, upper = [], []
    for batch, drawn in seeded(batches, seed, len(Seeds._fields)):
        seeds = Seeds(*drawn)
        torch.manual_seed(seeds.simulation)
        latents, batch = _simulated(model, batch)
        path, steps = _prepared(model, batch, posterior, annealing, seeds, progress)
        lower.append(_forward(path, steps, annealing, seeds, progress))
        torch.manual_seed(seeds.reverse)
        point = path.at(path.flat(latents))
        if not point.log_density(1.0).isfinite().all():
            raise UsageError("bdmc: the model's density at latents and data of its own is not finite")
        upper.append(_annealed(*anneal(path, point, steps, annealing, reverse=True, progress=progress), sign=-1))
    return Bracket(joined(lower), joined(upper))


class Seeds(NamedTuple):
    """Of the noise of one batch."""

    posterior: int
    tuning: int
    forward: int
    reverse: int
    simulation: int


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
) -> tuple[Path, StepSizes | None]:
    """A batch's path and step sizes, with which nothing moves where there is one temperature."""
    torch.manual_seed(seeds.posterior)
    path = path_of(model, batch, posterior, annealing.chains)
    torch.manual_seed(seeds.tuning)
    return path, tune(path, annealing, progress=progress) if annealing.temperatures > 1 else None


def _forward(path: Path, steps: StepSizes | None, annealing: Annealing, seeds: Seeds, progress: Progress) -> Annealed:
    torch.manual_seed(seeds.forward)
    return _annealed(*anneal(path, path.start(), steps, annealing, progress=progress))


def _annealed(log_weight: Tensor, acceptance: Tensor, *, sign: int = 1) -> Annealed:
    """Chains taken together; of weights of 1 / p(x) with sign -1."""
    total = log_weight.logsumexp(0)
    chains = effective(total, (2 * log_weight).logsumexp(0))
    return Annealed(sign * (total - math.log(len(log_weight))), chains, acceptance)
