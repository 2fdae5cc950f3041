"""How far two series rise and fall together, whatever their units."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["rank_correlation"]


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    r"""The correlation of ranks, :math:`\mathrm{cov}(r_a, r_b) / \sigma(r_a) \sigma(r_b)`, equal values sharing a rank.

    1 where b rises wherever a does, -1 where it falls; of N independent pairs it is 0 with a standard deviation of
    :math:`1 / \sqrt{N - 1}`. Spearman 1904, "The proof and measurement of association between two things".

    Args:
        a: Numbers.
        b: As many.

    Returns:
        From -1 to 1; not a number where all of a or all of b are equal, or one of them is not finite.

    Raises:
        UsageError: There are fewer than two, or not as many of each.
    """
    if len(a) != len(b) or len(a) < 2:
        raise UsageError(f"rank_correlation: found {len(a)} and {len(b)} numbers, expected as many of each, 2 or more")
    first, second = (_ranks(torch.as_tensor(values, dtype=torch.float64)) for values in (a, b))
    if not (torch.as_tensor([*a, *b], dtype=torch.float64)).isfinite().all():
        return math.nan
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / (first.square().sum() * second.square().sum()).sqrt())


def _ranks(values: Tensor) -> Tensor:
    """How many are below each, and half of the others that are equal to it."""
    each = values.unsqueeze(-1)
    return (values < each).sum(-1) + ((values == each).sum(-1) - 1) / 2
