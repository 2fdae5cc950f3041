"""Whether solutions of an inversion are local minima: their gradients and curvature, what is near them, clusters."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models.inversion import along_latents, images_of, in_double, loss_and_gradient, squared_error

__all__ = ["Minima", "clusters", "minima", "typical_distances"]

ROWS_AT_ONCE = 256
"""Codes whose Hessians are found together, which bounds the memory."""


class Minima(NamedTuple):
    r"""What there is around codes `(*, latents)`, each `(*)` but the eigenvalues.

    Attributes:
        loss: Squared error per pixel.
        gradient_norm: Norm of its gradient, in float64.
        eigenvalues: Of its Hessian, ascending, `(*, latents)`, in float64. Of a ReLU network, whose loss is smooth in
            cells and has kinks between them, they say nothing of the kinks.
        stationarity: The least norm among the convex combinations of gradients at points in a small ball around.
        fall: How much lower than here the lowest of these points is; negative where all of them are higher.
    """

    loss: Tensor
    gradient_norm: Tensor
    eigenvalues: Tensor
    stationarity: Tensor
    fall: Tensor

    def smooth(self, scale: Tensor | float, *, tolerance: float = 1e-6) -> Tensor:
        """Which are minima by gradient and Hessian: a norm below `tolerance * scale`, and positive eigenvalues."""
        return (self.gradient_norm < tolerance * scale) & (self.eigenvalues[..., 0] > 0)

    def nonsmooth(self, scale: Tensor | float, *, tolerance: float = 1e-3) -> Tensor:
        """Which are minima by the ball around: zero is nearly a generalised gradient there, and nothing is lower."""
        return (self.stationarity < tolerance * scale) & (self.fall <= 1e-6 * self.loss)


def minima(
    generator: Callable[[Tensor], Tensor],
    images: Tensor,
    z: Tensor,
    *,
    radius: float = 1e-3,
    probes: int | None = None,
    seed: int = 0,
) -> Minima:
    r"""Look around codes that an inversion has found.

    At a minimum with a kink gradients do not vanish, but some convex combination of those around does (Clarke): its
    least norm over samples in a ball is the measure of stationarity of Burke, Lewis and Overton 2005.

    Args:
        generator: As in `invert`.
        images: Targets `(*batch, *event)`.
        z: Codes, `(*, *batch, latents)`.
        radius: Of the ball, in units of :math:`\sqrt{\text{latents}}`, the length of a code of N(0, I).
        probes: Points in it, half of them on its surface; four for each latent by default.
        seed: Of these points, the same for every code.
    """
    latents = z.shape[-1]
    x = _targets(generator, images, z)
    count = 4 * latents if probes is None else probes
    drawn = torch.Generator().manual_seed(seed)
    ball = torch.randn(count, latents, generator=drawn, dtype=torch.float64)
    length = torch.rand(count, 1, generator=drawn, dtype=torch.float64) ** (1 / latents)
    length[::2] = 1
    ball = (radius * math.sqrt(latents) * length * ball / ball.norm(dim=-1, keepdim=True)).to(z.device)
    precise, rows = in_double(generator), z.reshape(-1, latents).double()
    parts = []
    for codes, target in zip(rows.split(ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), strict=True):
        loss, gradient = loss_and_gradient(precise, codes, target.double())
        eigenvalues = torch.linalg.eigvalsh(_hessians(precise, codes, target.double()))
        # In the images' precision: differences of 1e-6 are looked for here, and there are many points.
        around = (codes.unsqueeze(0) + ball.unsqueeze(1)).flatten(0, 1).to(images.dtype)
        near, slopes = loss_and_gradient(generator, around, target.expand(count, -1, -1).flatten(0, 1))
        with torch.no_grad():
            here = squared_error(generator, codes.to(images.dtype), target)
        slopes = torch.cat([slopes.unflatten(0, (count, -1)).double(), gradient.unsqueeze(0)])
        fall = (here - near.unflatten(0, (count, -1)).amin(0)).double()
        parts.append((loss, gradient.norm(dim=-1), eigenvalues, _least_norm(slopes.transpose(0, 1)), fall))
    return Minima(*(torch.cat(v).reshape(*z.shape[:-1], *v[0].shape[1:]) for v in zip(*parts, strict=True)))


def clusters(points: Tensor, threshold: float) -> Tensor:
    """Clusters of single linkage: points nearer than a threshold are in one, and whatever they are linked to.

    Args:
        points: `(count, *batch, features)`, those of each batch element clustered by themselves.
        threshold: The distance.

    Returns:
        The first point in the same cluster, `(count, *batch)`.
    """
    own = points.movedim(0, -2)
    linked = torch.cdist(own, own, compute_mode="donot_use_mm_for_euclid_dist") < threshold
    count = points.shape[0]
    linked = linked | torch.eye(count, dtype=torch.bool, device=points.device)
    for _ in range(math.ceil(math.log2(max(count, 2)))):
        linked = (linked.float() @ linked.float()) > 0  # paths twice as long
    return linked.int().argmax(-1).movedim(-1, 0)


@torch.no_grad()
def typical_distances(
    generator: Callable[[Tensor], Tensor], latents: int, like: Tensor, *, seed: int = 0
) -> tuple[float, float]:
    """Root mean square distances of two codes of N(0, I), and of their images: what near and far are relative to."""
    drawn = torch.randn(64, latents, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made = images_of(generator, drawn.to(like))
    return math.sqrt(2 * latents), float((made[:32] - made[32:]).square().sum(-1).mean().sqrt())


def _targets(generator: Callable[[Tensor], Tensor], images: Tensor, z: Tensor) -> Tensor:
    """A target for each code, `(rows, pixels)`."""
    with torch.no_grad():
        event_dim = generator(z[(0,) * (z.dim() - 1)].to(images.dtype).unsqueeze(0)).dim() - 1
    flat = images.flatten(images.dim() - event_dim)
    return flat.expand(*z.shape[:-1], flat.shape[-1]).reshape(-1, flat.shape[-1])


def _hessians(generator: Callable[[Tensor], Tensor], z: Tensor, x: Tensor) -> Tensor:
    """Hessians of the loss, `(rows, latents, latents)`, a pass forward over backward for each latent."""

    def total(z: Tensor) -> Tensor:
        return squared_error(generator, z, x).sum()

    columns = along_latents(torch.func.grad(total), z).movedim(0, -1)
    return (columns + columns.mT) / 2


def _least_norm(vectors: Tensor, steps: int = 1000) -> Tensor:
    """The least norm in the convex hull of vectors `(*, count, features)`, by Frank and Wolfe's steps."""
    products = vectors @ vectors.mT
    weights = torch.full_like(products[..., 0], 1 / products.shape[-1])
    for _ in range(steps):
        slopes = (products @ weights.unsqueeze(-1)).squeeze(-1)
        towards = torch.zeros_like(weights).scatter_(-1, slopes.argmin(-1, keepdim=True), 1.0) - weights
        fall = -(towards * slopes).sum(-1)
        bend = (towards * (products @ towards.unsqueeze(-1)).squeeze(-1)).sum(-1)
        step = (fall / bend.clamp_min(torch.finfo(bend.dtype).tiny)).clamp(0, 1)
        weights = weights + step.unsqueeze(-1) * towards
    return (weights.unsqueeze(-1) * vectors).sum(-2).norm(dim=-1)
