"""Distributions at a temperature, and what that does to their entropy."""

import math

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["entropy", "entropy_slope", "tempered"]

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


def entropy_slope(log_probs: Tensor, temperature: float) -> Tensor:
    r"""How fast the entropy of tempered distributions grows with the temperature, in nats; nowhere does it fall.

    .. math:: \frac{dH}{dT} = \frac{1}{T^3} \operatorname{Var}_{p_T}(E) = \frac{1}{T} \operatorname{Var}_{p_T}(\log p_T)

    where :math:`p_T \propto \exp(-E / T)` and the energies E are the logits' negatives: the heat capacity over T, as
    in any canonical ensemble (Jaynes 1957).

    Args:
        log_probs: :math:`\log p_T`, as `tempered` gives them, `(*, characters)`.
        temperature: T, above 0.

    Returns:
        `(*)`.
    """
    probs = log_probs.exp()
    centred = log_probs.masked_fill(probs == 0, 0.0) + entropy(log_probs).unsqueeze(-1)
    return (probs * centred.square()).sum(-1) / temperature
