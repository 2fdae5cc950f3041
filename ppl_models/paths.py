"""Paths between two latent codes."""

from torch import Tensor

__all__ = ["variance_preserving"]


def variance_preserving(start: Tensor, end: Tensor, weights: Tensor) -> Tensor:
    r"""Mix two codes so that independent standard normal ends give standard normal points in between.

    .. math:: Z(a) = \sqrt{a}\, z_1 + \sqrt{1 - a}\, z_2

    Args:
        start: :math:`z_1`, reached at weight 1, `(*batch, latents)`.
        end: :math:`z_2`, reached at weight 0, the same shape.
        weights: The values of a in [0, 1], `(steps,)`.

    Returns:
        Codes `(*batch, steps, latents)`.
    """
    a = weights.unsqueeze(-1)
    return a.sqrt() * start.unsqueeze(-2) + (1 - a).sqrt() * end.unsqueeze(-2)
