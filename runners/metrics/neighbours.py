"""What the nearest neighbours of generated and real data say: where each lies, which is which, what is copied.

All count in float64, on the device of what they are given, a few megabytes at a time, and give the same figures for
the same seed. Most are biased by an amount that depends on the number of data: compare figures of equal numbers only,
and with the figure of real data against real data.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models import UsageError
from runners.metrics.vectors import AT_ONCE, equal_counts, vectors

__all__ = ["PRDC", "Memorisation", "TwoSample", "kolmogorov_smirnov", "memorisation", "prdc", "two_sample_accuracy"]

SAME = 1e-12
"""Squared distances below that part of the squared lengths are rounding: the two are one point, twice."""

BELOW = 1 - 1e-9
"""What is to be below a radius has to be so by more than rounding."""


class PRDC(NamedTuple):
    """Shares of one set that lie where the other set is; see `prdc`."""

    precision: float
    recall: float
    density: float
    coverage: float


class TwoSample(NamedTuple):
    """How often the nearest neighbour tells what a datum is; see `two_sample_accuracy`.

    Attributes:
        accuracy: Over both sets, the mean of the next two.
        real: Over the real data.
        fake: Over the generated data.
        error: The standard error of `accuracy`.
    """

    accuracy: float
    real: float
    fake: float
    error: float


class Memorisation(NamedTuple):
    """How much nearer to training data than these are to each other; see `memorisation`.

    Attributes:
        ratios: Of the generated data, `(N,)`.
        held_out_ratios: Of the data that were not trained on, `(M,)`.
        median: The median of `ratios`.
        held_out_median: The median of `held_out_ratios`.
        distance: The Kolmogorov-Smirnov distance of the two.
        p: How likely a distance as large is where both are of one distribution.
    """

    ratios: Tensor
    held_out_ratios: Tensor
    median: float
    held_out_median: float
    distance: float
    p: float


def prdc(real: Tensor, fake: Tensor, *, k: int = 5) -> PRDC:
    r"""Precision and recall, density and coverage, from balls about each datum that reach to its k-th neighbour.

    Precision is the share of generated data inside at least one real datum's ball, recall the share of real data
    inside a generated one's (Kynkäänniemi et al. 2019, arXiv:1904.06991); density is how many real balls a generated
    datum is in, over k, and coverage the share of real balls with a generated datum in them (Naeem et al. 2020,
    arXiv:2002.09797). Of equal distributions none but density is 1: coverage is :math:`1 - 2^{-k}` for N = M.

    The k-th neighbour is one besides the datum itself, and inside is nearer than that, as in the authors' `prdc`. So
    more than k duplicates have balls of radius 0, with nothing inside, not even another duplicate: a generator that
    says one thing alone has recall 0.

    Args:
        real: `(N, d)`.
        fake: `(M, d)`.
        k: Which neighbour.

    Raises:
        UsageError: A set has no k-th neighbour, or is no set of finite vectors.
    """
    real, fake = vectors("prdc", real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise UsageError(f"prdc: found k={k}, expected 1 to {min(len(real), len(fake)) - 1}, a datum's neighbours")
    real_radii, fake_radii = (BELOW * _neighbour(x, k) for x in (real, fake))
    in_real = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    in_fake = torch.zeros_like(real_radii, dtype=torch.bool)
    nearest = torch.full_like(real_radii, math.inf)
    for rows, squares in _squared_distances(fake, real):
        in_real[rows] = (squares < real_radii).sum(1)
        in_fake |= (squares < fake_radii[rows, None]).any(0)
        nearest = torch.minimum(nearest, squares.amin(0))
    return PRDC(
        precision=float((in_real > 0).double().mean()),
        recall=float(in_fake.double().mean()),
        density=float(in_real.double().mean() / k),
        coverage=float((nearest < real_radii).double().mean()),
    )


def two_sample_accuracy(real: Tensor, fake: Tensor) -> TwoSample:
    r"""The accuracy of telling real from generated data by their nearest neighbour among all the others.

    Lopez-Paz and Oquab 2017, arXiv:1610.06545; leaving one out, and on both sides apart, Xu et al. 2018,
    arXiv:1806.07755. One half where the distributions are the same; 1 where they are far apart. Below one half data
    are copies: 0 where each datum has its own. Many on the real side and few on the generated one are a
    generator that says a few things often. A neighbour of each kind at the same distance counts one half.

    The standard error is of independent votes, but for the share m of mutual nearest neighbours, which vote alike:
    :math:`\sqrt{p (1 - p) (1 + m) / 2N}`, which for equal distributions is that of Schilling 1986.

    Args:
        real: `(N, d)`.
        fake: `(N, d)`.

    Raises:
        UsageError: There are fewer than 2 data in a set, or the two differ in their numbers, for which one half would
            mean nothing; or one is no set of finite vectors.
    """
    real, fake = vectors("two_sample_accuracy", real, fake)
    count = equal_counts("two_sample_accuracy", real, fake)
    if count < 2:
        raise UsageError(f"two_sample_accuracy: found {count} datum of each kind, expected at least 2")
    pooled = torch.cat([real, fake])
    # Whole from the start: kept pieces between the blocks of distances would leave the memory in shreds.
    vote = torch.empty(2 * count, dtype=pooled.dtype, device=pooled.device)
    neighbour = torch.empty(2 * count, dtype=torch.int64, device=pooled.device)
    for rows, squares in _squared_distances(pooled, pooled):
        squares[torch.arange(len(rows), device=rows.device), rows] = math.inf
        (to_real, at_real), (to_fake, at_fake) = (part.min(1) for part in squares.split(count, 1))
        like, unlike = torch.where(rows < count, torch.stack([to_real, to_fake]), torch.stack([to_fake, to_real]))
        vote[rows] = (like < unlike).double() + 0.5 * (like == unlike)
        neighbour[rows] = torch.where(to_real <= to_fake, at_real, at_fake + count)
    mutual = neighbour[neighbour] == torch.arange(2 * count, device=vote.device)
    accuracy = float(vote.mean())
    error = math.sqrt(accuracy * (1 - accuracy) * (1 + float(mutual.double().mean())) / (2 * count))
    return TwoSample(accuracy, float(vote[:count].mean()), float(vote[count:].mean()), error)


def memorisation(fake: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    r"""How near generated data are to training data, against how near these are to each other.

    For each generated x with its nearest training datum t the ratio :math:`|x - t| / |t - t'|`, t' being the training
    datum nearest to t; the same for held-out data, which nobody can have memorised. Ratios far below those of held-out
    data are copies: 0 is an exact one. A median below the held-out one says that the model stays nearer to its
    training data than new data are, which smooth or blurred data do as well, since these are near to everything: look
    at the pairs. A median above it says that the data are off, not that nothing was copied.

    Neighbours are sought in the data's own precision, so that a training set is not copied into another; the
    distances to those that are found are in float64.

    Args:
        fake: `(N, …)`.
        train: `(T, …)`.
        held_out: `(M, …)`, none of them in `train`.

    Raises:
        UsageError: There are fewer than 2 training data, or one is no set of finite vectors.
    """
    fake, train, held_out = vectors("memorisation", fake, train, held_out, dtype=None)
    if len(train) < 2:
        raise UsageError(f"memorisation: found {len(train)} training datum, expected at least 2")
    near, held_out_near = _nearest(fake, train), _nearest(held_out, train)
    used, place = torch.cat([near, held_out_near]).unique(return_inverse=True)
    spread = _apart(train[used], train[_nearest(train[used], train, without=used)])
    apart = torch.cat([_apart(fake, train[near]), _apart(held_out, train[held_out_near])])
    ratio = torch.where(apart == 0, 0.0, apart / spread[place])  # of duplicates 0 too, not 0/0
    ratios, held_out_ratios = ratio.split([len(fake), len(held_out)])
    distance, p = kolmogorov_smirnov(ratios, held_out_ratios)
    # torch's median of an even count is the lower of the two in the middle.
    medians = (float(values.quantile(0.5)) for values in (ratios, held_out_ratios))
    return Memorisation(ratios, held_out_ratios, *medians, distance, p)


def kolmogorov_smirnov(a: Tensor, b: Tensor) -> tuple[float, float]:
    r"""The largest distance of two sets' distribution functions, and its asymptotic p.

    .. math:: p = 2 \sum_{j \ge 1} (-1)^{j - 1} e^{-2 j^2 \lambda^2}, \quad \lambda = D \sqrt{N M / (N + M)}

    Kolmogorov 1933, Smirnov 1948.

    Args:
        a: `(N,)`.
        b: `(M,)`.
    """
    values = torch.cat([a, b])
    shares = [torch.searchsorted(x.sort().values, values, right=True).double() / len(x) for x in (a, b)]
    distance = float((shares[0] - shares[1]).abs().max())
    scaled = distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    if scaled < 0.2:  # p is 1 to twelve digits, where the series hardly converges
        return distance, 1.0
    terms = [(-1) ** (j - 1) * math.exp(-2 * (j * scaled) ** 2) for j in range(1, 100)]
    return distance, min(max(2 * math.fsum(terms), 0.0), 1.0)


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of `a` and their squared distances to all of `b`, `(rows, len(b))`, which are exactly 0 of duplicates."""
    a, b = a - b.mean(0), b - b.mean(0)  # so that a common offset costs no digits
    lengths_a, lengths_b = (x.square().sum(1) for x in (a, b))
    for rows in torch.arange(len(a), device=a.device).split(max(1, AT_ONCE // len(b))):
        lengths = lengths_a[rows, None] + lengths_b
        squares = torch.addmm(lengths, a[rows], b.mT, alpha=-2)
        yield rows, squares.masked_fill_(squares <= lengths.mul_(SAME), 0.0)


def _neighbour(x: Tensor, k: int) -> Tensor:
    """The squared distance of each datum to its k-th neighbour, `(N,)`."""
    found = x.new_empty(len(x))  # whole from the start, as in `two_sample_accuracy`
    for rows, squares in _squared_distances(x, x):
        # The datum itself, or a duplicate, is at 0 and comes first.
        found[rows] = squares.topk(k + 1, largest=False).values[:, -1]
    return found


def _nearest(x: Tensor, points: Tensor, *, without: Tensor | None = None) -> Tensor:
    """Which of the points is the nearest to each datum, but for the one of the number `without`, `(N,)`."""
    best = torch.full((len(x),), math.inf, dtype=x.dtype, device=x.device)
    found = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    side = math.isqrt(AT_ONCE)
    for first in range(0, len(points), side):
        block = points[first : first + side]
        lengths = block.square().sum(1)
        for rows in torch.arange(len(x), device=x.device).split(side):
            squares = torch.addmm(lengths, x[rows], block.mT, alpha=-2)  # less the datum's own, which orders nothing
            if without is not None:
                columns = torch.arange(first, first + len(block), device=x.device)
                squares.masked_fill_(without[rows, None] == columns, math.inf)
            value, column = squares.min(1)
            nearer = value < best[rows]
            best[rows] = torch.where(nearer, value, best[rows])
            found[rows] = torch.where(nearer, column + first, found[rows])
    return found


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """The distance of each pair, `(N,)`, in float64."""
    side = math.isqrt(AT_ONCE)
    pairs = zip(x.split(side), y.split(side), strict=True)
    return torch.cat([(one.double() - other.double()).norm(dim=1) for one, other in pairs])
