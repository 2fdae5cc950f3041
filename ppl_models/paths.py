r"""Paths between two latent codes: mixtures of the ends, and paths of least energy through a generator's images.

The energy of a path Z from :math:`z_A` to :math:`z_B` between two images is

.. math:: E = \int_0^1 w(Z)\, \lVert \dot Z \rVert^2 dt, \qquad
    w(z) = \lVert G(z) - x_A \rVert^2 + \lVert G(z) - x_B \rVert^2
         = 2\, \lVert G(z) - m \rVert^2 + \tfrac12 \lVert x_A - x_B \rVert^2, \quad m = \tfrac12 (x_A + x_B).

It asks that the images passed stay close to both ends. Its minimisers are geodesics of the metric :math:`w I` on the
latents, in which the generator's Jacobian has no part: they are not the geodesics of the pull-back metric
:math:`J^\top J`, whose energy is `pullback_energy`. No prior is in either.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError

__all__ = [
    "LeastEnergyPath",
    "PathEnergyBounds",
    "energy_bounds",
    "least_energy_path",
    "normalised_path_energy",
    "path_energy",
    "pullback_energy",
    "spherical",
    "straight",
    "variance_preserving",
]


def straight(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    r"""Mix two codes linearly, :math:`Z(a) = a\, z_1 + (1 - a)\, z_2`.

    Args:
        start: :math:`z_1`, reached at weight 1, `(*batch, latents)`.
        end: :math:`z_2`, reached at weight 0, the same shape.
        weights: The values of a in [0, 1], `(steps,)`.

    Returns:
        Codes `(*batch, steps, latents)`.
    """
    a = weights.unsqueeze(-1)
    return a * start.unsqueeze(-2) + (1 - a) * end.unsqueeze(-2)


def spherical(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    r"""Mix two codes at a constant rate of the angle :math:`\Omega` between them; straight where they are parallel.

    .. math:: Z(a) = \frac{\sin(a \Omega)}{\sin \Omega}\, z_1 + \frac{\sin((1 - a) \Omega)}{\sin \Omega}\, z_2

    White 2016, arXiv:1609.04468.

    Args:
        start: :math:`z_1`, reached at weight 1, `(*batch, latents)`.
        end: :math:`z_2`, reached at weight 0, the same shape.
        weights: The values of a in [0, 1], `(steps,)`.

    Returns:
        Codes `(*batch, steps, latents)`.
    """
    a = weights.unsqueeze(-1)
    cosine = torch.cosine_similarity(start, end, dim=-1)[..., None, None].clamp(-1, 1)
    parallel = 1 - cosine.square() < 100 * torch.finfo(cosine.dtype).eps
    # The angle is made a harmless one where it is not used, so that no gradient is NaN.
    angle = torch.where(parallel, 0.0, cosine).acos()
    first = torch.where(parallel, a, (a * angle).sin() / angle.sin())
    second = torch.where(parallel, 1 - a, ((1 - a) * angle).sin() / angle.sin())
    return first * start.unsqueeze(-2) + second * end.unsqueeze(-2)


def variance_preserving(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    r"""Mix two codes so that independent standard normal ends give standard normal points in between.

    .. math:: Z(a) = \sqrt{a}\, z_1 + \sqrt{1 - a}\, z_2

    At equal steps of a its speed has no bound at the ends, and the sum of a `path_energy` no limit; weights
    :math:`\sin^2(\pi t / 2)`, t at equal steps, go through the same codes at an even rate.

    Args:
        start: :math:`z_1`, reached at weight 1, `(*batch, latents)`.
        end: :math:`z_2`, reached at weight 0, the same shape.
        weights: The values of a in [0, 1], `(steps,)`.

    Returns:
        Codes `(*batch, steps, latents)`.
    """
    a = weights.unsqueeze(-1)
    return a.sqrt() * start.unsqueeze(-2) + (1 - a).sqrt() * end.unsqueeze(-2)


def path_energy(generator: Callable[[Tensor], Tensor], path: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
    r"""The energy of paths between two images, by the midpoint rule.

    .. math:: E_N = N \sum_{i=1}^N w\bigl(\tfrac12 (z_{i-1} + z_i)\bigr)\, \lVert z_i - z_{i-1} \rVert^2

    of N + 1 points at equal times, w as at the top of this module. The error falls as 1/N²: half the trapezoid rule's
    on straight lines, and at minima, where it was measured, 2 to 5 times less. The lower bound of `energy_bounds` holds
    for the sum itself.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`.
        path: Points, both ends among them, `(*batch, nodes, latents)`.
        x_a: The first image, `(*batch, *event)` or what broadcasts to it.
        x_b: The second image, likewise.

    Returns:
        `(*batch)`.

    Raises:
        UsageError: A path has fewer than two points, or the generator's images do not fit the paths.
    """
    return _segments(generator, path, x_a, x_b).sum(-1) * (path.shape[-2] - 1)


def pullback_energy(generator: Callable[[Tensor], Tensor], path: Tensor) -> Tensor:
    r"""The energy of the images along paths, :math:`N \sum_i \lVert G(z_{i+1}) - G(z_i) \rVert^2`.

    It tends to :math:`\int \lVert J \dot Z \rVert^2 dt`, the energy under the metric that the generator pulls back from
    the pixels (Shao et al. 2017, arXiv:1711.08014; Arvanitidis et al. 2018, arXiv:1710.11379): not `path_energy`.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`.
        path: Points, both ends among them, `(*batch, nodes, latents)`.

    Returns:
        `(*batch)`.

    Raises:
        UsageError: A path has fewer than two points, or the generator's images do not fit the paths.
    """
    _check_nodes(path.shape[-2])
    images = _images(generator, path).flatten(path.dim() - 1)
    return images.diff(dim=-2).square().sum((-2, -1)) * (path.shape[-2] - 1)


class PathEnergyBounds(NamedTuple):
    """What the least energy lies between, `(*batch)` each.

    Attributes:
        lower: Half the squared distance of the images times that of the codes.
        straight: The straight line's energy.
    """

    lower: Tensor
    straight: Tensor


def energy_bounds(
    generator: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    x_a: Tensor | None = None,
    x_b: Tensor | None = None,
    *,
    nodes: int = 32,
) -> PathEnergyBounds:
    r"""Bounds of the least energy, :math:`\tfrac12 \lVert x_A - x_B \rVert^2 \lVert z_B - z_A \rVert^2 \le E \le E_s`.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`.
        z_a: Where the paths start, `(*batch, latents)`.
        z_b: Where they end, the same shape.
        x_a: The first image, `(*batch, *event)`; G(z_a) by default.
        x_b: The second image, likewise.
        nodes: Points of the straight line, both ends among them.

    Returns:
        Both bounds.

    Raises:
        UsageError: Codes of different shapes, fewer than two nodes, or images that do not fit.
    """
    _check_ends(z_a, z_b)
    x_a, x_b = _ends(generator, z_a, z_b, x_a, x_b)
    line = _line(z_a, z_b, nodes)
    return PathEnergyBounds(_lower_bound(z_a, z_b, x_a, x_b), path_energy(generator, line, x_a, x_b))


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
    may stay there), along the gradient in the
    Sobolev norm :math:`\int \lVert \dot Z \rVert^2`: multiplied by the inverse of tridiag(-1, 2, -1), which takes away
    the stiffness that grows as nodes². Steps have the length of Barzilai and Borwein 1988, and one that does not
    lower its path's energy enough is taken back and halved, so that no energy ever rises. A step is one evaluation
    of the generator and its gradient on all paths at once. Every pair gets the same modes, times its own distance:
    what is found for a pair does not hang on those beside it.

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
    _check_ends(z_a, z_b)
    z_a, z_b = z_a.detach(), z_b.detach()
    with torch.enable_grad():
        if not generator(z_a.clone().requires_grad_()).requires_grad:
            raise UsageError(
                "the generator's images do not depend on their latents differentiably, expected a gradient"
            )
    with torch.no_grad():
        x_a, x_b = _ends(generator, z_a, z_b, x_a, x_b)
        line = _line(z_a, z_b, nodes)
        paths = line + _sine_modes(line, starts, seed)
    paths, energies, gradients = _descend(generator, paths, x_a.detach(), x_b.detach(), steps)
    best = energies.argmin(0, keepdim=True)
    path = paths.take_along_dim(best[..., None, None], 0).squeeze(0)
    norm = gradients.square().sum((-2, -1)).sqrt().take_along_dim(best, 0).squeeze(0)
    with torch.no_grad():
        fine, fine_line = (path, line) if subpoints is None else (_subdivided(z, subpoints) for z in (path, line))
        speeds = _segments(generator, fine, x_a, x_b)
        energy = speeds.sum(-1) * speeds.shape[-1]
        line_energy = path_energy(generator, fine_line, x_a, x_b)
        lower = _lower_bound(z_a, z_b, x_a, x_b)
        variation = speeds.std(-1, correction=0) / speeds.mean(-1)
    return LeastEnergyPath(path, energy, line_energy, lower, variation, norm)


def normalised_path_energy(
    generator: Callable[[Tensor], Tensor], z_a: Tensor, z_b: Tensor, *, nodes: int = 6, detached: bool = True
) -> Tensor:
    r"""The straight path's energy between its own ends' images over its lower bound, a regulariser of generators.

    .. math:: R = 1 + \frac4N \sum_{i=1}^N \frac{\lVert G(z_{i-1/2}) - m \rVert^2}{\lVert x_A - x_B \rVert^2} \ge 1,
        \qquad x_A = G(z_A),\; x_B = G(z_B)

    at the middles of N = nodes - 1 segments, the distance of the codes cancelling. A generator linear in z has
    :math:`R = \tfrac43 - 1 / (3 N^2)`; 1 means the average of both images all the way between them. The generator is
    run once, and differentiated once.

    With constant ends the gradient is not that of R: it draws each image to averages of others, a linear generator
    to a smaller one, and alone it collapsed a `Generator(ConvDecoder())` within 40 steps of Adam while R rose. With
    gradients through the ends, R is blind to the scale of a linear generator, and fell while the images stayed apart.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`.
        z_a: Where the paths start, `(*batch, latents)`.
        z_b: Where they end, the same shape.
        nodes: Points of a path, both ends among them.
        detached: Whether the images of the ends are constants.

    Returns:
        `(*batch)`, through which gradients reach the generator's weights.

    Raises:
        UsageError: Codes of different shapes, fewer than two nodes, or images that do not fit.
    """
    _check_ends(z_a, z_b)
    middles = _middles(_line(z_a, z_b, nodes))
    # In one call, so that a generator with batch norm sees one batch.
    images = _images(generator, torch.cat([z_a.unsqueeze(-2), middles, z_b.unsqueeze(-2)], -2)).flatten(z_a.dim())
    x_a, between, x_b = images[..., :1, :], images[..., 1:-1, :], images[..., -1:, :]
    if detached:
        x_a, x_b = x_a.detach(), x_b.detach()
    apart = (x_a - x_b).square().sum(-1)
    off = (between - (x_a + x_b) / 2).square().sum(-1)
    # Ends with one image are no reason for NaN in the weights.
    return 1 + 4 * (off / apart.clamp_min(torch.finfo(apart.dtype).eps)).mean(-1)


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

    segments = paths.shape[-2] - 1
    i = torch.arange(1, segments, device=paths.device, dtype=paths.dtype)
    # The inverse of tridiag(-1, 2, -1).
    sobolev = torch.minimum(i, i[:, None]) * (segments - torch.maximum(i, i[:, None])) / segments
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


def _segments(generator: Callable[[Tensor], Tensor], path: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
    """What each segment adds: w at its middle times its squared length, `(*batch, nodes - 1)`."""
    _check_nodes(path.shape[-2])
    images = _images(generator, _middles(path))
    event_dim = images.dim() - path.dim() + 1
    event = images.shape[-event_dim:]
    if x_a.shape[-event_dim:] != event or x_b.shape[-event_dim:] != event:
        shapes = f"{tuple(x_a.shape)} and {tuple(x_b.shape)}"
        raise UsageError(
            f"images x of shapes {shapes}, expected (*batch, *event), the event as the generator's, {tuple(event)}"
        )
    x_a, x_b = x_a.unsqueeze(-event_dim - 1), x_b.unsqueeze(-event_dim - 1)
    # Around the middle of both images: one difference the size of all images instead of two.
    off, apart = (_squares(x, x.dim() - event_dim) for x in (images - (x_a + x_b) / 2, x_a - x_b))
    return (2 * off + 0.5 * apart) * path.diff(dim=-2).square().sum(-1)


def _images(generator: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Images of latents `(*, latents)`, in their dtype, under autocast too."""
    images = generator(z)
    if images.dim() < z.dim() or images.shape[: z.dim() - 1] != z.shape[:-1]:
        raise UsageError(f"images of shape {tuple(images.shape)} of latents {tuple(z.shape)}, expected (*, *event)")
    return images.to(z.dtype)


def _ends(
    generator: Callable[[Tensor], Tensor], z_a: Tensor, z_b: Tensor, x_a: Tensor | None, x_b: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The images that a path is between: the ends' own where none are given."""
    x_a, x_b = (_images(generator, z) if x is None else x for z, x in ((z_a, x_a), (z_b, x_b)))
    if x_a.shape != x_b.shape:
        raise UsageError(
            f"images of shapes {tuple(x_a.shape)} and {tuple(x_b.shape)}, expected one shape for both ends"
        )
    if x_a.shape[: z_a.dim() - 1] != z_a.shape[:-1]:
        raise UsageError(
            f"images x of shape {tuple(x_a.shape)} for codes {tuple(z_a.shape)}, expected two for each pair"
        )
    return x_a, x_b


def _lower_bound(z_a: Tensor, z_b: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
    return 0.5 * _squares(x_a - x_b, z_a.dim() - 1) * (z_b - z_a).square().sum(-1)


def _line(z_a: Tensor, z_b: Tensor, nodes: int) -> Tensor:
    """The straight path from z_a to z_b at equal times, `(*batch, nodes, latents)`."""
    _check_nodes(nodes)
    return straight(z_b, z_a, torch.linspace(0, 1, nodes, device=z_a.device, dtype=z_a.dtype))


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


def _middles(path: Tensor) -> Tensor:
    return (path[..., 1:, :] + path[..., :-1, :]) / 2


def _squares(x: Tensor, start_dim: int) -> Tensor:
    """Sums of squares over the dimensions from `start_dim` on."""
    return x.flatten(start_dim).square().sum(-1)


def _check_nodes(nodes: int) -> None:
    if nodes < 2:
        raise UsageError(f"a path of {nodes} points, expected at least 2")


def _check_ends(z_a: Tensor, z_b: Tensor) -> None:
    if z_a.shape != z_b.shape:
        raise UsageError(f"codes of shapes {tuple(z_a.shape)} and {tuple(z_b.shape)}, expected one shape for both ends")
