"""Whether solutions of an inversion are local minima: their gradients and curvature, what is near them, clusters."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models.batch import UsageError
from ppl_models.reprs import fields_repr
from ppl_models.squared_error import (
    ROWS_AT_ONCE,
    SOLVED,
    along_latents,
    images_of,
    loss_and_gradient,
    measurable,
    squared_error,
)

__all__ = ["Minima", "clusters", "minima", "typical_distances"]

KINK = 1e-4
"""What of a typical gradient jumps at a kink: smooth losses differ from their expansion by a tenth of it there."""

DEFINITE = 1e-8
"""What of the largest eigenvalue is no more than rounding of a Hessian."""


class Minima(NamedTuple):
    r"""What there is around codes `(*, latents)`, each `(*)` but the eigenvalues, all in float64.

    Attributes:
        loss: Squared error per pixel.
        gradient_norm: Norm of its gradient.
        eigenvalues: Of its Hessian, ascending, `(*, latents)`. Of a ReLU network, whose loss is smooth in cells and
            has kinks between them, they say nothing of the kinks.
        stationarity: The least norm among the convex combinations of gradients at points in a small ball around.
        jump: The most that one of these gradients differs from what the gradient here and the Hessian say of it, which
            is little where the loss is smooth.
        fall: How much lower than here the lowest point found is, among those in the ball and some along the
            eigenvector of least curvature and the steepest descent direction; negative where all of them are higher.
    """

    loss: Tensor
    gradient_norm: Tensor
    eigenvalues: Tensor
    stationarity: Tensor
    jump: Tensor
    fall: Tensor

    __repr__ = fields_repr

    def smooth(self, scale: Tensor | float, *, tolerance: float = 1e-6) -> Tensor:
        """Which are minima by gradient and Hessian: a norm below `tolerance * scale`, and positive eigenvalues."""
        return (self.gradient_norm < tolerance * scale) & (self.eigenvalues[..., 0] > self._rounding)

    def flat(self, scale: Tensor | float, *, tolerance: float = 1e-6) -> Tensor:
        """Which have no gradient and nothing lower around, but curvature of none in some direction: valleys, plains."""
        level = self.eigenvalues[..., 0].abs() <= self._rounding
        return (self.gradient_norm < tolerance * scale) & level & self._lowest

    def nonsmooth(self, scale: Tensor | float, *, tolerance: float = 1e-3) -> Tensor:
        """Which are minima with a kink: zero is nearly a generalised gradient there, and nothing is lower.

        What cancels the gradient has to be a jump of it, not a curvature, and the curvature has to be positive or
        nearly so. This refuses minima where a kink holds what curves down beside it.
        """
        jumps = (self.jump > self.gradient_norm / 2) & (self.jump > KINK * scale)
        return (
            jumps
            & (self.stationarity < tolerance * scale)
            & (self.eigenvalues[..., 0] >= -1e-3 * self._largest)
            & self._lowest
        )

    @property
    def _largest(self) -> Tensor:
        return self.eigenvalues.abs().amax(-1)

    @property
    def _rounding(self) -> Tensor:
        return DEFINITE * self._largest

    @property
    def _lowest(self) -> Tensor:
        return self.fall <= 1e-6 * self.loss.clamp_min(SOLVED)


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
    least norm over samples in a ball is the measure of stationarity of Burke, Lewis and Overton 2005, and minus the
    combination itself is their direction of descent.

    Args:
        generator: As in `invert`.
        images: Targets `(*batch, *event)`.
        z: Codes, `(*, *batch, latents)`.
        radius: Of the ball, in units of :math:`\sqrt{\text{latents}}`, the length of a code of N(0, I).
        probes: Points in it, half of them on its surface; four for each latent by default.
        seed: Of these points, the same for every code.

    Raises:
        UsageError: A module in training mode, or a generator that is not differentiable or does not take float64.
    """
    latents = z.shape[-1]
    precise, event = measurable(generator, latents, images)
    flat = images.flatten(images.dim() - len(event)).double()
    x = flat.expand(*z.shape[:-1], flat.shape[-1]).reshape(-1, flat.shape[-1])
    if probes is not None and probes < 1:
        raise UsageError(f"probes: found {probes}, expected 1 or more")
    count, reach = 4 * latents if probes is None else probes, radius * math.sqrt(latents)
    drawn = torch.Generator().manual_seed(seed)
    ball = torch.randn(count, latents, generator=drawn, dtype=torch.float64)
    length = torch.rand(count, 1, generator=drawn, dtype=torch.float64) ** (1 / latents)
    length[::2] = 1
    ball = (reach * length * ball / ball.norm(dim=-1, keepdim=True)).to(z.device)
    at_once = max(1, ROWS_AT_ONCE // count)
    pairs = zip(z.reshape(-1, latents).double().split(at_once), x.split(at_once), strict=True)
    parts = [_around(precise, codes, targets, ball, reach) for codes, targets in pairs]
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


def _around(
    precise: Callable[[Tensor], Tensor], z: Tensor, x: Tensor, ball: Tensor, reach: float
) -> tuple[Tensor, ...]:
    """The fields of `Minima` for codes `(rows, latents)`, by points of a ball `(count, latents)`."""
    loss, gradient = loss_and_gradient(precise, z, x)
    hessian = _hessians(precise, z, x).detach()
    eigenvalues, vectors = torch.linalg.eigh(hessian)
    near, slopes = loss_and_gradient(precise, (z + ball.unsqueeze(1)).flatten(0, 1), x.repeat(len(ball), 1))
    near, slopes = (value.unflatten(0, (len(ball), -1)) for value in (near, slopes))
    jump = (slopes - gradient - torch.einsum("rkl,cl->crk", hessian, ball)).norm(dim=-1).amax(0)
    least = _least_norm_point(torch.cat([slopes, gradient.unsqueeze(0)]).transpose(0, 1))
    down = -least / least.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(least.dtype).tiny)
    directions = torch.stack([vectors[..., 0], -vectors[..., 0], down])
    along = torch.cat([directions * length for length in (reach, reach / 10, reach / 100)])
    with torch.no_grad():
        further = squared_error(precise, (z + along).flatten(0, 1), x.repeat(len(along), 1))
    lowest = torch.cat([near, further.unflatten(0, (len(along), -1))]).amin(0)
    return loss, gradient.norm(dim=-1), eigenvalues, least.norm(dim=-1), jump, loss - lowest


def _hessians(generator: Callable[[Tensor], Tensor], z: Tensor, x: Tensor) -> Tensor:
    """Hessians of the loss, `(rows, latents, latents)`, a pass forward over backward for each latent."""

    def total(z: Tensor) -> Tensor:
        return squared_error(generator, z, x).sum()

    columns = along_latents(torch.func.grad(total), z).movedim(0, -1)
    return (columns + columns.mT) / 2


def _least_norm_point(vectors: Tensor, steps: int = 60) -> Tensor:
    r"""The point of least norm, `(*, features)`, in the convex hull of vectors `(*, count, features)`.

    By a primal-dual interior-point method for the weights, :math:`\min_w \tfrac12 \lVert V^\top w \rVert^2` with
    w ≥ 0 of sum 1: a system of as many unknowns as features a step. It ends where the gap of duality,
    :math:`\sum_i w_i s_i`, which bounds how far the squared norm is from the least, is rounding everywhere.
    """
    size = vectors.norm(dim=-1).amax(-1)[..., None, None].clamp_min(torch.finfo(vectors.dtype).tiny)
    unit, count = vectors / size, vectors.shape[-2]
    weights = torch.full_like(unit[..., 0], 1 / count)
    slopes = _times(unit @ unit.mT, weights)
    slack = slopes - slopes.amin(-1, keepdim=True) + 1
    identity = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    for _ in range(steps):
        gap = (weights * slack).sum(-1, keepdim=True)
        if bool((gap < 1e-14).all()):
            break
        # Newton's step for w s = gap / 10 / count, its matrix V V' + diag(s / w) inverted by Woodbury's identity.
        ratio = weights / slack
        scaled = ratio.unsqueeze(-1) * unit
        inner = torch.linalg.cholesky_ex(identity + unit.mT @ scaled)[0]
        aim = gap / (10 * count) / weights - slack
        right = torch.stack([torch.ones_like(aim), aim], -1)
        solved = ratio.unsqueeze(-1) * right - scaled @ torch.cholesky_solve(scaled.mT @ right, inner)
        ones, aimed = solved.unbind(-1)
        level = -aimed.sum(-1, keepdim=True) / ones.sum(-1, keepdim=True)
        step = level * ones + aimed
        slack_step = aim - slack / weights * step
        length = 0.99 * torch.minimum(_room(weights, step), _room(slack, slack_step))
        moving = (gap >= 1e-14) & step.isfinite().all(-1, keepdim=True)
        weights = torch.where(moving, weights + length * step, weights)
        slack = torch.where(moving, slack + length * slack_step, slack)
    return _times(vectors.mT, weights / weights.sum(-1, keepdim=True))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _room(values: Tensor, step: Tensor) -> Tensor:
    """How much of a step leaves positive values positive, at most 1 / 0.99, `(*, 1)`."""
    return torch.where(step < 0, -values / step, 1 / 0.99).amin(-1, keepdim=True).clamp_max(1 / 0.99)
