"""Digits that the project draws itself: nothing to download, and every factor of every image is known.

A glyph is kept as the distance to its skeleton: a stroke of any width is one threshold on that, anti-aliased for
free. Pose and warp bend the grid on which the distance is read.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet, binarized
from runners.data.glyphs import FONTS, SIDE, skeleton_distances
from runners.data.images import Images

__all__ = ["RANGES", "draw", "drawn_digits", "render", "sample_factors"]

RANGES = {  # Uniform; angle in degrees, clockwise; shifts and thickness in pixels; aspect is width over height.
    "angle": (-15.0, 15.0),
    "scale": (0.85, 1.1),
    "aspect": (0.85, 1.15),
    "shear": (-0.2, 0.2),
    "shift_x": (-1.0, 1.0),
    "shift_y": (-1.0, 1.0),
    "thickness": (1.5, 3.2),
}
WAVES = [(i, j) for i in range(4) for j in range(4) if 1 <= i + j <= 4]  # Orders of the warp's cosines.
WARP = 0.8  # Largest displacement by the first-order cosines, pixels.


def draw(count: int, *, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw digits: pixels `(count, 1, 28, 28)` uint8 and the factors that made them (see `sample_factors`)."""
    factors = sample_factors(count, seed=seed)
    return render(factors), factors


def drawn_digits(
    *, train: int = 60_000, test: int = 10_000, all_train: bool = False, binarize: str = "none", seed: int = 0
) -> DataSet:
    """Return drawn digits split as MNIST is: the last twelfth of `train` for validation unless `all_train`.

    Raises:
        UsageError: A split would be empty, or `binarize` is unknown.
    """
    if train < 12 or test < 1:
        raise UsageError(f"drawn digits: found train={train}, test={test}; expected at least 12 and 1")
    # Two seeds, so that no draw is shared and the test set does not depend on how many were drawn for training.
    parts = [draw(count, seed=2 * seed + part) for part, count in enumerate((train, test))]
    index = torch.arange(train + test).split((train, test))
    known, unseen = (Images(x, f["class"], i, factors=f) for (x, f), i in zip(parts, index, strict=True))
    kept = train if all_train else train - train // 12
    valid = None if all_train else known.part(kept, train)
    return binarized(DataSet("digits", known.part(0, kept), valid, unseen), binarize, seed=seed)


def sample_factors(count: int, *, seed: int) -> dict[str, Tensor]:
    """Draw factors, each `(count,)`: class, font (a place in `FONTS`) and `RANGES`; warp `(count, 2, waves)`."""
    generator = torch.Generator().manual_seed(seed)
    factors = {
        "class": torch.randperm(count, generator=generator) % 10,
        "font": torch.randint(len(FONTS), (count,), generator=generator),
    }
    for name, (low, high) in RANGES.items():
        factors[name] = torch.rand(count, generator=generator) * (high - low) + low
    factors["warp"] = torch.rand(count, 2, len(WAVES), generator=generator) * 2 - 1
    return factors


def render(factors: dict[str, Tensor]) -> Tensor:
    """Return the images, uint8 `(N, 1, 28, 28)`, that these factors make."""
    chunks = zip(*(factor.split(4096) for factor in factors.values()), strict=True)
    return torch.cat([_render_chunk(dict(zip(factors, chunk, strict=True))) for chunk in chunks])


def _render_chunk(factors: dict[str, Tensor]) -> Tensor:
    pose = {name: factors[name][:, None] for name in RANGES}
    centres = torch.arange(SIDE) + 0.5 - SIDE / 2
    down, right = (axis.flatten() for axis in torch.meshgrid(centres, centres, indexing="ij"))
    waves = [
        torch.cos(math.pi * i * (right / SIDE + 0.5)) * torch.cos(math.pi * j * (down / SIDE + 0.5)) / (i + j)
        for i, j in WAVES
    ]
    warp = WARP * factors["warp"] @ torch.stack(waves)
    # From the image back to the glyph: undo the shift, the rotation, the shear, the two scales.
    x, y, angle = right - pose["shift_x"], down - pose["shift_y"], torch.deg2rad(pose["angle"])
    x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    x = (x + pose["shear"] * y) / (pose["scale"] * pose["aspect"])
    grid = torch.stack([x, y / pose["scale"]], -1) + warp.mT
    field = skeleton_distances()[factors["class"], factors["font"]].unsqueeze(1)
    places = grid.view(-1, SIDE, SIDE, 2) / (SIDE / 2)
    distance = functional.grid_sample(field, places, padding_mode="border", align_corners=False).flatten(1)
    ink = (0.5 + pose["thickness"] / 2 - distance * pose["scale"]).clamp(0, 1)
    return (ink * 255).round().to(torch.uint8).view(-1, 1, SIDE, SIDE)
