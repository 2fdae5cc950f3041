"""How good inference is: bounds per datum, with noise that no refinement has seen."""

from collections.abc import Callable, Iterable

import torch

from guides.objectives import ELBO, Terms, terms
from guides.refine import Params, Refinement, refine
from guides.sites import Program
from ppl_models.batch import Batch

__all__ = ["bounds", "inferred"]


def inferred(
    model: Program,
    guide: Program,
    batch: Batch,
    *,
    refinement: Refinement | None = None,
    start: Callable[[Batch], Params] | None = None,
) -> Program:
    """A guide as it stands for a batch: as it is, or with its parameters refined on that batch by the ELBO.

    Args:
        model: The model, which is not changed.
        guide: The guide, which is not changed either: refined rows are not stored.
        batch: The batch.
        refinement: The gradient steps; `None` for none.
        start: Where the parameters start; by default where the guide says.

    Returns:
        A guide to be used with this batch alone.
    """
    if refinement is None:
        return guide
    params = {name: value.detach() for name, value in (start or guide.start)(batch).items()}
    params, _ = refine(model, guide.sample, ELBO(), batch, params, refinement=refinement)
    return lambda again: guide.sample(again, params)


@torch.no_grad()
def bounds(
    model: Program,
    guide: Program,
    batches: Iterable[Batch],
    *,
    particles: int = 1,
    refinement: Refinement | None = None,
    start: Callable[[Batch], Params] | None = None,
    seed: int = 0,
) -> Terms:
    """The evidence lower bound of each datum and its parts, `(data,)` each, means over the particles.

    Two guides asked with the same batches and seed are judged on the same noise, so their difference is paired.

    Args:
        model: The model.
        guide: The guide.
        batches: The data, each once.
        particles: Samples of the latents per datum.
        refinement: Gradient steps on each batch before; their noise is not used again.
        start: Where those start; by default where the guide says.
        seed: Of the noise of the bound. The global random state moves on: fork it where that matters.
    """
    parts = []
    for position, batch in enumerate(batches):
        # Even seeds refine and odd ones judge, so that no noise is used twice.
        torch.manual_seed(2 * (seed + position))
        posterior = inferred(model, guide, batch, refinement=refinement, start=start)
        torch.manual_seed(2 * (seed + position) + 1)
        parts.append(terms(model, posterior, batch, particles=particles))
    return Terms(*(torch.cat([part.mean(0) for part in column]) for column in zip(*parts, strict=True)))
