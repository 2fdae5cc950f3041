"""Mixtures of two latent codes."""

import math

import torch
from torch import Tensor

__all__ = ["spherical", "straight", "subdivided", "variance_preserving"]


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


def subdivided(path: Tensor, points: int) -> Tensor:
    """The same broken line, each segment cut into equal parts, at `points` points or a few more."""
    parts = math.ceil((points - 1) / (path.shape[-2] - 1))
    weights = torch.arange(parts, 0, -1, device=path.device, dtype=path.dtype) / parts
    cut = straight(path[..., :-1, :], path[..., 1:, :], weights).flatten(-3, -2)
    return torch.cat([cut, path[..., -1:, :]], -2)
