"""How good inference is: bounds and evidence per datum, with noise that no refinement has seen."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from guides.iwae import importance_terms
from guides.objectives import ELBO, Objective
from guides.refine import Refinement, refine
from guides.sites import At, Params, Program
from guides.terms import Terms, terms
from ppl_models.batch import Batch, UsageError

__all__ = ["Evidence", "bounds", "importance_sample", "posterior_for", "posteriors"]

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
    guide: Program,
    batches: Iterable[Batch],
    *,
    particles: int = 1,
    refinement: Refinement | None = None,
    objective: Objective | None = None,
    start: Callable[[Batch], Params] | None = None,
    seed: int = 0,
) -> Terms:
    """The evidence lower bound of each datum and its parts, `(data,)` each, means over the particles.

    Two guides asked with the same batches and seed are judged on the same images, and where they draw alike on the
    same noise, so their difference is paired.

    Args:
        model: The model.
        guide: The guide.
        batches: The data, each once.
        particles: Samples of the latents per datum.
        refinement: Gradient steps on each batch before; their noise is not used again.
        objective: What they minimise; the ELBO by default.
        start: Where those start; by default where the guide says.
        seed: Of the noise of the bound. The global random state moves on: fork it where that matters.
    """
    posterior = partial(posterior_for, model, guide, refinement=refinement, objective=objective, start=start)
    judged = posteriors(posterior, batches, seed=seed)
    parts = [terms(model, posterior, batch, particles=particles) for posterior, batch in judged]
    return Terms(
        _joined(part.log_likelihood for part in parts),
        {name: _joined(part.site_kl[name] for part in parts) for name in parts[0].site_kl},
        _joined(part.scaled_log_likelihood for part in parts),
        _joined(part.scaled_kl for part in parts),
    )


def posteriors(
    posterior: Callable[[Batch], Program], batches: Iterable[Batch], *, seed: int
) -> Iterator[tuple[Program, Batch]]:
    """The guide for each batch and the batch, torch seeded with noise that the posterior has not used.

    Args:
        posterior: From a batch to the guide as it stands for it, such as `fit.posterior`, or `lambda batch: guide`.
        batches: The data.
        seed: Of all noise. The global random state moves on: fork it where that matters.

    Raises:
        UsageError: `posterior` makes no guide of a batch.
    """
    seeds = torch.Generator().manual_seed(seed)
    for batch in batches:
        refining, judging = torch.randint(2**62, (2,), generator=seeds).tolist()
        torch.manual_seed(refining)
        program = posterior(batch)
        if not callable(program):
            raise UsageError(
                f"posterior(batch) is a {type(program).__name__}, expected a guide: pass fit.posterior, or "
                "lambda batch: guide"
            )
        torch.manual_seed(judging)
        yield program, batch


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Means over the particles, of all data."""
    return torch.cat([part.mean(0) for part in parts])


@torch.no_grad()
def importance_sample(
    model: Program,
    guide: Program,
    batches: Iterable[Batch],
    *,
    samples: int = 1000,
    refinement: Refinement | None = None,
    objective: Objective | None = None,
    start: Callable[[Batch], Params] | None = None,
    seed: int = 0,
) -> Evidence:
    r"""Importance-sampled evidence of each datum, :math:`\log \frac1S \sum_s w_s`, :math:`w = p(x, z) / q(z \mid x)`.

    A lower bound of log p(x) in expectation, the tighter the more samples (Burda et al. 2016, arXiv:1509.00519). The
    encoder runs once; samples are drawn and decoded a few at a time, so that memory does not grow with their number.

    Args:
        model: The model.
        guide: The guide.
        batches: The data, each once.
        samples: S.
        refinement: Gradient steps on each batch before; their noise is not used again.
        objective: What they minimise; the ELBO by default.
        start: Where those start; by default where the guide says.
        seed: Of the noise, as for `bounds`.

    Raises:
        UsageError: The guide has no density.
    """
    posterior = partial(posterior_for, model, guide, refinement=refinement, objective=objective, start=start)
    judged = posteriors(posterior, batches, seed=seed)
    parts = [_importance_sample(model, posterior, batch, samples) for posterior, batch in judged]
    return Evidence(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _importance_sample(model: Program, posterior: Program, batch: Batch, samples: int) -> Evidence:
    at_once = max(1, ROWS.get(batch.index.device.type, ROWS["cuda"]) // len(batch.index))
    firsts, seconds, sums = [], [], []
    for done in range(0, samples, at_once):
        particles = min(at_once, samples - done)
        log_weights = importance_terms(model, posterior, batch, particles=particles).elbo.double()
        firsts.append(log_weights.logsumexp(0))
        seconds.append((2 * log_weights).logsumexp(0))
        sums.append(log_weights.sum(0))
    first, second = torch.stack(firsts).logsumexp(0), torch.stack(seconds).logsumexp(0)
    return Evidence(first - math.log(samples), torch.stack(sums).sum(0) / samples, (2 * first - second).exp())
