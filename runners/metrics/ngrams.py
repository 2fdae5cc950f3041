"""What counting gives of a text: the baseline of character models."""

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["ngram_surprise"]


def ngram_surprise(train: Tensor, test: Tensor, *, characters: int, order: int = 5) -> Tensor:
    r"""Nats of each character of a text under an n-gram model of another, with Witten and Bell's smoothing.

    .. math:: p(c \mid h) = \frac{n(h, c) + t(h)\, p(c \mid h')}{n(h) + t(h)}

    where h' is h without its first character, t(h) the number of different characters that followed h, and below the
    shortest context all characters are equally likely. Witten and Bell 1991; Chen and Goodman 1999.

    Args:
        train: Codes that are counted, `(N,)`.
        test: Codes that are predicted, `(M,)`, the first ones from the shorter contexts that they have.
        characters: How many there are.
        order: n, one more than the longest context.

    Returns:
        :math:`-\log p`, `(M,)`, in float64.

    Raises:
        UsageError: `order` is not within 1 … what 64 bits can count.
    """
    base = characters + 1  # one more for what is before the text, which nothing followed
    if order < 1 or base**order >= 2**63:
        raise UsageError(f"order: found {order}, expected 1 or more, and {base}^order below 2^63")
    train, test = train.long(), test.long()
    probability = torch.full((len(test),), 1 / characters, dtype=torch.float64, device=test.device)
    for n in range(1, order + 1):
        grams, counts = _grams(train, n, base)[n - 1 :].unique(return_counts=True)
        contexts, inverse = (grams // base).unique(return_inverse=True)
        seen = torch.zeros(len(contexts), dtype=torch.float64, device=test.device)
        total, types = (
            seen.index_add(0, inverse, counts.double()),
            seen.index_add(0, inverse, seen.new_ones(len(grams))),
        )
        asked = _grams(test, n, base)
        count = _looked_up(asked, grams, counts.double())
        n_h, t_h = (_looked_up(asked // base, contexts, values) for values in (total, types))
        probability = torch.where(n_h > 0, (count + t_h * probability) / (n_h + t_h), probability)
    return -probability.log()


def _grams(codes: Tensor, n: int, base: int) -> Tensor:
    """A number for each character with the n - 1 before it, `(N,)`; what is before the text counts as a character."""
    before = torch.cat([codes.new_full((n - 1,), base - 1), codes])
    number = torch.zeros_like(codes)
    for offset in range(n):
        number = number * base + before[offset : offset + len(codes)]
    return number


def _looked_up(asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The value of each key that is asked for, 0 where there is none; `keys` are sorted."""
    place = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == asked, values[place], 0.0)
