"""Grids of images, pixel for pixel: each image pixel is a whole number of the file's pixels wide and high."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from torch import Tensor
from torchvision.utils import make_grid

from runners.figures.inline import Picture
from runners.figures.save import DPI

__all__ = ["filmstrips", "grid", "image_rows", "interpolation", "panels", "reconstruction_rows", "text_width"]

# All lengths are pixels at DPI; text sizes are points.
FIGURE_WIDTH, GRID_WIDTH, GRID_HEIGHT = 2200, 1000, 1600
LARGEST_PIXEL = 8
GAP, MARGIN = 36, 12
TITLE, LABEL = 12, 10


def grid(images: Tensor, *, columns: int = 8, title: str | None = None) -> Figure:
    """One grid of images, read like text.

    Args:
        images: `(N, C, H, W)` in [0, 1], grey (C = 1) or RGB (C = 3), on any device.
        columns: Images a row.
        title: A line above.

    Raises:
        ValueError: `images` is not such a tensor, or is empty.
    """
    return panels({title or "": images}, columns=columns)


def panels(images: Mapping[str, Tensor], *, columns: int = 8) -> Figure:
    """Titled grids side by side at one scale: data, reconstructions, samples.

    Args:
        images: Per title `(N, C, H, W)` in [0, 1]; with equal shapes the grids are equally large.
        columns: Images a row, in each grid.

    Raises:
        ValueError: There is no grid, or one of them is not such a tensor.
    """
    if not images:
        raise ValueError("panels: expected at least one titled grid, found none")
    return _layout({title: _assemble(batch, columns=columns) for title, batch in images.items()})[0]


def reconstruction_rows(rows: Mapping[str, Tensor]) -> Figure:
    """Rows of the same images, one above the other, each with its label at the left.

    Args:
        rows: Per label `(N, C, H, W)` in [0, 1], with the same N, H and W: data, reconstruction, sample.

    Raises:
        ValueError: There is no row, or the rows are not such tensors, or differ in N, H or W.
    """
    return filmstrips([rows])


def filmstrips(groups: Sequence[Mapping[str, Tensor]]) -> Figure:
    """Rows of images, each with its label at the left, in groups with some room between them.

    Args:
        groups: Of each the rows, per label `(N, C, H, W)` in [0, 1], with the same N, H and W throughout; labels may
            have several lines.

    Raises:
        ValueError: There is no row, or the rows are not such tensors, or differ in N, H or W.
    """
    sizes = {(len(images), *images.shape[-2:]) for rows in groups for images in rows.values()}
    if len(sizes) != 1:
        raise ValueError(f"expected rows of one (N, H, W), found {sorted(sizes) or 'no rows'}")
    ((count, height, _),) = sizes
    pictures, ticks, labels, top = [], [], [], 0
    for rows in groups:
        # Rows may mix grey and RGB: colour is what both can be.
        images = torch.cat([_checked(images).expand(-1, 3, -1, -1) for images in rows.values()])
        picture = _assemble(images, columns=count)
        ticks += [top + _centre(row, height) for row in range(len(rows))]
        labels += rows
        pictures += [picture, torch.ones(height // 2, *picture.shape[1:])]
        top += len(picture) + height // 2
    margin = 2 * MARGIN + max(text_width(line, LABEL) for label in labels for line in label.split("\n"))
    figure, (axes,) = _layout({"": torch.cat(pictures[:-1])}, left=margin)
    axes.set_yticks(ticks, labels, fontsize=LABEL)
    return figure


def image_rows(rows: Mapping[str, Tensor], *, left: int, bottom: int) -> tuple[Figure, Axes, dict[str, float]]:
    """The same rows without labels, with room for what is drawn beside and below them, and where their middles are.

    Args:
        rows: As for `reconstruction_rows`.
        left: Pixels of room at the left.
        bottom: Pixels of room below.

    Returns:
        The figure, the axes of the images, and per label the height of its row there.
    """
    shapes = {(len(images), *images.shape[-2:]) for images in rows.values()}
    if len(shapes) != 1:
        raise ValueError(f"expected rows of one (N, H, W), found {sorted(shapes) or 'no rows'}")
    ((count, height, _),) = shapes
    images = torch.cat([_checked(images).expand(-1, 3, -1, -1) for images in rows.values()])
    figure, (axes,) = _layout({"": _assemble(images, columns=count)}, left=left, bottom=bottom)
    return figure, axes, {label: _centre(row, height) for row, label in enumerate(rows)}


def interpolation(strips: Tensor, *, weights: Tensor | Sequence[float]) -> Figure:
    """Paths between images, one a row, with the mixing weight along the bottom.

    Args:
        strips: `(R, T, C, H, W)` in [0, 1]: R paths of T steps.
        weights: The mixing weight a of each step, `(T,)`.

    Raises:
        ValueError: `strips` is not such a tensor, or there are not T weights.
    """
    if strips.ndim != 5 or len(weights) != strips.shape[1]:
        found = f"strips {tuple(strips.shape)} and {len(weights)} weights"
        raise ValueError(f"interpolation: expected strips (R, T, C, H, W) and T weights, found {found}")
    steps, width = strips.shape[1], strips.shape[-1]
    strip_grid = _assemble(strips.flatten(0, 1), columns=steps)
    figure, (axes,) = _layout({"": strip_grid}, left=MARGIN, right=MARGIN, bottom=80)
    # A few labels, evenly spread where the number of steps allows it.
    count = next((count for count in (6, 5, 4, 3) if (steps - 1) % (count - 1) == 0), 5)
    shown = sorted({round(i * (steps - 1) / (count - 1)) for i in range(count)})
    labels = [f"{float(weights[step]):.2g}" for step in shown]
    axes.set_xticks([_centre(step, width) for step in shown], labels, fontsize=LABEL)
    axes.set_xlabel("mixing weight a", fontsize=LABEL, labelpad=2)
    return figure


def _checked(images: Tensor) -> Tensor:
    """`images` as float32 in [0, 1] on the CPU; refuses what is not a batch of grey or RGB images."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel() or not images.is_floating_point():
        found = f"{tuple(images.shape)} of {images.dtype}"
        raise ValueError(f"images: expected floats (N, C, H, W), not empty, with C = 1 or 3, found {found}")
    return images.detach().float().cpu().clamp(0, 1)


def _padding(size: int) -> int:
    return max(1, size // 14)


def _centre(position: int, size: int) -> float:
    """Where the middle of the image at `position` of a row (or column) lies, in pixels of the assembled grid."""
    padding = _padding(size)
    return padding + position * (size + padding) + size / 2 - 0.5


def _assemble(images: Tensor, *, columns: int) -> Tensor:
    """One RGB picture `(H', W', 3)` of all images, white between them."""
    images = _checked(images)
    return make_grid(images, nrow=columns, padding=_padding(images.shape[-1]), pad_value=1.0).permute(1, 2, 0)


def text_width(text: str, size: float) -> int:
    """Pixels that `text` takes; hinting widens it by up to a twentieth."""
    return math.ceil(1.05 * TextPath((0, 0), text, size=size).get_extents().width * DPI / 72) if text.strip() else 0


def _layout(
    grids: Mapping[str, Tensor], *, left: int = 0, right: int = 0, bottom: int = 0
) -> tuple[Figure, list[Axes]]:
    """Place titled pictures `(H, W, 3)` in a row, top-aligned, all enlarged by one whole factor.

    The margins come on top of the pictures. matplotlib's own layout engines would stretch the axes by fractions of
    a pixel, and then some pixels of an image come out wider than others.
    """
    height, width = (max(picture.shape[side] for picture in grids.values()) for side in (0, 1))
    room = min(GRID_WIDTH, FIGURE_WIDTH // len(grids))
    scale = max(1, min(room // width, GRID_HEIGHT // height, LARGEST_PIXEL))
    top = 48 if any(grids) else 0
    cells = [max(scale * picture.shape[1], text_width(title, TITLE)) for title, picture in grids.items()]
    total_width = left + sum(cells) + GAP * (len(cells) - 1) + right
    total_height = top + scale * height + bottom
    # One ulp up, because x / DPI * DPI may fall just below x, and the canvas is cut to whole pixels.
    size = [math.nextafter(pixels / DPI, math.inf) for pixels in (total_width, total_height)]
    figure, axes = Picture(figsize=tuple(size), dpi=DPI), []
    for (title, picture), cell in zip(grids.items(), cells, strict=True):
        tall, wide = (scale * side for side in picture.shape[:2])
        start = left + (cell - wide) // 2
        below = total_height - top - tall
        box = (start / total_width, below / total_height, wide / total_width, tall / total_height)
        axes.append(_draw(figure, picture, box, title=title))
        left += cell + GAP
    return figure, axes


def _draw(figure: Figure, picture: Tensor, box: tuple[float, float, float, float], *, title: str) -> Axes:
    axes = figure.add_axes(box)
    axes.imshow(picture.numpy(), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=TITLE)
    return axes
