"""What a character model makes of a text: its surprise, with the state carried all the way."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ppl_models import CharGRU, UsageError
from runners.data.text import Text
from runners.tempering import entropy, tempered

__all__ = ["surprise", "tempered_reading"]


@torch.no_grad()
def surprise(model: CharGRU, text: Text, *, rows: int = 1, size: int = 1000) -> Tensor:
    r"""Nats of each character of a text given all before it, :math:`-\log p(x_t \mid x_{<t})`.

    Args:
        model: The model, in eval mode.
        text: The text.
        rows: In how many parts the text is read side by side, each from a state of zeros: faster, and a little worse
            than in one; what is left over, less than a row, is not read.
        size: Characters at a time, which changes nothing.

    Returns:
        All but the first of each part, `(rows, characters)`.

    Raises:
        UsageError: There is too little text.
    """
    found = [_surprise(logits.log_softmax(-1), x) for logits, x in _read(model, text, rows, size)]
    return torch.cat(found, 1)


@torch.no_grad()
def tempered_reading(
    model: CharGRU, text: Text, temperatures: Sequence[float], *, rows: int = 1, size: int = 1000
) -> list[dict[str, float]]:
    r"""What a model at several temperatures makes of a text, so that all of them see the same contexts.

    .. math:: C(T) = -\overline{\log p_T(x_t \mid x_{<t})}, \qquad H(T) = \overline{H(p_T(\cdot \mid x_{<t}))}

    C is convex in 1/T and least where it meets H: there the model expects as much surprise as it has.

    Args:
        model: The model, in eval mode.
        text: The text.
        temperatures: All above 0.
        rows: As for `surprise`.
        size: Likewise.

    Returns:
        For each temperature its `temperature`, `surprise` C and `entropy` H, in nats per character.
    """
    sums, count = torch.zeros(len(temperatures), 2, dtype=torch.float64, device=text.device), 0
    for logits, x in _read(model, text, rows, size):
        count += x.numel()
        for row, temperature in zip(sums, temperatures, strict=True):
            log_probs = tempered(logits, temperature=temperature)
            row += torch.stack([each.double().sum() for each in (_surprise(log_probs, x), entropy(log_probs))])
    means = (sums / count).tolist()
    return [
        {"temperature": temperature, "surprise": surprise, "entropy": entropy}
        for temperature, (surprise, entropy) in zip(temperatures, means, strict=True)
    ]


def _read(model: CharGRU, text: Text, rows: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits `(rows, S, characters)` and the characters `(rows, S)` that came, piece by piece, the state carried."""
    codes = text.codes.long()
    length = len(codes) // rows if rows >= 1 else 0
    if length < 2:
        raise UsageError(f"rows: found {rows} for {len(codes)} characters, expected two or more in each of 1 or more")
    codes, state = codes[: rows * length].view(rows, length), None
    for start in range(0, length - 1, size):
        x = codes[:, start : start + size + 1]
        logits, state = model.logits(x[:, :-1], state)
        yield logits, x[:, 1:]


def _surprise(log_probs: Tensor, x: Tensor) -> Tensor:
    return -log_probs.gather(-1, x.unsqueeze(-1)).squeeze(-1)
