"""How good inference is: bounds and evidence per datum, with noise that no refinement has seen."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from guides.iwae import importance_terms
from guides.objectives import ELBO, Objective
from guides.refine import Refinement, refine
from guides.sites import At, Params, Program
from guides.terms import Terms, terms
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = [
    "Evidence",
    "bounds",
    "effective",
    "importance_sample",
    "joined",
    "posterior_for",
    "posterior_of",
    "posteriors",
    "seeded",
]

Parts = TypeVar("Parts", bound=tuple[Tensor, ...])

ROWS = {"cpu": 2_000, "cuda": 50_000}
"""Samples decoded at a time: more would leave a CPU's cache, fewer leave a GPU idle."""


class Evidence(NamedTuple):
    r"""What importance weights say of each datum, `(data,)` each, in float64.

    Attributes:
        log_evidence: The estimate of log p(x) in nats.
        elbo: The mean log-weight, which is the evidence lower bound on the same samples.
        effective_samples: :math:`(\sum w)^2 / \sum w^2`, from 1, where a single sample has all the weight, to S.
    """

    log_evidence: Tensor
    elbo: Tensor
    effective_samples: Tensor

    __repr__ = fields_repr


def posterior_for(
    model: Program,
    guide: Program,
    batch: Batch,
    *,
    refinement: Refinement | None = None,
    objective: Objective | None = None,
    start: Callable[[Batch], Params] | None = None,
) -> Program:
    """A guide as it stands for a batch: its parameters computed once, and refined on that batch.

    Args:
        model: The model, which is not changed.
        guide: The guide, which is not changed either: refined rows are not stored.
        batch: The batch.
        refinement: The gradient steps; `None` for none.
        objective: What they minimise; the ELBO by default.
        start: Where the parameters start; by default where the guide says.

    Returns:
        A guide to be used with this batch alone.
    """
    start = start or getattr(guide, "start", None)
    if start is None:
        return guide
    params = start(batch)
    if refinement is not None:
        params, _ = refine(model, guide, objective or ELBO(), batch, params, refinement=refinement)
        params = {name: value.detach() for name, value in params.items()}
    return At(guide, params)


@torch.no_grad()
def bounds(
    model: Program,
    posterior: Callable[[Batch], Program],
    batches: Iterable[Batch],
    *,
    particles: int = 1,
    seed: int = 0,
    passed: int = 0,
) -> Terms:
    """The evidence lower bound of each datum and its parts, `(data,)` each, means over the particles.

    Two guides asked with the same batches and seed are judged on the same images, and where they draw alike on the
    same noise, so their difference is paired.

    Args:
        model: The model.
        posterior: From a batch to its guide, such as `fit.posterior`, or `lambda batch: guide`.
        batches: The data, each once.
        particles: Samples of the latents per datum.
        seed: Of the noise of the bound. The global random state moves on: fork it where that matters.
        passed: Batches of the same data that were before these, so that a part gets the noise that it has in the whole.

    Raises:
        UsageError: There are no data.
    """
    judged = posteriors(posterior, batches, seed=seed, passed=passed)
    parts = [terms(model, program, batch, particles=particles) for program, batch in judged]

    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.cat([each.mean(0) for each in values])

    return Terms(
        mean(part.log_likelihood for part in parts),
        {name: mean(part.site_kl[name] for part in parts) for name in parts[0].site_kl},
        mean(part.scaled_log_likelihood for part in parts),
        mean(part.scaled_kl for part in parts),
    )


def posteriors(
    posterior: Callable[[Batch], Program], batches: Iterable[Batch], *, seed: int, passed: int = 0
) -> Iterator[tuple[Program, Batch]]:
    """The guide for each batch and the batch, torch seeded with noise that the posterior has not used.

    Args:
        posterior: From a batch to the guide as it stands for it, such as `fit.posterior`, or `lambda batch: guide`.
        batches: The data.
        seed: Of all noise. The global random state moves on: fork it where that matters.
        passed: Batches before these, as for `bounds`.

    Raises:
        UsageError: `posterior` makes no guide of a batch, or there are no data.
    """
    for batch, (refining, judging) in seeded(batches, seed, 2, passed=passed):
        torch.manual_seed(refining)
        program = posterior_of(posterior, batch)
        torch.manual_seed(judging)
        yield program, batch


def posterior_of(posterior: Callable[[Batch], Program], batch: Batch) -> Program:
    """The guide for a batch, refused where `posterior` is one itself and has returned a sample.

    Raises:
        UsageError: It has.
    """
    program = posterior(batch)
    if not callable(program):
        raise UsageError(
            f"posterior(batch) is a {type(program).__name__}, expected a guide: pass fit.posterior, or "
            "lambda batch: guide"
        )
    return program


def seeded(batches: Iterable[Batch], seed: int, count: int, *, passed: int = 0) -> Iterator[tuple[Batch, list[int]]]:
    """Each batch with so many seeds of its own, which depend on those before it in nothing but their number.

    `passed` is the number of those that are not among `batches`.

    Raises:
        UsageError: There are no data.
    """
    generator, batch = torch.Generator().manual_seed(seed), None
    for _ in range(passed):
        torch.randint(2**62, (count,), generator=generator)
    for batch in batches:
        yield batch, torch.randint(2**62, (count,), generator=generator).tolist()
    if batch is None:
        raise UsageError("found no data, expected at least one batch")


def joined(parts: Iterable[Parts]) -> Parts:
    """Figures of several batches, tuples of tensors `(batch,)` or dicts of them, as those of all data."""
    parts = list(parts)
    return type(parts[0])(*(_cat(values) for values in zip(*parts, strict=True)))


def _cat(values: Sequence[Tensor] | Sequence[dict[str, Tensor]]) -> Tensor | dict[str, Tensor]:
    if isinstance(values[0], dict):
        return {name: torch.cat([value[name] for value in values]) for name in values[0]}
    return torch.cat(values)


def effective(first: Tensor, second: Tensor) -> Tensor:
    r""":math:`(\sum w)^2 / \sum w^2` from the logarithms of the two sums; 0 where no weight is above 0."""
    return (2 * first - second).exp().nan_to_num(0.0)


@torch.no_grad()
def importance_sample(
    model: Program,
    posterior: Callable[[Batch], Program],
    batches: Iterable[Batch],
    *,
    samples: int = 1000,
    seed: int = 0,
    passed: int = 0,
) -> Evidence:
    r"""Importance-sampled evidence of each datum, :math:`\log \frac1S \sum_s w_s`, :math:`w = p(x, z) / q(z \mid x)`.

    A lower bound of log p(x) in expectation, the tighter the more samples (Burda et al. 2016, arXiv:1509.00519). The
    encoder runs once; samples are drawn and decoded a few at a time, so that memory does not grow with their number.

    Args:
        model: The model.
        posterior: From a batch to its guide, at its parameters, as for `bounds`.
        batches: The data, each once.
        samples: S.
        seed: Of the noise, as for `bounds`.
        passed: Batches before these, as for `bounds`.

    Raises:
        UsageError: The guide has no density, or there are no data.
    """
    judged = posteriors(posterior, batches, seed=seed, passed=passed)
    return joined(_importance_sample(model, program, batch, samples) for program, batch in judged)


def _importance_sample(model: Program, program: Program, batch: Batch, samples: int) -> Evidence:
    at_once = max(1, ROWS.get(batch.index.device.type, ROWS["cuda"]) // len(batch.index))
    firsts, seconds, sums = [], [], []
    for done in range(0, samples, at_once):
        particles = min(at_once, samples - done)
        log_weights = importance_terms(model, program, batch, particles=particles).elbo.double()
        firsts.append(log_weights.logsumexp(0))
        seconds.append((2 * log_weights).logsumexp(0))
        sums.append(log_weights.sum(0))
    first, second = torch.stack(firsts).logsumexp(0), torch.stack(seconds).logsumexp(0)
    return Evidence(first - math.log(samples), torch.stack(sums).sum(0) / samples, effective(first, second))
