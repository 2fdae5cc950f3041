"""The squared error between a generator's images and given ones, as a function of the codes."""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.path_energy import check_generator

__all__ = [
    "ROWS_AT_ONCE",
    "SOLVED",
    "along_latents",
    "images_of",
    "in_double",
    "loss_and_gradient",
    "measurable",
    "squared_error",
]

ROWS_AT_ONCE = 2048
"""Codes whose images and gradients are found together, which bounds the memory."""

SOLVED = 1e-12
"""Squared error per pixel that is no more than rounding of images."""


def measurable(
    generator: Callable[[Tensor], Tensor], latents: int, images: Tensor
) -> tuple[Callable[[Tensor], Tensor], torch.Size]:
    """What a generator is in float64, in which errors are measured, and the shape of its images.

    Args:
        generator: As in `invert`.
        latents: How many.
        images: Of the device and precision that it is to be used in.

    Raises:
        UsageError: As `check_generator`, or it does not take float64.
    """
    z = torch.zeros(1, latents, device=images.device, dtype=images.dtype)
    event, precise = check_generator(generator, z).shape[1:], in_double(generator)
    try:
        with torch.no_grad():
            precise(z.double())
    except RuntimeError as error:
        raise UsageError(
            "the generator does not take codes in float64, which what is found is measured in: "
            "expected a module, or a function that works in its codes' precision"
        ) from error
    return precise, event


def in_double(generator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A copy in float64 of a generator that is a module; any other as it is."""
    return copy.deepcopy(generator).double() if isinstance(generator, nn.Module) else generator


def images_of(generator: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Images of latents `(*, latents)`, each as one vector, `(*, pixels)`."""
    return generator(z).flatten(z.dim() - 1)


def squared_error(generator: Callable[[Tensor], Tensor], z: Tensor, x: Tensor) -> Tensor:
    """The loss per pixel of codes `(*, latents)` for images `(*, pixels)`."""
    return (images_of(generator, z) - x).square().mean(-1)


@torch.enable_grad()
def loss_and_gradient(generator: Callable[[Tensor], Tensor], z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The loss per pixel of codes `(*, latents)` for images `(*, pixels)`, and its gradient in the codes."""
    z = z.detach().requires_grad_()
    loss = squared_error(generator, z, x)
    # The sum: every row gets its own gradient, whatever the number of rows.
    return loss.detach(), torch.autograd.grad(loss.sum(), z)[0]


def along_latents(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Derivatives along each latent of a function of codes `(rows, latents)`, in forward mode, `(latents, rows, *)`."""

    def along(direction: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (direction.expand_as(z),))[1]

    with warnings.catch_warnings():
        # What torch loads when forward mode is used first warns of torch itself.
        warnings.simplefilter("ignore", FutureWarning)
        return torch.func.vmap(along)(torch.eye(z.shape[-1], device=z.device, dtype=z.dtype))
