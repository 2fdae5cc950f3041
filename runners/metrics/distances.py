"""How far apart generated and real data are: distances of two sets of vectors, features or pixels.

All count in float64, on the device of what they are given, a few megabytes at a time, and give the same figures for
the same seed. Most are biased by an amount that depends on the number of data: compare figures of equal numbers only,
and with the figure of real data against real data.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models import UsageError
from runners.metrics.vectors import AT_ONCE, equal_counts, vectors

__all__ = ["SUBSET", "KernelDistance", "frechet_distance", "kernel_distance", "sliced_wasserstein"]

SUBSETS, SUBSET = 100, 1000


class KernelDistance(NamedTuple):
    """The kernel distance over subsets.

    Attributes:
        mean: The estimate; it is unbiased, so that it can be below 0.
        deviation: Over the subsets, which is what others print after ±; it is no error of the mean.
        error: The mean's standard error, not a number where each subset is the whole.
    """

    mean: float
    deviation: float
    error: float


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""The squared Fréchet distance of two Gaussians that have the sets' means and covariances.

    .. math:: |m_a - m_b|^2 + \mathrm{tr}\,(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2})

    Dowson and Landau 1982; on features of a network Heusel et al. 2017, arXiv:1706.08500. Biased upwards, for twice N
    data of one Gaussian, d independent features of variance 1, by about :math:`d (d + 5) / 2N`. The bias depends on
    the model too (Chong and Forsyth 2020, arXiv:1911.07023): give `kernel_distance` beside it.

    Args:
        a: `(N, d)`.
        b: `(M, d)`.

    Raises:
        UsageError: A set has fewer than 2d data, for which the bias alone is about a quarter of the whole variance
            (and the covariance of d data is singular); or one is no set of finite vectors.
    """
    a, b = vectors("frechet_distance", a, b)
    features = a.shape[1]
    if min(len(a), len(b)) < 2 * features:
        raise UsageError(
            f"frechet_distance: found {min(len(a), len(b))} data of {features} features, expected at least "
            f"{2 * features}; kernel_distance is unbiased for any number"
        )
    covariance_a, covariance_b = (torch.cov(x.mT).reshape(features, features) for x in (a, b))
    values, axes = torch.linalg.eigh(covariance_a)
    root = axes * values.clamp(min=0).sqrt() @ axes.mT
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float((apart + covariance_a.trace() + covariance_b.trace() - 2 * cross).clamp(min=0))


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 0
) -> KernelDistance:
    r"""The unbiased squared maximum mean discrepancy with the kernel :math:`(x \cdot y / d + 1)^3`.

    The mean over random subsets. Bińkowski et al. 2018, arXiv:1801.01401 (KID). The subsets overlap, so that neither
    their deviation s nor :math:`s / \sqrt S` is the mean's error. This is the delete-d jackknife's (Shao and Wu 1989)
    of the N data, and the choice of S subsets of n on top,

    .. math:: s \sqrt{n / (N - n) + 1 / S}

    It is right where the sets differ, and too large by up to :math:`\sqrt{N / n}` where they are alike, since the
    discrepancy is then degenerate and its noise falls faster than the formula supposes.

    Args:
        a: `(N, d)`.
        b: `(M, d)`.
        subsets: S, how many.
        size: n, data of each set in a subset.
        seed: Of the choice.

    Raises:
        UsageError: There are fewer data than `size`, or that is below 2; or one is no set of finite vectors.
    """
    a, b = vectors("kernel_distance", a, b)
    count = min(len(a), len(b))
    if subsets < 1 or not 2 <= size <= count:
        raise UsageError(
            f"kernel_distance: found subsets={subsets} of size={size}, expected at least 1 of 2 to {count}, the data"
        )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        x, y = (part[torch.randperm(len(part), generator=generator)[:size].to(part.device)] for part in (a, b))
        within = sum(_kernel(part, part).sum() - _kernel_of_self(part).sum() for part in (x, y))
        found.append(within / (size * (size - 1)) - 2 * _kernel(x, y).mean())
    values = torch.stack(found)
    deviation = float(values.std(correction=0))
    error = deviation * math.sqrt(size / (count - size) + 1 / subsets) if size < count else math.nan
    return KernelDistance(float(values.mean()), deviation, error)


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 512, seed: int = 0) -> float:
    r"""The sliced Wasserstein distance, :math:`(E_\theta\, W_2^2(\theta \cdot a, \theta \cdot b))^{1/2}`.

    Over random directions of length 1, each an optimal transport by sorting; Bonneel et al. 2015, "Sliced and Radon
    Wasserstein barycenters of measures". Above 0 for equal distributions too, by what N data leave open: the two sets
    have to be of one number, lest this depend on which is which.

    Args:
        a: `(N, …)`.
        b: `(N, …)`.
        projections: How many directions.
        seed: Of the directions: with the same seed figures are of the same ones.

    Raises:
        UsageError: The sets differ in their numbers, or there are no directions; or one is no set of finite vectors.
    """
    a, b = vectors("sliced_wasserstein", a, b)
    count = equal_counts("sliced_wasserstein", a, b)
    if projections < 1:
        raise UsageError(f"sliced_wasserstein: found {projections} projections, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(projections, a.shape[1], generator=generator, dtype=torch.float64).to(a.device)
    directions /= directions.norm(dim=1, keepdim=True)
    squares = [
        ((some @ a.mT).sort(1).values - (some @ b.mT).sort(1).values).square().mean(1)
        for some in directions.split(max(1, AT_ONCE // count))
    ]
    return float(torch.cat(squares).mean().sqrt())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _kernel_of_self(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
