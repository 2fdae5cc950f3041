r"""The energy of paths between two latent codes through a generator's images.

The energy of a path Z from :math:`z_A` to :math:`z_B` between two images is

.. math:: E = \int_0^1 w(Z)\, \lVert \dot Z \rVert^2 dt, \qquad
    w(z) = \lVert G(z) - x_A \rVert^2 + \lVert G(z) - x_B \rVert^2
         = 2\, \lVert G(z) - m \rVert^2 + \tfrac12 \lVert x_A - x_B \rVert^2, \quad m = \tfrac12 (x_A + x_B).

It asks that the images passed stay close to both ends. Its minimisers are geodesics of the metric :math:`w I` on the
latents, in which the generator's Jacobian has no part: they are not the geodesics of the pull-back metric
:math:`J^\top J`, whose energy is `pullback_energy`. No prior is in either.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.paths import straight

__all__ = [
    "check_ends",
    "check_generator",
    "end_images",
    "line",
    "lower_bound",
    "normalised_path_energy",
    "path_energy",
    "pullback_energy",
    "pullback_segments",
    "segments",
]


def path_energy(generator: Callable[[Tensor], Tensor], path: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
    r"""The energy of paths between two images, by the midpoint rule.

    .. math:: E_N = N \sum_{i=1}^N w\bigl(\tfrac12 (z_{i-1} + z_i)\bigr)\, \lVert z_i - z_{i-1} \rVert^2

    of N + 1 points at equal times, w as at the top of this module. The error falls as 1/N²: half the trapezoid rule's
    on straight lines, and at minima, where it was measured, 2 to 5 times less. `lower_bound` holds
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
    return segments(generator, path, x_a, x_b).sum(-1) * (path.shape[-2] - 1)


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
    return pullback_segments(generator, path).sum(-1) * (path.shape[-2] - 1)


def normalised_path_energy(
    generator: Callable[[Tensor], Tensor], z_a: Tensor, z_b: Tensor, *, nodes: int = 6
) -> Tensor:
    r"""The straight path's energy between its own ends' images over its lower bound, a regulariser of generators.

    .. math:: R = 1 + \frac4N \sum_{i=1}^N \frac{\lVert G(z_{i-1/2}) - m \rVert^2}{\lVert x_A - x_B \rVert^2} \ge 1,
        \qquad x_A = G(z_A),\; x_B = G(z_B)

    at the middles of N = nodes - 1 segments, the distance of the codes cancelling. A generator linear in z has
    :math:`R = \tfrac43 - 1 / (3 N^2)`; 1 means the average of both images all the way between them. The generator is
    run once, and differentiated once.

    Gradients pass through the images of the ends too: R is then blind to the scale of a linear generator. With constant
    ends they would draw a linear generator to a smaller one, at the rate 2/3 (1 - 1/N²) in its scale.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`.
        z_a: Where the paths start, `(*batch, latents)`.
        z_b: Where they end, the same shape.
        nodes: Points of a path, both ends among them.

    Returns:
        `(*batch)`, through which gradients reach the generator's weights.

    Raises:
        UsageError: Codes of different shapes, fewer than two nodes, or images that do not fit.
    """
    check_ends(z_a, z_b)
    middles = _middles(line(z_a, z_b, nodes))
    # In one call, so that a generator with batch norm sees one batch.
    images = _images(generator, torch.cat([z_a.unsqueeze(-2), middles, z_b.unsqueeze(-2)], -2)).flatten(z_a.dim())
    x_a, between, x_b = images[..., :1, :], images[..., 1:-1, :], images[..., -1:, :]
    apart = (x_a - x_b).square().sum(-1)
    off = (between - (x_a + x_b) / 2).square().sum(-1)
    # Ends with one image are no reason for NaN in the weights.
    return 1 + 4 * (off / apart.clamp_min(torch.finfo(apart.dtype).eps)).mean(-1)


def segments(generator: Callable[[Tensor], Tensor], path: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
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


def pullback_segments(generator: Callable[[Tensor], Tensor], path: Tensor) -> Tensor:
    """What each segment adds to the pull-back energy: the squared distance of its images, `(*batch, nodes - 1)`."""
    _check_nodes(path.shape[-2])
    return _images(generator, path).flatten(path.dim() - 1).diff(dim=-2).square().sum(-1)


def _images(generator: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Images of latents `(*, latents)`, in their dtype, under autocast too."""
    images = generator(z)
    if images.dim() < z.dim() or images.shape[: z.dim() - 1] != z.shape[:-1]:
        raise UsageError(f"images of shape {tuple(images.shape)} of latents {tuple(z.shape)}, expected (*, *event)")
    return images.to(z.dtype)


def end_images(
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


def lower_bound(z_a: Tensor, z_b: Tensor, x_a: Tensor, x_b: Tensor) -> Tensor:
    """What no path's energy is below, `(*batch)`."""
    return 0.5 * _squares(x_a - x_b, z_a.dim() - 1) * (z_b - z_a).square().sum(-1)


def line(z_a: Tensor, z_b: Tensor, nodes: int) -> Tensor:
    """The straight path from z_a to z_b at equal times, `(*batch, nodes, latents)`."""
    _check_nodes(nodes)
    return straight(z_b, z_a, torch.linspace(0, 1, nodes, device=z_a.device, dtype=z_a.dtype))


def _middles(path: Tensor) -> Tensor:
    return (path[..., 1:, :] + path[..., :-1, :]) / 2


def _squares(x: Tensor, start_dim: int) -> Tensor:
    """Sums of squares over the dimensions from `start_dim` on."""
    return x.flatten(start_dim).square().sum(-1)


def _check_nodes(nodes: int) -> None:
    if nodes < 2:
        raise UsageError(f"a path of {nodes} points, expected at least 2")


def check_generator(generator: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The images of codes, by a generator that can be descended through.

    Raises:
        UsageError: A module in training mode or in another precision than the codes, or a generator that is not
            differentiable.
    """
    if isinstance(generator, nn.Module):
        if any(module.training for module in generator.modules()):
            raise UsageError(
                "the generator is in training mode, expected generator.eval(): batch norm would couple codes"
            )
        weight = next(generator.parameters(), z)
        if weight.dtype != z.dtype:
            raise UsageError(
                f"found {z.dtype}, and a generator of {weight.dtype}: expected one of them, as by .double()"
            )
    with torch.enable_grad():
        made = generator(z.detach().clone().requires_grad_())
    if not made.requires_grad:
        raise UsageError("the generator's images do not depend on their latents differentiably, expected a gradient")
    return made.detach()


def check_ends(z_a: Tensor, z_b: Tensor) -> None:
    """Refuse codes of different shapes."""
    if z_a.shape != z_b.shape:
        raise UsageError(f"codes of shapes {tuple(z_a.shape)} and {tuple(z_b.shape)}, expected one shape for both ends")
