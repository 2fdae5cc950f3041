"""What a character model makes of a text: its surprise, with the state carried all the way."""

import torch
from torch import Tensor

from ppl_models import CharGRU, UsageError
from runners.data.text import Text

__all__ = ["surprise"]


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
    codes = text.codes.long()
    length = len(codes) // rows if rows >= 1 else 0
    if length < 2:
        raise UsageError(f"rows: found {rows} for {len(codes)} characters, expected two or more in each of 1 or more")
    codes, state, found = codes[: rows * length].view(rows, length), None, []
    for start in range(0, length - 1, size):
        x = codes[:, start : start + size + 1]
        logits, state = model.logits(x[:, :-1], state)
        found.append(-logits.log_softmax(-1).gather(-1, x[:, 1:].unsqueeze(-1)).squeeze(-1))
    return torch.cat(found, 1)
