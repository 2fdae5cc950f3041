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
        UsageError: `order` is below 1.
    """
    if order < 1:
        raise UsageError(f"n-gram model: found order {order}, expected 1 or more")
    codes, first = torch.cat([train, test]).long(), len(train)
    place = torch.cat([torch.arange(len(text), device=codes.device) for text in (train, test)])
    probability = torch.full((len(test),), 1 / characters, dtype=torch.float64, device=codes.device)
    # A number for the n - 1 characters before each, that of the gram that ends there.
    context = torch.zeros_like(codes)
    for n in range(1, order + 1):
        grams, gram = (context * characters + codes).unique(return_inverse=True)
        counted = place[:first] >= n - 1  # with a whole context
        count = gram[:first][counted].bincount(minlength=len(grams))
        size = int(context.max()) + 1
        total = context[:first][counted].bincount(minlength=size)
        types = (grams // characters)[count > 0].bincount(minlength=size)
        n_h, t_h = total[context[first:]], types[context[first:]]
        known = (place[first:] >= n - 1) & (n_h > 0)
        smoothed = (count[gram[first:]] + t_h * probability) / (n_h + t_h).clamp_min(1)
        probability = torch.where(known, smoothed, probability)
        context = gram.roll(1)
    return -probability.log()
