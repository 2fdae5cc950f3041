"""Paths of least energy between two latent codes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.path_energy import check_ends, end_images, line, lower_bound, path_energy, segments
from ppl_models.paths import straight

__all__ = ["LeastEnergyPath", "least_energy_path"]


class LeastEnergyPath(NamedTuple):
    r"""Paths of least energy with what says how good they are, per pair.

    Attributes:
        path: Points from z_a to z_b, `(*batch, nodes, latents)`.
        energy: Their energy, `(*batch)`.
        straight: The straight line's energy, `(*batch)`, as finely summed.
        lower_bound: What no path's energy is below, `(*batch)`.
        speed_variation: Standard deviation over mean of :math:`w \lVert \dot Z \rVert^2` along the path, `(*batch)`:
            0 at an optimum, up to the error of the discretisation; NaN where both codes are one.
        gradient_norm: Norm of the energy's gradient in the inner points, `(*batch)`.
    """

    path: Tensor
    energy: Tensor
    straight: Tensor
    lower_bound: Tensor
    speed_variation: Tensor
    gradient_norm: Tensor


def least_energy_path(
    generator: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    x_a: Tensor | None = None,
    x_b: Tensor | None = None,
    *,
    nodes: int = 32,
    steps: int = 50,
    starts: int = 4,
    seed: int = 0,
    subpoints: int | None = None,
) -> LeastEnergyPath:
    r"""Paths of least energy between pairs of codes, the best of several descents each.

    Each descends from the straight line, all but the first with random sine modes added (a line that runs over a ridge
    may stay there), along the gradient in the Sobolev norm :math:`\int \lVert \dot Z \rVert^2`: multiplied by the
    inverse of tridiag(-1, 2, -1), which takes away the stiffness that grows as nodes². Steps have the length of
    Barzilai and Borwein 1988, and one that does not lower its path's energy enough is taken back and halved, so that
    no energy ever rises. A step is one evaluation of the generator and its gradient on all paths at once. Every pair
    gets the same modes, times its own distance: what is found for a pair does not hang on those beside it.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`, differentiable; a module in eval mode.
        z_a: Where the paths start, `(*batch, latents)`.
        z_b: Where they end, the same shape.
        x_a: The first image, `(*batch, *event)`; G(z_a) by default.
        x_b: The second image, likewise.
        nodes: Points of a path, both ends among them.
        steps: Of descent.
        starts: Descents for each pair.
        seed: Of the sine modes.
        subpoints: Where given, both energies and the speed are those of the same broken lines at so many points or
            a few more, and no longer what was minimised: a path too coarse for its images may then lie above the line.

    Returns:
        The paths, with their energies and how far they are from optimal; without gradients.

    Raises:
        UsageError: A module in training mode, a generator that is not differentiable, codes of different shapes,
            fewer than three nodes, no start, or images that do not fit.
    """
    if isinstance(generator, nn.Module) and any(module.training for module in generator.modules()):
        raise UsageError("the generator is in training mode, expected generator.eval(): batch norm would couple paths")
    if nodes < 3 or starts < 1:
        raise UsageError(f"found {nodes} nodes and {starts} starts, expected at least 3 and 1")
    check_ends(z_a, z_b)
    z_a, z_b = z_a.detach(), z_b.detach()
    with torch.enable_grad():
        if not generator(z_a.clone().requires_grad_()).requires_grad:
            raise UsageError(
                "the generator's images do not depend on their latents differentiably, expected a gradient"
            )
    with torch.no_grad():
        x_a, x_b = end_images(generator, z_a, z_b, x_a, x_b)
        direct = line(z_a, z_b, nodes)
        paths = direct + _sine_modes(direct, starts, seed)
    paths, energies, gradients = _descend(generator, paths, x_a.detach(), x_b.detach(), steps)
    best = energies.argmin(0, keepdim=True)
    path = paths.take_along_dim(best[..., None, None], 0).squeeze(0)
    norm = gradients.square().sum((-2, -1)).sqrt().take_along_dim(best, 0).squeeze(0)
    with torch.no_grad():
        fine, fine_line = (path, direct) if subpoints is None else (_subdivided(z, subpoints) for z in (path, direct))
        speeds = segments(generator, fine, x_a, x_b)
        energy = speeds.sum(-1) * speeds.shape[-1]
        line_energy = path_energy(generator, fine_line, x_a, x_b)
        lower = lower_bound(z_a, z_b, x_a, x_b)
        variation = speeds.std(-1, correction=0) / speeds.mean(-1)
    return LeastEnergyPath(path, energy, line_energy, lower, variation, norm)


def _descend(
    generator: Callable[[Tensor], Tensor], paths: Tensor, x_a: Tensor, x_b: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Paths `(*batch, nodes, latents)` descended, their energies `(*batch)` and gradients in the inner points."""
    first, inner, last = paths[..., :1, :], paths[..., 1:-1, :], paths[..., -1:, :]

    @torch.enable_grad()
    def energy_of(inner: Tensor) -> tuple[Tensor, Tensor]:
        inner = inner.detach().requires_grad_()
        energies = path_energy(generator, torch.cat([first, inner, last], -2), x_a, x_b)
        return energies.detach(), torch.autograd.grad(energies.sum(), inner)[0]

    count = paths.shape[-2] - 1
    i = torch.arange(1, count, device=paths.device, dtype=paths.dtype)
    # The inverse of tridiag(-1, 2, -1).
    sobolev = torch.minimum(i, i[:, None]) * (count - torch.maximum(i, i[:, None])) / count
    energies, gradients = energy_of(inner)
    # With w constant at its mean, the step that would end on the straight line.
    with torch.no_grad():
        length = paths.diff(dim=-2).square().sum((-2, -1))
        rate = length / (2 * energies).clamp_min(torch.finfo(paths.dtype).tiny)
    for _ in range(steps):
        directions = sobolev @ gradients
        slopes = (directions * gradients).sum((-2, -1))
        trial = inner - rate[..., None, None] * directions
        energies_there, gradients_there = energy_of(trial)
        taken = energies_there <= energies - 1e-4 * rate * slopes
        # Barzilai and Borwein's step in the Sobolev norm; none where the curvature is not positive.
        curvature = 1 - (directions * gradients_there).sum((-2, -1)) / slopes
        longer = torch.where(curvature > 0, 1 / curvature, 2.0).clamp(0.5, 2)
        rate = rate * torch.where(taken, longer, 0.5)
        energies = torch.where(taken, energies_there, energies)
        inner, gradients = (
            torch.where(taken[..., None, None], *both) for both in ((trial, inner), (gradients_there, gradients))
        )
    return torch.cat([first, inner, last], -2), energies, gradients


def _sine_modes(line: Tensor, starts: int, seed: int) -> Tensor:
    """What starts differ by, `(starts, *batch, nodes, latents)`, zero at both ends and zero for the first start."""
    nodes, latents = line.shape[-2:]
    modes = torch.arange(1.0, 4.0, dtype=torch.float64)
    # Drawn on the host in one precision: the same starts on every device.
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(starts - 1, len(modes), latents, generator=generator, dtype=modes.dtype)
    shapes = (math.pi * modes * torch.linspace(0, 1, nodes, dtype=modes.dtype)[:, None]).sin() / modes
    bends = torch.cat([torch.zeros(1, nodes, latents), 0.3 / math.sqrt(latents) * shapes @ drawn]).to(line)
    bends[:, [0, -1]] = 0
    return bends.view(starts, *[1] * (line.dim() - 2), nodes, latents) * (line[..., -1:, :] - line[..., :1, :]).norm(
        dim=-1, keepdim=True
    )


def _subdivided(path: Tensor, points: int) -> Tensor:
    """The same broken line, each segment cut into equal parts, at `points` points or a few more."""
    parts = math.ceil((points - 1) / (path.shape[-2] - 1))
    weights = torch.arange(parts, 0, -1, device=path.device, dtype=path.dtype) / parts
    cut = straight(path[..., :-1, :], path[..., 1:, :], weights).flatten(-3, -2)
    return torch.cat([cut, path[..., -1:, :]], -2)
