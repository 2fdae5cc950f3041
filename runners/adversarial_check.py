"""Whether a generator and a critic, perhaps the user's own, fit each other and the data."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl_models import UsageError
from runners.loop.errors import first_line

__all__ = ["check_settings", "rehearse"]

COUNTS = {"steps": 0, "batch": 2, "critic_steps": 1, "generator_steps": 0, "pictures": 0, "selection": 0}
"""Settings that are whole numbers, and what they are at least: one image has no variety."""

WEIGHTS = ("penalty", "r1", "path_energy", "fuzz")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that are out of their range.

    Raises:
        UsageError: There is one.
    """
    for name, least in COUNTS.items():
        if not isinstance(settings[name], int) or settings[name] < least:
            raise UsageError(f"{name}: found {settings[name]!r}, expected a whole number from {least} on")
    for name in WEIGHTS:
        if not isinstance(settings[name], (int, float)) or not 0 <= settings[name] < math.inf:
            raise UsageError(f"{name}: found {settings[name]!r}, expected a number from 0 on")
    average = settings["average"]
    if average is not None and not 0 <= average < 1:
        raise UsageError(f"average: found {average}, expected a number from 0 to below 1")


def rehearse(generator: nn.Module, critic: nn.Module, x: Tensor, *, seen: Callable[[Tensor], Tensor]) -> bool:
    """Ask both networks for two images, as the first step will.

    Args:
        generator: The generator, in eval mode.
        critic: The critic, likewise.
        x: Two images of the data.
        seen: What makes of images what the critic gets.

    Returns:
        Whether the critic's score of an image depends on those beside it: then it must not see real and generated
        images in one pass.

    Raises:
        UsageError: They do not fit.
    """
    if not isinstance(getattr(generator, "latents", None), int):
        raise UsageError("the generator does not say how many latents it has, expected an attribute latents")
    try:
        made = generator(torch.randn(len(x), generator.latents, device=x.device))
        if made.shape != x.shape:
            raise UsageError(f"the generator's images are {tuple(made.shape[1:])}, the data's {tuple(x.shape[1:])}")
        scores = [critic(seen(images)) for images in (x, made)]
        together, alone = critic(2 * x - 1), critic(2 * x[:1] - 1)
    except UsageError:
        raise
    except Exception as error:
        if all(type(net).__module__.startswith("ppl_models") for net in (generator, critic)):
            raise
        # Whatever the user's code raised: it is reported, with its cause chained.
        raise UsageError(f"on two images the networks raised {type(error).__name__}: {first_line(error)}") from error
    for score in scores:
        if score.shape != (len(x),):
            raise UsageError(f"the critic's scores have shape {tuple(score.shape)}, expected {(len(x),)}")
    low, high = (float(end) for end in made.detach().aminmax())
    if low < 0 or high > 1:
        raise UsageError(f"the generator's images go from {low:.2f} to {high:.2f}, expected values from 0 to 1")
    slope = torch.autograd.grad(scores[1].sum(), made, allow_unused=True)[0] if scores[1].requires_grad else None
    if slope is None:
        raise UsageError("the critic's scores have no gradient in its images, by which the generator is trained")
    return not torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4)
