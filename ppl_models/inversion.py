"""Inversion of generators: the codes whose images are nearest to given ones, from many starts."""

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
)

__all__ = ["Inversion", "descended", "invert", "restarts_needed"]


class Inversion(NamedTuple):
    r"""Where descents from several starts ended, one for each restart and image.

    Attributes:
        z: Codes, `(restarts, *batch, latents)`, in float64.
        loss: Squared error per pixel there, `(restarts, *batch)`.
        gradient_norm: Norm of the loss's gradient there, `(restarts, *batch)`.
        descended: The loss before the polish, `(restarts, *batch)`.
        start_gradient_norm: Norm of the gradient at the starts, `(restarts, *batch)`: what a small one is small beside.
    """

    z: Tensor
    loss: Tensor
    gradient_norm: Tensor
    descended: Tensor
    start_gradient_norm: Tensor

    __repr__ = fields_repr


def invert(
    generator: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    latents: int | None = None,
    restarts: int = 32,
    steps: int = 200,
    polish: int = 15,
    settle: int = 200,
    seed: int = 0,
) -> Inversion:
    r"""Minimise :math:`\lVert G(z) - x \rVert^2 / \text{pixels}` over z from many starts, for every image at once.

    Starts are drawn from N(0, I), the same for every image. Each descends by Adam, at a rate that falls from 0.1 as a
    cosine, and is polished by Levenberg–Marquardt in float64: damped Gauss–Newton steps, each taken only where it
    lowers the loss. These stop where the images have kinks, as those of ReLU networks do all over; what is not solved
    by then descends again, at rates from 0.01. The best code of each start is kept throughout; no start and no image
    hangs on those beside it, and no prior is in the loss.

    Lipton and Tripathi 2017, arXiv:1702.04782; Creswell and Bharath 2018, arXiv:1611.05644.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`, differentiable; a module in eval mode. One that
            is no module is also called with codes in float64.
        images: Targets `(*batch, *event)` in [0, 1].
        latents: How many; by default the generator's `latents`.
        restarts: Starts for each image.
        steps: Of descent, an evaluation and a gradient each.
        polish: Steps of Levenberg–Marquardt, an evaluation, a gradient and a Jacobian each.
        settle: Steps of the second descent.
        seed: Of the starts.

    Returns:
        Codes, losses and gradients of all restarts, without gradients.

    Raises:
        UsageError: A module in training mode, a generator that is not differentiable, does not take float64 or does
            not say its latents, images outside [0, 1] or of another shape than the generator's, or no restart.
    """
    precise, latents, event_dim = _checked(generator, images, latents, restarts)
    batch = images.shape[: images.dim() - event_dim]
    # Drawn on the host in one precision: the same starts on every device, and for every image.
    drawn = torch.randn(restarts, 1, latents, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        images.device
    )
    targets = images.detach().reshape(-1, *images.shape[len(batch) :])
    parts = []
    for x in targets.split(max(1, ROWS_AT_ONCE // restarts)):
        z = drawn.expand(restarts, len(x), latents).flatten(0, 1)
        rows = x.flatten(1).expand(restarts, -1, -1).flatten(0, 1)
        start = loss_and_gradient(precise, z, rows.double())[1].norm(dim=-1)
        z, lowest = _descended(generator, z, rows, steps, 0.1)
        polished = _polished(generator, precise, z, rows, polish)
        z, loss, gradient = _settled(generator, precise, polished, rows, settle)
        found = (z, loss, gradient.norm(dim=-1), lowest.double(), start)
        parts.append([value.unflatten(0, (restarts, -1)) for value in found])
    whole = [torch.cat(values, 1) for values in zip(*parts, strict=True)]
    return Inversion(*(value.reshape(restarts, *batch, *value.shape[2:]) for value in whole))


def restarts_needed(success: float, *, confidence: float = 0.95) -> float:
    r"""Restarts of which one succeeds at a confidence c: :math:`\ln(1 - c) / \ln(1 - p)`, p the success rate.

    The rate is that of one image: with one pooled over images that differ it is too few for them on average.

    Raises:
        UsageError: They are no probabilities.
    """
    if not (0 <= success <= 1 and 0 < confidence < 1):
        raise UsageError(f"found a success rate of {success} at confidence {confidence}, expected parts of 1")
    if success <= 0:
        return math.inf
    return 1 if success >= confidence else math.ceil(math.log1p(-confidence) / math.log1p(-success))


def descended(
    slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    steps: int,
    rate: Tensor | float,
    *,
    epsilon: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """The best of the points that Adam goes through at a rate that falls as a cosine, and its loss.

    Args:
        slope: The loss of points, `(*batch)`, and the gradient to follow, of the points' shape.
        start: Points, `(*batch, *event)`, each of which is descended by itself.
        steps: Of descent.
        rate: The first one, as large as a step is.
        epsilon: Gradients much smaller than this are not followed.

    Returns:
        Points, `(*batch, *event)`, and their losses, `(*batch)`.
    """
    point, (loss, gradient) = start, slope(start)
    best, least = point, loss
    mean, square = torch.zeros_like(point), torch.zeros_like(point)
    for step in range(steps):
        mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.01)
        direction = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.99 ** (step + 1))).sqrt() + epsilon)
        point = point - rate * (1 + math.cos(math.pi * step / steps)) / 2 * direction
        loss, gradient = slope(point)
        better = loss < least
        best = torch.where(better.view(*better.shape, *[1] * (point.dim() - better.dim())), point, best)
        least = torch.where(better, loss, least)
    return best, least


def _descended(
    generator: Callable[[Tensor], Tensor], z: Tensor, x: Tensor, steps: int, rate: float
) -> tuple[Tensor, Tensor]:
    """Codes in float64 after a descent in the images' precision, and their losses."""
    best, least = descended(lambda z: loss_and_gradient(generator, z, x), z.to(x.dtype), steps, rate)
    return best.double(), least


def _polished(
    generator: Callable[[Tensor], Tensor], precise: Callable[[Tensor], Tensor], z: Tensor, x: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes after Levenberg and Marquardt's steps, their loss and its gradient, all in float64."""
    exact, pixels = x.double(), x.shape[-1]
    identity = torch.eye(z.shape[-1], device=z.device, dtype=z.dtype)
    damping = torch.full(z.shape[:-1], 1e-2, device=z.device, dtype=z.dtype)
    loss, gradient = loss_and_gradient(precise, z, exact)
    curvature = _gauss_newton(generator, z, x.dtype)
    for _ in range(steps):
        scale = damping * curvature.diagonal(dim1=-2, dim2=-1).mean(-1)
        # Without a check, which would wait for the device: a row that has no step keeps its place.
        step = torch.linalg.solve_ex(curvature + scale[:, None, None] * identity, gradient * pixels / 2)[0]
        trial = z - step
        loss_there, gradient_there = loss_and_gradient(precise, trial, exact)
        taken = loss_there < loss
        damping = torch.where(taken, damping / 5, damping * 4).clamp(1e-14, 1e8)
        z, gradient = (torch.where(taken[:, None], *both) for both in ((trial, z), (gradient_there, gradient)))
        loss = torch.where(taken, loss_there, loss)
        # The curvature says where to go, and the gradient whether that is down: one in the images' precision will do.
        curvature = torch.where(taken[:, None, None], _gauss_newton(generator, trial, x.dtype), curvature)
    return z, loss, gradient


def _settled(
    generator: Callable[[Tensor], Tensor],
    precise: Callable[[Tensor], Tensor],
    found: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, losses and gradients, those that are not solved after a descent at small rates."""
    z, loss, gradient = found
    (left,) = (loss > SOLVED).nonzero(as_tuple=True)
    if not steps or not len(left):
        return found
    x = x[left]
    trial, _ = _descended(generator, z[left], x, steps, 0.01)
    loss_there, gradient_there = loss_and_gradient(precise, trial, x.double())
    taken = loss_there < loss[left]
    pairs = (z, trial), (loss, loss_there), (gradient, gradient_there)
    z, loss, gradient = (old.index_copy(0, left[taken], new[taken]) for old, new in pairs)
    return z, loss, gradient


@torch.no_grad()
def _gauss_newton(generator: Callable[[Tensor], Tensor], z: Tensor, dtype: torch.dtype) -> Tensor:
    """J'J of codes `(rows, latents)`, `(rows, latents, latents)`, a pass in forward mode for each latent."""
    jacobian = along_latents(lambda z: images_of(generator, z), z.to(dtype)).to(z.dtype)
    return torch.einsum("krp,lrp->rkl", jacobian, jacobian)


def _checked(
    generator: Callable[[Tensor], Tensor], images: Tensor, latents: int | None, restarts: int
) -> tuple[Callable[[Tensor], Tensor], int, int]:
    """The generator in float64, the number of latents and that of an image's dimensions."""
    latents = getattr(generator, "latents", None) if latents is None else latents
    if not isinstance(latents, int) or latents < 1:
        raise UsageError(f"latents: found {latents}, expected their number, which the generator does not say")
    if restarts < 1:
        raise UsageError(f"restarts: found {restarts}, expected 1 or more")
    if not images.is_floating_point():
        raise UsageError(f"images of {images.dtype}, expected floating point")
    precise, event = measurable(generator, latents, images)
    if images.shape[images.dim() - len(event) :] != event or images.dim() < len(event):
        raise UsageError(f"images of shape {tuple(images.shape)}, expected (*batch, *event) with event {tuple(event)}")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise UsageError("images: found values outside [0, 1], expected grey values from 0 to 1")
    return precise, latents, len(event)
