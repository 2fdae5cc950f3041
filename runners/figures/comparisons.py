"""Fits side by side: paired differences from the first, beside images or along a text."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from runners.figures.images import image_rows, text_width
from runners.figures.inline import Picture
from runners.figures.save import DPI

__all__ = ["differences", "surprise_along"]

Differences = Mapping[str, Mapping[str, tuple[float, float]]]
"""By fit and by what it is of, a difference and its standard error, which may be no number; of the first fit none."""

# Pixels at DPI; text sizes are points.
PLOT, GAP, BELOW, LABEL = 800, 40, 150, 10
COLOURS = ("0.1", "tab:blue", "tab:orange")
BESIDE = 0.22
"""How far points of one row are from each other, as a part of the row's height."""


def differences(found: Differences, *, unit: str, images: Mapping[str, Tensor] | None = None) -> Figure:
    """Each fit's differences from the first in a row of points with error bars, which its row of images continues.

    Args:
        found: By label, that of the first fit at the top without any.
        unit: What the axis says.
        images: Per label `(N, C, H, W)` in [0, 1]; others than those of `found` have a row of their own.
    """
    if not images:
        figure = Picture(figsize=(8, 1.4 + 0.55 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        _points(axes, found, {label: float(row) for row, label in enumerate(found)}, height=1.0, unit=unit)
        axes.set_ylim(len(found) - 0.5, -0.5)
    else:
        labels = max(text_width(line, LABEL) for label in images for line in label.split("\n")) + GAP
        figure, shown, places = image_rows(images, left=labels + PLOT + GAP, bottom=BELOW)
        width = round(figure.get_figwidth() * DPI)
        box = shown.get_position()
        axes = figure.add_axes((labels / width, box.y0, PLOT / width, box.height))
        _points(axes, found, places, height=_apart(list(places.values())), unit=unit)
        axes.set_ylim(shown.get_ylim())
    if len(found) > 1:
        handles, names = axes.get_legend_handles_labels()
        where = "outside lower center" if not images else "lower left"
        figure.legend(handles, names, loc=where, ncols=3, fontsize=9, frameon=False)
    return figure


def surprise_along(found: Differences, along: Mapping[str, Tensor], *, unit: str, characters: int) -> Figure:
    """Each fit's difference from the first, beside the surprise of each along the text.

    Args:
        found: As for `differences`.
        along: By fit, means over equal parts of the text, `(parts,)`.
        unit: What the left axis says.
        characters: Of the text.
    """
    figure = Picture(figsize=(12, max(3.4, 1.6 + 0.55 * len(found))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    _points(left, found, {label: float(row) for row, label in enumerate(found)}, height=1.0, unit=unit)
    left.set_ylim(len(found) - 0.5, -0.5)
    for name, values in along.items():
        middles = [(part + 0.5) * characters / len(values) for part in range(len(values))]
        right.plot(middles, values.tolist(), label=name, linewidth=1.2, marker="o" if len(values) < 10 else "")
    right.set_xlabel("character of the test text", fontsize=9)
    right.set_ylabel("nats per character", fontsize=9)
    right.legend(fontsize=8)
    right.grid(color="0.9")
    _tidy(right)
    return figure


def _apart(places: list[float]) -> float:
    """How far rows are apart."""
    return places[1] - places[0] if len(places) > 1 else 1.0


def _points(axes: Axes, found: Differences, places: Mapping[str, float], *, height: float, unit: str) -> None:
    """Points with error bars, at each fit's place one for each of its parts."""
    axes.axvline(0, color="0.25", linewidth=1.2, linestyle="--")
    parts = list(dict.fromkeys(part for of in found.values() for part in of))
    for position, part in enumerate(parts):
        rows = [(label, of[part]) for label, of in found.items() if part in of]
        offset = BESIDE * height * (position - (len(parts) - 1) / 2)
        axes.errorbar(
            [value for _, (value, _) in rows],
            [places[label] + offset for label, _ in rows],
            xerr=[0.0 if error != error else error for _, (_, error) in rows],
            fmt="o",
            markersize=5 if position == 0 else 4,
            linewidth=1.2,
            capsize=3,
            color=COLOURS[position % len(COLOURS)],
            label=part,
        )
    axes.set_yticks(list(places.values()), list(places), fontsize=LABEL)
    axes.set_xlabel(unit, fontsize=9)
    axes.grid(axis="x", color="0.9")
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
