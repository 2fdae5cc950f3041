"""Text from a character model, a character at a time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_models import CharGRU, UsageError

__all__ = ["start_of", "tempered", "write"]

COLD = 1e-4
"""Below this temperature the likeliest character is certain, and logits over it would overflow."""


def start_of(model: CharGRU) -> str:
    """A character that texts can begin after: a new line, where the model knows that."""
    return "\n" if "\n" in model.alphabet else model.alphabet[0]


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
