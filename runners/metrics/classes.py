"""Which classes generated data are of."""

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_models import UsageError
from runners.metrics.vectors import vectors

__all__ = ["ClassBalance", "class_balance"]

SURE = 0.9
"""The probability from which on a classifier is sure."""


class ClassBalance(NamedTuple):
    """Which classes generated data are of; see `class_balance`.

    Attributes:
        counts: Data of each class.
        per_mille: How many classes have at least 1 ‰ of the data.
        percent: How many have at least 1 %.
        reverse_kl: From the data's shares to the given ones, in nats; infinite where a class of no share occurs.
        floor: What to expect of it from a perfect sampler.
        confidence: The mean of the largest probability.
        unsure: The share of the data whose largest probability is below 0.9.
    """

    counts: list[int]
    per_mille: int
    percent: int
    reverse_kl: float
    floor: float
    confidence: float
    unsure: float


def class_balance(probabilities: Tensor, *, shares: Tensor | None = None) -> ClassBalance:
    r"""Which classes a classifier sees in generated data, and how sure it is.

    Each datum is of its likeliest class. The reverse divergence :math:`\sum_k q_k \log (q_k / p_k)`, of the data's
    shares q from p, weighs classes that are missing (Srivastava et al. 2017, arXiv:1705.07761). That of a perfect
    sampler of K classes is about :math:`(K - 1) / 2N`.

    Args:
        probabilities: The classifier's, `(N, K)`.
        shares: p, `(K,)`; by default 1/K each.

    Raises:
        UsageError: There are no data, or these are not probabilities.
    """
    (given,) = vectors("class_balance", probabilities)
    count, classes = given.shape
    expected = torch.full((classes,), 1 / classes, dtype=torch.float64) if shares is None else shares
    expected = expected.to(given.device, torch.float64)
    for name, value in (("probabilities", given), ("shares", expected)):
        if value.shape[-1] != classes or (value < 0).any() or ((value.sum(-1) - 1).abs() > 1e-3).any():
            raise UsageError(f"class_balance: the {name} are not {classes} numbers from 0 on that sum to 1")
    confidence, likeliest = given.max(1)
    counts = likeliest.bincount(minlength=classes)
    found = counts.double() / count
    return ClassBalance(
        counts=counts.tolist(),
        per_mille=int((1000 * counts >= count).sum()),
        percent=int((100 * counts >= count).sum()),
        reverse_kl=float((torch.xlogy(found, found) - torch.xlogy(found, expected)).sum()),
        floor=(classes - 1) / (2 * count),
        confidence=float(confidence.mean()),
        unsure=float((confidence < SURE).double().mean()),
    )
