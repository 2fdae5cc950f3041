"""What codes say about data: active units, the parts of the KL term, and whether the latents are used at all.

All of it is over the aggregated posterior of N data, q(z) = (1/N) sum_n q(z given x_n).
"""

import math
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from guides.evidence import posteriors
from guides.sites import Program, Site, run_program
from guides.terms import run_pair, terms_of
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["ActiveUnits", "Split", "active_units", "collapse", "elbo_split"]

AT_ONCE = 1_000_000
"""Numbers at a time, latents times pairs of a code and a datum; no more are faster, since these stay in the caches."""

NOTHING = 0.1
"""Nats of mutual information below which latents say nothing: telling two halves of the data apart takes log 2."""


class ActiveUnits(NamedTuple):
    r"""How far the posterior's mean moves with the data, by latent site, each of the site's event shape.

    Attributes:
        variance: :math:`A_j`, an unbiased estimate, which for a unit that does not move may be below 0.
        error: Its standard error, over the data and over the samples.
        threshold: A unit is active above that.
    """

    variance: dict[str, Tensor]
    error: dict[str, Tensor]
    threshold: float

    __repr__ = fields_repr

    @property
    def active(self) -> dict[str, Tensor]:
        """Which units are active, by site."""
        return {name: variance > self.threshold for name, variance in self.variance.items()}

    @property
    def number(self) -> dict[str, int]:
        """How many units are active, by site."""
        return {name: int(active.sum()) for name, active in self.active.items()}


class Split(NamedTuple):
    r"""The bound in three parts, `(data,)` each, in nats, and `elbo`, the first less the others.

    Means over the data are the parts of the bound. Plain standard errors over the data are right to first order, since
    densities integrate to 1, but say nothing of the bias near `limit`.

    Attributes:
        log_likelihood: log p(x given z), the reconstruction.
        mutual_information: :math:`\log q(z \mid x_n) - \log q(z)`, or the rate that the guide states.
        marginal_kl: :math:`\log q(z) - \log p(z)`, or 0 where the guide states a rate. Of these N data: what
            `mutual_information` falls short of that of more data is counted here.
        limit: log N, the most that the mutual information of N data and their codes can be, infinite for a stated
            rate: where the information comes near its limit, it says how many data there were and little else.
        stated: Whether the guide states its rate: that is the information of data without end, and the prior of the
            bound is the guide's own marginal, not the model's.
    """

    log_likelihood: Tensor
    mutual_information: Tensor
    marginal_kl: Tensor
    limit: float
    stated: bool

    __repr__ = fields_repr

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound's summands, `(data,)`."""
        return self.log_likelihood - self.mutual_information - self.marginal_kl


@torch.no_grad()
def active_units(
    posterior: Callable[[Batch], Program],
    batches: Iterable[Batch],
    *,
    particles: int = 32,
    threshold: float = 0.01,
    seed: int = 0,
) -> ActiveUnits:
    r"""The variance over the data of the posterior's mean, :math:`A_j = \mathrm{Var}_x(E_q(z_j \mid x))`.

    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519. Since not every family knows its mean, each is that of M
    samples, and the variance that their noise adds, :math:`s_j^2(x) / M`, is subtracted. Posteriors without a density
    will do.

    Args:
        posterior: From a batch to its guide, such as `fit.posterior`, or `lambda batch: guide`.
        batches: The data, each once.
        particles: Samples of the latents per datum, M.
        threshold: A unit is active above that; by default the paper's, which is for latents of variance 1.
        seed: Of the noise, as for `evidence.bounds`: the global random state moves on.

    Raises:
        UsageError: There are fewer than two data, or samples.
    """
    if particles < 2:
        raise UsageError(f"active_units: {particles} samples, expected 2 or more, to tell their noise from the data's")
    means: dict[str, list[Tensor]] = {}
    noise: dict[str, list[Tensor]] = {}
    for program, batch in posteriors(posterior, batches, seed=seed):
        for name, value in _values(run_program(program, batch, particles=particles), particles, batch).items():
            variance, mean = torch.var_mean(value, 0)
            means.setdefault(name, []).append(mean)
            noise.setdefault(name, []).append(variance / particles)
    count = sum(len(mean) for mean in next(iter(means.values()), []))
    if count < 2:
        raise UsageError(f"active_units: found {count} data, or no latents; a variance takes two")
    variances, errors = {}, {}
    for name in means:
        mean = torch.cat(means[name])
        # One summand per datum, so that their spread is the error of the whole, samples included.
        summands = (mean - mean.mean(0)).square() * (count / (count - 1)) - torch.cat(noise[name])
        variances[name], errors[name] = summands.mean(0), summands.std(0) / math.sqrt(count)
    return ActiveUnits(variances, errors, threshold)


@torch.no_grad()
def elbo_split(
    model: Program,
    posterior: Callable[[Batch], Program],
    batches: Iterable[Batch],
    *,
    particles: int = 1,
    seed: int = 0,
) -> Split:
    r"""The bound in three parts, :math:`E \log p(x \mid z) - I_q(n; z) - KL(q(z) \,\|\, p(z))`, by datum.

    Hoffman and Johnson 2016, "ELBO surgery", Advances in Approximate Bayesian Inference. :math:`I_q` is the mutual
    information of code and index among these N data, and :math:`q(z) = \frac1N \sum_m q(z \mid x_m)` the mixture of
    all their posteriors, evaluated in full at each sample: nothing but the samples is Monte Carlo. The encoder runs
    once per batch, the codes and parameters of all batches are kept. With the same seed, batches and particles as
    `evidence.bounds` the samples are the same.

    The time grows with N²: for 10 000 data on one core a quarter of a minute for diagonal Gaussians of 40 dimensions,
    minutes for a ladder, hours for a flow, whose inverse takes a pass per dimension; take 1000 data there.

    Args:
        model: The model.
        posterior: From a batch to its guide, such as `fit.posterior`, or `lambda batch: guide`.
        batches: The data, each once; a batch is evaluated at one code or more at once, which bounds the memory.
        particles: Samples of the latents per datum.
        seed: Of the noise, as for `evidence.bounds`: the global random state moves on.

    Raises:
        UsageError: There are no data, the sites of the pair do not match, or some latents have no density; where all
            state a rate, that is the information.
    """
    runs, parts, stated = [], [], set()
    for program, batch in posteriors(posterior, batches, seed=seed):
        shape = (particles, len(batch.index))
        inferred, generated = run_pair(model, program, batch, particles=particles)
        parts.append(terms_of(inferred, generated, shape=shape, closed_form=False))
        stated |= {site.rate is not None for site in inferred.values()}
        if len(stated) > 1:
            raise UsageError("elbo_split: some latents have a density and some a rate, expected one or the other")
        if stated == {False}:
            codes = {name: value.flatten(0, 1) for name, value in _values(inferred, particles, batch).items()}
            runs.append((program, batch, codes, _log_density(inferred, shape).expand(shape)))
    log_likelihood, kl = (torch.cat(part, 1) for part in zip(*((p.log_likelihood, p.kl) for p in parts), strict=True))
    if stated == {True}:
        return Split(log_likelihood.mean(0), kl.mean(0), torch.zeros_like(kl[0]), math.inf, True)
    limit = math.log(kl.shape[1])
    found = []
    for _, _, codes, own in runs:
        ratios = [_log_ratios(program, batch, codes, own.flatten()) for program, batch, _, _ in runs]
        found.append(limit - torch.stack(ratios).logsumexp(0).view_as(own))
    information = torch.cat(found, 1)
    return Split(log_likelihood.mean(0), information.mean(0), (kl - information).mean(0), limit, False)


def collapse(units: ActiveUnits, split: Split) -> str | None:
    """What is to be said about latents that are not used, in one line, or None.

    They say nothing below 0.1 nats of mutual information, whatever their number. Else a site is remarked on where
    fewer than a quarter of its units are active: half of them to spare are usual and cost nothing (15 of 40 are active
    in a good model of MNIST); where nearly all are idle the KL term may have switched off what could be of use.

    Args:
        units: Of the data, from `active_units`.
        split: Of the same data, from `elbo_split`.
    """
    numbers, sizes = units.number, {name: variance.numel() for name, variance in units.variance.items()}
    information = float(split.mutual_information.mean())
    if information < NOTHING:
        return (
            f"the latents say nothing about the data: mutual information {information:.2f} nats, "
            f"{sum(numbers.values())} of {sum(sizes.values())} units active; anneal the KL weight, or use free bits"
        )
    few = [f"{numbers[name]} of {size} in '{name}'" for name, size in sizes.items() if 4 * numbers[name] < size]
    if few:
        return f"few units are active (their means vary by more than {units.threshold:g}): {', '.join(few)}"
    return None


def _values(sites: dict[str, Site], particles: int, batch: Batch) -> dict[str, Tensor]:
    """The sites' values, `(particles, batch, *event)`, also where one particle has no plate."""
    shape = (particles, len(batch.index))
    return {name: site.value.expand(*shape, *site.fn.event_shape) for name, site in sites.items()}


def _log_density(sites: dict[str, Site], shape: tuple[int, int]) -> Tensor:
    return reduce(add, (site.log_prob(shape) for site in sites.values()))


def _log_ratios(program: Program, batch: Batch, codes: dict[str, Tensor], own: Tensor) -> Tensor:
    r"""Codes under the posteriors of a batch, :math:`\log \sum_m q(z \mid x_m) / q(z \mid x)`.

    Args:
        program: The guide for the batch.
        batch: The batch, of data m.
        codes: z, by site, `(codes, *event)`.
        own: The log-density of each under the posterior that it was drawn from, `(codes,)`.

    Returns:
        A tensor `(codes,)`.
    """
    size = len(batch.index)
    at_once = max(1, AT_ONCE // (size * sum(value[0].numel() for value in codes.values())))
    found = []
    for log_q, *values in zip(own.split(at_once), *(value.split(at_once) for value in codes.values()), strict=True):
        count = len(log_q)
        pairs = {
            name: value.unsqueeze(1).expand(count, size, *value.shape[1:])
            for name, value in zip(codes, values, strict=True)
        }
        sites = run_program(program, batch, values=pairs, particles=count)
        found.append((_log_density(sites, (count, size)) - log_q.unsqueeze(1)).logsumexp(1))
    return torch.cat(found)
