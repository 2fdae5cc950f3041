"""Text from a character model, a character at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_models import CharGRU, UsageError
from runners.tempering import tempered

__all__ = ["start_of", "write"]


def start_of(model: CharGRU) -> str:
    """A character that texts can begin after: a new line, where the model knows that."""
    return "\n" if "\n" in model.alphabet else model.alphabet[0]


@torch.no_grad()
def write(
    model: CharGRU,
    count: int,
    *,
    prompt: str | None = None,
    rows: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Write on from a prompt, the state carried all the way; each character is there as soon as it is drawn.

    Args:
        model: The model, in eval mode.
        count: How many characters.
        prompt: What was read before; by default a new line.
        rows: How many texts at once.
        temperature: Of the characters' distribution: see `tempered`.
        top_k: Of how many of the likeliest characters one is drawn; of all by default.
        seed: Of the draws.

    Yields:
        The codes of the next character of each text, `(rows,)`, and the log-probabilities that it was drawn with,
        `(rows, characters)`.

    Raises:
        UsageError: The prompt is empty or not in the alphabet, or another setting is out of its range.
    """
    if prompt == "":
        raise UsageError("prompt: found nothing, expected a character or more")
    device = model.head.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    x, state = model.codes_of(start_of(model) if prompt is None else prompt).to(device).expand(rows, -1), None
    for _ in range(count):
        logits, state = model.logits(x, state)
        log_probs = tempered(logits[:, -1], temperature=temperature, top_k=top_k)
        x = torch.multinomial(log_probs.exp(), 1, generator=generator)
        yield x.squeeze(-1), log_probs
