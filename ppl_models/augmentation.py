"""Random changes of images that gradients pass through, for critics of few data."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ppl_models.batch import UsageError

__all__ = ["CHANGES", "augmented"]


def augmented(x: Tensor, policy: Sequence[str] = ("color", "translation", "cutout")) -> Tensor:
    """Images changed at random, each in its own way: `(*, C, H, W) → (*, C, H, W)`.

    Zhao et al. 2020, arXiv:2006.10738. Real and generated images go through it alike, before the critic, when the
    critic learns and when the generator does; the generator then has nothing to gain from showing the changes.

    Args:
        x: Images as the critic reads them, in [-1, 1], where a half is a quarter of the brightness. What is cut
            out, or moves in from outside, is 0.
        policy: Which changes, in order. `"color"`: brightness moves by up to a half, saturation (of more than one
            channel) is multiplied by 0 to 2, contrast by ½ to 1½, around each image's own means. `"translation"`:
            by up to an eighth of either side, in whole pixels. `"cutout"`: a box of half of either side, up to half of
            which may lie outside.

    Returns:
        New images, which leave [-1, 1] where the colour changes.

    Raises:
        UsageError: A change's name is unknown.
    """
    for name in policy:
        if name not in CHANGES:
            raise UsageError(f"augmentation: found {name!r}, expected some of {', '.join(CHANGES)}")
        x = CHANGES[name](x)
    return x


def _color(x: Tensor) -> Tensor:
    x = x + _uniform(x) - 0.5
    if x.shape[-3] > 1:
        grey = x.mean(-3, keepdim=True)
        x = grey + 2 * _uniform(x) * (x - grey)
    mean = x.mean((-3, -2, -1), keepdim=True)
    return mean + (_uniform(x) + 0.5) * (x - mean)


def _translation(x: Tensor) -> Tensor:
    for dim in (-2, -1):
        size = x.shape[dim]
        shift = _integers(x, -(size // 8), size // 8)
        source = _positions(x, dim) - shift
        moved = x.take_along_dim(source.clamp(0, size - 1), dim)
        x = torch.where((source >= 0) & (source < size), moved, 0.0)
    return x


def _cutout(x: Tensor) -> Tensor:
    inside = True
    for dim in (-2, -1):
        size, half = x.shape[dim], x.shape[dim] // 2
        place = _positions(x, dim) - _integers(x, -(half // 2), size - half + half // 2)
        inside = inside & (place >= 0) & (place < half)
    return torch.where(inside, 0.0, x)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {"color": _color, "translation": _translation, "cutout": _cutout}


def _uniform(x: Tensor) -> Tensor:
    """A number in [0, 1) for each image, `(*, 1, 1, 1)`."""
    return torch.rand(*x.shape[:-3], 1, 1, 1, device=x.device, dtype=x.dtype)


def _integers(x: Tensor, low: int, high: int) -> Tensor:
    """A whole number from `low` to `high` for each image, `(*, 1, 1, 1)`."""
    return torch.randint(low, high + 1, (*x.shape[:-3], 1, 1, 1), device=x.device)


def _positions(x: Tensor, dim: int) -> Tensor:
    """The places along `dim` of an image, -1 or -2, shaped to broadcast against images."""
    return torch.arange(x.shape[dim], device=x.device).view(-1, *[1] * (-dim - 1))
