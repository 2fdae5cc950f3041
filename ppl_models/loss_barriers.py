"""Barriers of the loss between two solutions of an inversion: along the line, and along the best path found."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models.inversion import in_double, squared_error
from ppl_models.path_energy import check_ends, line

__all__ = ["Barriers", "barriers"]

MODES, STARTS = 4, 3
"""Sine modes that paths are bent by, and bends that are descended from, the first none at all."""


class Barriers(NamedTuple):
    """How far the loss rises above the higher end on the way from one code to another, `(*batch)` each.

    Attributes:
        straight: Along the line.
        relaxed: Along the best path found, which is the line where none is better.
    """

    straight: Tensor
    relaxed: Tensor


def barriers(
    generator: Callable[[Tensor], Tensor],
    images: Tensor,
    z_a: Tensor,
    z_b: Tensor,
    *,
    nodes: int = 17,
    steps: int = 100,
    seed: int = 0,
) -> Barriers:
    r"""Find how high the loss has to rise between codes, with which one tells two minima from one curved valley.

    Paths are lines bent by sine modes, :math:`Z(t) = (1 - t) z_a + t z_b + \sum_m c_m \sin(m \pi t)`, whose amplitudes
    descend the softened highest loss on the way by Adam, from several bends. What is found bounds the barrier from
    above. After Draxler et al. 2018, arXiv:1803.00885, and Garipov et al. 2018, arXiv:1802.10026.

    Args:
        generator: As in `invert`.
        images: The targets, `(*batch, *event)`.
        z_a: The codes at one end, `(*batch, latents)`.
        z_b: Those at the other, the same shape.
        nodes: Points of a path while it descends; it is measured at 16 times as many, which no ridge
            is between.
        steps: Of descent.
        seed: Of the bends.

    Raises:
        UsageError: Codes of different shapes.
    """
    check_ends(z_a, z_b)
    x = images.flatten(z_a.dim() - 1).unsqueeze(-2)
    ends = z_a.to(images.dtype), z_b.to(images.dtype)
    straight = line(*ends, nodes)
    apart = (ends[1] - ends[0]).norm(dim=-1)[..., None, None]
    drawn = torch.randn(
        STARTS, MODES, z_a.shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    drawn[0] = 0
    drawn = drawn / torch.arange(1, MODES + 1).unsqueeze(-1) / math.sqrt(z_a.shape[-1])
    bends = 0.5 * apart * drawn.to(straight).view(STARTS, *[1] * (z_a.dim() - 1), MODES, -1)
    best, least = torch.zeros_like(bends), torch.full(bends.shape[:-2], math.inf, dtype=x.dtype, device=x.device)
    modes = _sines(nodes, like=straight)
    mean, square = torch.zeros_like(bends), torch.zeros_like(bends)
    for step in range(steps):
        bends = bends.detach().requires_grad_()
        with torch.enable_grad():
            losses = squared_error(generator, straight + modes @ bends, x)
            top = losses.amax(-1, keepdim=True).detach()
            # As sharp as the path is high: a twentieth of the way from its lowest to its highest loss.
            width = ((top - losses.amin(-1, keepdim=True).detach()) / 20).clamp_min(torch.finfo(x.dtype).tiny)
            soft = (width * ((losses - top) / width).logsumexp(-1, keepdim=True)).sum()
            gradient = torch.autograd.grad(soft, bends)[0]
        bends, better = bends.detach(), top.squeeze(-1) < least
        best = torch.where(better[..., None, None], bends, best)
        least = torch.where(better, top.squeeze(-1), least)
        mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.01)
        direction = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-12)
        bends = bends - 0.02 * apart * (1 + math.cos(math.pi * step / steps)) / 2 * direction
    winner = least.argmin(0, keepdim=True)[..., None, None]
    with torch.no_grad():
        fine = line(z_a.double(), z_b.double(), 16 * nodes)
        bent = fine + _sines(16 * nodes, like=fine) @ best.take_along_dim(winner, 0).squeeze(0).double()
        losses = squared_error(in_double(generator), torch.stack([fine, bent]), x.double())
        highest = losses.amax(-1) - torch.maximum(losses[0, ..., 0], losses[0, ..., -1])
    return Barriers(highest[0], highest.amin(0))


def _sines(nodes: int, *, like: Tensor) -> Tensor:
    """The modes along a path, `(nodes, modes)`, zero at both ends."""
    t = torch.linspace(0, 1, nodes, dtype=like.dtype, device=like.device).unsqueeze(-1)
    values = (math.pi * t * torch.arange(1, MODES + 1, dtype=like.dtype, device=like.device)).sin()
    values[[0, -1]] = 0
    return values
