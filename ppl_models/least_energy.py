"""Paths of least energy between two latent codes."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models.batch import UsageError
from ppl_models.descent import descend
from ppl_models.path_energy import (
    check_ends,
    check_generator,
    end_images,
    line,
    lower_bound,
    pullback_energy,
    pullback_segments,
    segments,
)
from ppl_models.paths import subdivided
from ppl_models.reprs import fields_repr

__all__ = ["LeastEnergyPath", "least_energy_path", "pullback_path"]


class LeastEnergyPath(NamedTuple):
    r"""Paths of least energy with what says how good they are, per pair.

    Attributes:
        path: Points from z_a to z_b, `(*batch, nodes, latents)`.
        energy: Their energy, `(*batch)`.
        straight: The straight line's energy, `(*batch)`, as finely summed.
        lower_bound: What no path's energy is below, `(*batch)`.
        speed_variation: Standard deviation over mean, along the path, of :math:`w \lVert \dot Z \rVert^2`, or of
            :math:`\lVert J \dot Z \rVert^2` for `pullback_path`, `(*batch)`: 0 at an optimum, up to the error of the
            discretisation; NaN where both codes are one.
        gradient_norm: Norm of the energy's gradient in the inner points, `(*batch)`.
    """

    path: Tensor
    energy: Tensor
    straight: Tensor
    lower_bound: Tensor
    speed_variation: Tensor
    gradient_norm: Tensor

    __repr__ = fields_repr


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

    Each goes down, as `ppl_models.descent.descend` says, from the straight line, all but the first with random sine
    modes added: a line that runs over a ridge may stay there. A step is one evaluation of the generator and its
    gradient on all paths at once. Every pair gets the same modes, times its own distance: what is found for a pair
    does not hang on those beside it.

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
    check_generator(generator, z_a)
    check_ends(z_a, z_b)
    with torch.no_grad():
        x_a, x_b = (x.detach() for x in end_images(generator, z_a, z_b, x_a, x_b))
    terms = partial(segments, generator, x_a=x_a, x_b=x_b)
    lower = lower_bound(z_a, z_b, x_a, x_b).detach()
    return _least(terms, z_a, z_b, lower, nodes=nodes, steps=steps, starts=starts, seed=seed, subpoints=subpoints)


def pullback_path(
    generator: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    *,
    nodes: int = 32,
    steps: int = 50,
    starts: int = 4,
    seed: int = 0,
    subpoints: int | None = None,
) -> LeastEnergyPath:
    r"""Geodesics of the metric that the generator pulls back from the pixels, the paths of least `pullback_energy`.

    Found as by `least_energy_path`, from the same starts. What is even along them is the speed of the images,
    :math:`\lVert J \dot Z \rVert^2`, and no energy is below the straight segment's between both images,
    :math:`\lVert x_A - x_B \rVert^2`. The sum over a few nodes takes a curve of images by its chords, so that what is
    least on those may pass over what lies between them: `subpoints` shows how far.

    Shao et al. 2017, arXiv:1711.08014; Arvanitidis et al. 2018, arXiv:1710.11379.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`, differentiable; a module in eval mode.
        z_a: Where the paths start, `(*batch, latents)`.
        z_b: Where they end, the same shape.
        nodes: Points of a path, both ends among them.
        steps: Of descent.
        starts: Descents for each pair.
        seed: Of the sine modes.
        subpoints: As of `least_energy_path`.

    Returns:
        The paths, their pull-back energies and how far they are from optimal; without gradients.

    Raises:
        UsageError: As `least_energy_path`.
    """
    check_generator(generator, z_a)
    check_ends(z_a, z_b)
    terms = partial(pullback_segments, generator)
    with torch.no_grad():
        lower = pullback_energy(generator, line(z_a, z_b, 2))
    return _least(terms, z_a, z_b, lower, nodes=nodes, steps=steps, starts=starts, seed=seed, subpoints=subpoints)


def _least(
    terms: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    lower: Tensor,
    *,
    nodes: int,
    steps: int,
    starts: int,
    seed: int,
    subpoints: int | None,
) -> LeastEnergyPath:
    """The best descents of an energy, given by what each segment of a path adds, `(*batch, nodes - 1)`."""
    if nodes < 3 or starts < 1:
        raise UsageError(f"found {nodes} nodes and {starts} starts, expected at least 3 and 1")
    direct = line(z_a.detach(), z_b.detach(), nodes)
    paths, energies, gradients = descend(terms, direct + _sine_modes(direct, starts, seed), steps=steps)
    best = energies.argmin(0, keepdim=True)
    path = paths.take_along_dim(best[..., None, None], 0).squeeze(0)
    norm = gradients.square().sum((-2, -1)).sqrt().take_along_dim(best, 0).squeeze(0)
    with torch.no_grad():
        fine, fine_line = (path, direct) if subpoints is None else (subdivided(z, subpoints) for z in (path, direct))
        speeds, line_speeds = terms(fine), terms(fine_line)
        energy, line_energy = (speed.sum(-1) * speed.shape[-1] for speed in (speeds, line_speeds))
        variation = speeds.std(-1, correction=0) / speeds.mean(-1)
    return LeastEnergyPath(path, energy, line_energy, lower, variation, norm)


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
