"""Distributions at a temperature, and their entropy."""

import math

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["entropy", "tempered"]

COLD = 1e-4
"""Below this temperature the likeliest character is certain, and logits over it would overflow."""


def tempered(logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    r"""Log-probabilities :math:`\propto p^{1 / T}` of the k likeliest characters, in place of p.

    Args:
        logits: `(*, characters)`.
        temperature: T; at 0 the likeliest character is certain, at 1 the model speaks as it is.
        top_k: k, all by default.

    Raises:
        UsageError: The temperature is below 0, or k below 1.
    """
    if not 0 <= temperature < math.inf or (top_k is not None and top_k < 1):
        raise UsageError(f"found temperature {temperature} and top_k {top_k}, expected 0 or more and 1 or more")
    if temperature < COLD:
        temperature, top_k = 1.0, 1
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    return (logits / temperature).log_softmax(-1)


def entropy(log_probs: Tensor) -> Tensor:
    r"""The entropy in nats, :math:`H = -\sum_c p_c \log p_c`; what has no probability adds nothing.

    Args:
        log_probs: Normalised, `(*, characters)`.

    Returns:
        `(*)`.
    """
    probs = log_probs.exp()
    return -(probs * log_probs.masked_fill(probs == 0, 0.0)).sum(-1)
