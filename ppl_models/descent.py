"""Descent of paths with fixed ends, whatever their energy."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["descend"]

MEMORY = 10
"""Steps that the next direction is learned from."""


def descend(terms: Callable[[Tensor], Tensor], paths: Tensor, *, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Lower an energy of paths by limited-memory BFGS in the Sobolev norm, each path on its own.

    The energy is the sum of what N segments add, times N. The norm is :math:`\int \lVert \dot Z \rVert^2`, in which the
    gradient is multiplied by the inverse of tridiag(-1, 2, -1): that takes away the stiffness that grows as N². What
    is left, where directions of the latents differ in what they cost, is learned from the last steps (Nocedal 1980;
    Liu and Nocedal 1989). A step that does not lower its path's energy enough is taken back and halved, so that no
    energy ever rises.

    Args:
        terms: From paths `(*batch, nodes, latents)` to what each segment adds, `(*batch, nodes - 1)`.
        paths: Where to start, both ends among the nodes.
        steps: Each one evaluation of the energy and its gradient on all paths at once.

    Returns:
        The paths, their energies `(*batch)` and the gradients in the inner points, `(*batch, nodes - 2, latents)`.
    """
    first, inner, last = paths[..., :1, :], paths[..., 1:-1, :], paths[..., -1:, :]
    count = paths.shape[-2] - 1

    @torch.enable_grad()
    def energy_of(inner: Tensor) -> tuple[Tensor, Tensor]:
        inner = inner.detach().requires_grad_()
        energies = terms(torch.cat([first, inner, last], -2)).sum(-1) * count
        return energies.detach(), torch.autograd.grad(energies.sum(), inner)[0]

    i = torch.arange(1, count, device=paths.device, dtype=paths.dtype)
    # The inverse of tridiag(-1, 2, -1).
    sobolev = torch.minimum(i, i[:, None]) * (count - torch.maximum(i, i[:, None])) / count
    energies, gradients = energy_of(inner)
    # With the metric constant and the same in all directions, the step that would end on the straight line.
    length = paths.detach().diff(dim=-2).square().sum((-2, -1))
    scale = (length / (2 * energies).clamp_min(torch.finfo(paths.dtype).tiny))[..., None, None]
    fraction = torch.ones_like(scale)
    learned: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(steps):
        directions = _direction(gradients, learned, sobolev=sobolev, scale=scale)
        trial = inner - fraction * directions
        energies_there, gradients_there = energy_of(trial)
        taken = energies_there <= energies - 1e-4 * (fraction * _dot(directions, gradients))[..., 0, 0]
        moved, change = trial - inner, gradients_there - gradients
        curvature = _dot(moved, change)
        # None is learned where the energy is not convex, nor where it is no number.
        convex = curvature > 1e-8 * (_dot(moved, moved) * _dot(change, change)).sqrt()
        scale = torch.where(convex, curvature / _dot(change, sobolev @ change), scale)
        learned.append(tuple(torch.where(convex, what, 0) for what in (moved, change, 1 / curvature)))
        del learned[:-MEMORY]
        took = taken[..., None, None]
        fraction = torch.where(took, 1, fraction / 2)
        energies = torch.where(taken, energies_there, energies)
        inner, gradients = (torch.where(took, *both) for both in ((trial, inner), (gradients_there, gradients)))
    return torch.cat([first, inner, last], -2), energies, gradients


def _direction(
    gradients: Tensor, learned: list[tuple[Tensor, Tensor, Tensor]], *, sobolev: Tensor, scale: Tensor
) -> Tensor:
    """The two loops of L-BFGS."""
    direction, weights = gradients, []
    for moved, change, inverse in reversed(learned):
        weights.append(inverse * _dot(moved, direction))
        direction = direction - weights[-1] * change
    direction = scale * (sobolev @ direction)
    for (moved, change, inverse), weight in zip(learned, reversed(weights), strict=True):
        direction = direction + (weight - inverse * _dot(change, direction)) * moved
    return direction


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)
