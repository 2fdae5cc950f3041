"""Images from a model, and from a model and a guide: samples, reconstructions, interpolations."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from guides.sites import Program, run_program
from ppl_models.batch import Batch
from ppl_models.paths import variance_preserving

__all__ = ["interpolation", "latents", "predictive"]


def latents(program: Program, batch: Batch) -> Tensor | dict[str, Tensor]:
    """What a guide (the posterior) or a model with `batch.x=None` (the prior) samples: `(B, latents)`, or by site."""
    sites = run_program(program, batch).values()
    values = {site.name: site.value for site in sites if site.name != "x" and not site.is_observed}
    return next(iter(values.values())) if len(values) == 1 else values


@torch.no_grad()
def predictive(model: Program, program: Program, batch: Batch) -> TorchDistribution:
    """p(x given z) for latents that `program` samples, batch shape `(B,)`.

    Of a guide this is the posterior predictive, its mean the reconstruction; of the model itself, with
    `batch.x=None`, the prior predictive.
    """
    return model.decode(latents(program, batch), batch.y)


@torch.no_grad()
def interpolation(model: Program, guide: Program, batch: Batch, *, steps: int = 9) -> tuple[Tensor, Tensor]:
    """Decoded variance-preserving paths from each datum of the batch's second half to one of its first half.

    Returns:
        Means of p(x given z), `(B // 2, steps, *event)`, and the weights a, `(steps,)`, of the first half's codes.
    """
    codes = latents(guide, batch)
    half = len(batch.index) // 2
    weights = torch.linspace(0, 1, steps, device=batch.index.device)

    def path_of(z: Tensor) -> Tensor:
        return variance_preserving(z[:half], z[half : 2 * half], weights.to(z.dtype))

    path = {name: path_of(z) for name, z in codes.items()} if isinstance(codes, dict) else path_of(codes)
    y = None if batch.y is None else batch.y[half : 2 * half].unsqueeze(-1).expand(-1, steps)
    return model.decode(path, y).mean, weights
