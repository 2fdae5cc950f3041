"""Barriers of the loss between two solutions of an inversion: along the line, and along the best path found."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models.batch import UsageError
from ppl_models.inversion import descended
from ppl_models.path_energy import check_ends, line
from ppl_models.reprs import fields_repr
from ppl_models.squared_error import ROWS_AT_ONCE, SOLVED, measurable, squared_error

__all__ = ["Barriers", "barriers"]

MODES, STARTS = 4, 3
"""Sine modes that paths are bent by at first, and bends that are descended from each time, the first none at all."""

RESIDUE = 0.01
"""What of the line's barrier the search may leave of none: 0.05 to 0.4 % was measured on the way round circles."""

SETTLED = 0.05
"""What of a rise a refinement has to take away for another one to be tried."""

RISE = 1e-3
"""What of the loss at the higher end is too little for a barrier."""


class Barriers(NamedTuple):
    """How far the loss rises above the higher end on the way from one code to another, `(*batch)` each.

    Attributes:
        straight: Along the line.
        relaxed: Along the best path found, which is the line where none is better.
        uncertainty: What of it the last refinement of the path took away, at least the share `SETTLED`; all of it where
            it is too little for a barrier, for then it is refined no more.
        higher: The loss at the higher end.
    """

    straight: Tensor
    relaxed: Tensor
    uncertainty: Tensor
    higher: Tensor

    __repr__ = fields_repr

    def found(self, noise: Tensor | float = 0.0) -> Tensor:
        """Where the rise is more than can be what the search has left of none.

        Args:
            noise: The rise between codes known to be in one valley.
        """
        return self.relaxed - self.uncertainty > torch.maximum(RESIDUE * self.straight, self._least(noise))

    def found_on_the_line(self, noise: Tensor | float = 0.0) -> Tensor:
        """Where the rise on the line is more than noise."""
        return self.straight > self._least(noise)

    def _least(self, noise: Tensor | float) -> Tensor:
        return torch.maximum((RISE * self.higher).clamp_min(SOLVED), torch.as_tensor(noise).to(self.higher))


def barriers(
    generator: Callable[[Tensor], Tensor],
    images: Tensor,
    z_a: Tensor,
    z_b: Tensor,
    *,
    nodes: int = 17,
    steps: int = 100,
    rounds: int = 3,
    seed: int = 0,
) -> Barriers:
    r"""Find how high the loss has to rise between codes, with which one tells two minima from one curved valley.

    Paths are lines bent by sine modes, :math:`Z(t) = (1 - t) z_a + t z_b + \sum_m c_m \sin(m \pi t)`, whose amplitudes
    descend the softened highest loss on the way by Adam, from several bends. Where a rise is left, the best path and
    bends of it descend again with twice the modes, nodes and steps, until that takes away less than `SETTLED`. The
    highest loss of any path bounds the barrier from above, but for what lies between the points that it is measured at;
    a lower path may always be left, and more so in many dimensions. After Draxler et al. 2018, arXiv:1803.00885, and
    Garipov et al. 2018, arXiv:1802.10026.

    Args:
        generator: As in `invert`.
        images: The targets, `(*batch, *event)`.
        z_a: The codes at one end, `(*batch, latents)`.
        z_b: Those at the other, the same shape.
        nodes: Points of a path while it first descends; a path is measured at 16 times as many as it descends with.
        steps: Of the first descent.
        rounds: Descents at most.
        seed: Of the bends.

    Raises:
        UsageError: Codes of different shapes, a module in training mode, or a generator that is not differentiable or
            does not take float64.
    """
    check_ends(z_a, z_b)
    precise, _ = measurable(generator, z_a.shape[-1], images)
    if min(nodes, steps, rounds) < 1:
        raise UsageError(f"found {nodes} nodes, {steps} steps, {rounds} rounds, expected 1 or more of each")
    batch, at_once = z_a.shape[:-1], max(1, ROWS_AT_ONCE // (STARTS * nodes * 2 ** (rounds - 1)))
    x = images.flatten(len(batch))
    rows = [value.reshape(-1, value.shape[-1]).split(at_once) for value in (x, z_a, z_b)]
    parts = [_barriers(generator, precise, *some, nodes, steps, rounds, seed) for some in zip(*rows, strict=True)]
    return Barriers(*(torch.cat(values).reshape(batch) for values in zip(*parts, strict=True)))


def _barriers(
    generator: Callable[[Tensor], Tensor],
    precise: Callable[[Tensor], Tensor],
    x: Tensor,
    z_a: Tensor,
    z_b: Tensor,
    nodes: int,
    steps: int,
    rounds: int,
    seed: int,
) -> tuple[Tensor, ...]:
    """The fields of `Barriers` for targets `(rows, pixels)` and codes `(rows, latents)`."""
    losses = _along(precise, line(z_a.double(), z_b.double(), 16 * nodes), x)
    higher = torch.maximum(losses[:, 0], losses[:, -1])
    straight = losses.amax(-1) - higher
    relaxed, uncertainty = straight.clone(), torch.zeros_like(straight)
    drawn = torch.Generator().manual_seed(seed)
    apart = (z_b - z_a).norm(dim=-1)[:, None, None].to(x.dtype)
    best, left = torch.zeros(len(x), MODES, z_a.shape[-1]).to(x), torch.arange(len(x), device=x.device)
    for once in range(rounds):
        finer = 2**once
        ends = z_a[left].to(x.dtype), z_b[left].to(x.dtype)
        # Each mode as fast as it is long: fast short ones would carry paths over ridges between their nodes.
        size = apart[left] / finer / torch.arange(1, finer * MODES + 1).unsqueeze(-1).to(x)
        other = torch.randn(STARTS - 1, 1, *best.shape[1:], generator=drawn, dtype=torch.float64).to(x)
        bends = best + torch.cat([0 * best[None], 0.5 * size * other / math.sqrt(best.shape[-1])])
        best = _bent(generator, line(*ends, finer * nodes), x[left], bends, finer * steps, 0.02 * size)
        fine = line(z_a[left].double(), z_b[left].double(), 16 * finer * nodes)
        measured = _along(precise, fine + _sines(fine, best) @ best.double(), x[left]).amax(-1) - higher[left]
        lower = torch.minimum(relaxed[left], measured)
        change = relaxed[left] - lower
        little = lower <= torch.maximum(RESIDUE * straight[left], RISE * higher[left]).clamp_min(SOLVED)
        doubt = torch.maximum(change, SETTLED * lower)
        relaxed[left], uncertainty[left] = lower, torch.where(little, lower, doubt)
        (on,) = (~little & ((change > SETTLED * lower) | (once == 0))).nonzero(as_tuple=True)
        if not len(on):
            break
        left, best = left[on], torch.cat([best[on], torch.zeros_like(best[on])], 1)
    return straight, relaxed, uncertainty, higher


def _bent(
    generator: Callable[[Tensor], Tensor], straight: Tensor, x: Tensor, bends: Tensor, steps: int, rate: Tensor
) -> Tensor:
    """The amplitudes, `(rows, modes, latents)`, of the lowest path from several `(starts, rows, modes, latents)`."""
    modes = _sines(straight, bends)

    @torch.enable_grad()
    def slope(bends: Tensor) -> tuple[Tensor, Tensor]:
        bends = bends.detach().requires_grad_()
        losses = squared_error(generator, straight + modes @ bends, x.unsqueeze(-2))
        top = losses.amax(-1, keepdim=True).detach()
        # As sharp as the path is high: a twentieth of the way from its lowest to its highest loss.
        width = ((top - losses.amin(-1, keepdim=True).detach()) / 20).clamp_min(torch.finfo(x.dtype).tiny)
        soft = (width * ((losses - top) / width).logsumexp(-1, keepdim=True)).sum()
        return top.squeeze(-1), torch.autograd.grad(soft, bends)[0]

    best, least = descended(slope, bends, steps, rate, epsilon=1e-12)
    return best.take_along_dim(least.argmin(0)[None, :, None, None], 0).squeeze(0)


@torch.no_grad()
def _along(precise: Callable[[Tensor], Tensor], paths: Tensor, x: Tensor) -> Tensor:
    """Losses at the points of paths `(rows, points, latents)`, `(rows, points)`."""
    some = paths.split(max(1, ROWS_AT_ONCE // len(x)), 1)
    return torch.cat([squared_error(precise, points, x.double().unsqueeze(-2)) for points in some], 1)


def _sines(path: Tensor, bends: Tensor) -> Tensor:
    """As many modes as there are bends `(*, modes, latents)` along paths `(*, points, latents)`, `(points, modes)`."""
    t = torch.linspace(0, 1, path.shape[-2], dtype=path.dtype, device=path.device).unsqueeze(-1)
    values = (math.pi * t * torch.arange(1, bends.shape[-2] + 1, dtype=path.dtype, device=path.device)).sin()
    values[[0, -1]] = 0
    return values
