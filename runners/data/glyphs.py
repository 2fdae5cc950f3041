"""The digits of the fonts that come with matplotlib, thinned so that one pen can draw them all."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["FONTS", "SIDE", "skeleton_distances"]

FONTS = (
    *("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "cmr10", "cmss10", "cmtt10"),
)
SIDE, HEIGHT = 28, 16.0  # Of an image and of a skeleton in it, pixels.
FINER = 2  # Samples of a distance per pixel, along each axis.
POINTS = 80  # Size at which a glyph is thinned.


@functools.cache
def skeleton_distances() -> Tensor:
    """Return how far each place is from each glyph's skeleton, pixels, `(10, fonts, 56, 56)`, glyphs centred."""
    steps = (np.arange(SIDE * FINER) + 0.5) / FINER - SIDE / 2
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    fields = [_nearest(places, _skeleton(str(digit), font)) for digit in range(10) for font in FONTS]
    return torch.from_numpy(np.stack(fields)).view(10, len(FONTS), SIDE * FINER, SIDE * FINER)


def _skeleton(character: str, font: str) -> np.ndarray:
    """Return the points, `(P, 2)` as (down, right), where ink is locally farthest from paper: the pen's path."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    canvas = Image.new("L", (2 * POINTS, 2 * POINTS))
    pen = ImageFont.truetype(file, POINTS)
    ImageDraw.Draw(canvas).text((POINTS, POINTS), character, font=pen, fill=255, anchor="mm")
    ink = np.array(canvas) > 127
    rim = ~ink & np.any([np.roll(ink, step, axis) for step in (-1, 1) for axis in (0, 1)], axis=0)
    depth = np.zeros(ink.shape, np.float32)
    depth[ink] = _nearest(np.argwhere(ink), np.argwhere(rim))
    slope = np.hypot(*np.gradient(depth))  # 1 on a flank, 0.7 into a corner, near 0 on a ridge.
    points = np.argwhere(ink & (slope < 0.6))
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) * HEIGHT / (high - low).max()


def _nearest(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance of each place `(N, 2)` to the nearest of the points `(P, 2)`."""
    down, right = (np.subtract.outer(*axis) for axis in zip(places.T, points.T, strict=True))
    return np.sqrt((down**2 + right**2).min(1)).astype(np.float32)
