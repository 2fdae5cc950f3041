"""Distortion against rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from runners.figures.inline import Picture

__all__ = ["rate_distortion", "slopes"]

GREY = "0.55"
FREE = 1.5
"""How far beyond all others, as a multiple, a rate that costs nothing is still shown."""


def rate_distortion(points: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """Distortion against rate, a curve for each family; along a grey line their sum, the negative ELBO, is the same.

    Both axes are linear: the slope of a curve of optima is minus the KL weight, and that of the grey lines is -1.
    Where the rate costs nothing (a weight of 0) and would flatten the rest, the curve leaves the axes.

    Args:
        points: Each with `family`, `rate`, `distortion` and `beta` or `target`, its label; perhaps with standard
            errors (`_se`), and `prior` where the rate is not about the model's own.
        title: A line above.
    """
    figure = Picture(figsize=(8, 6.2), layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[Mapping[str, Any]]] = {point["family"]: [] for point in points}
    for point in sorted(points, key=lambda point: point["rate"]):
        curves[point["family"]].append(point)
    drawn = [_draw(axes, name, curve, f"C{position}") for position, (name, curve) in enumerate(curves.items())]
    places = [_places(curve) for curve in curves.values()]
    corner, size = _limit(axes, points)
    grey = _draw_sums(axes, places, corner, size)
    _label_points(axes, list(curves.values()), corner, size)
    axes.set_xlabel("rate  KL(q(z | x) ‖ p(z)), nats per image")
    axes.set_ylabel("distortion  −E[log p(x | z)], nats per image")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=[*drawn, grey], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axes.set_title(title or "", fontsize=11)
    return figure


def slopes(chords: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """The slope between neighbours on rate-distortion curves, against the KL weights of the two.

    Where both are optima, each line meets the diagonal: the slope is between the two weights.

    Args:
        chords: Each with `family`, `beta`, `next_beta` and `slope`, which is minus the change of the distortion by
            that of the rate; one that is not above 0 cannot be drawn.
        title: A line above.
    """
    figure = Picture(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.add_subplot()
    shown = [chord for chord in chords if chord["slope"] > 0]
    families = list(dict.fromkeys(chord["family"] for chord in shown))
    for chord in shown:
        first, colour = [chord["beta"], chord["next_beta"]], f"C{families.index(chord['family'])}"
        axes.plot(first, [chord["slope"]] * 2, color=colour, marker="|", markersize=9, linewidth=2, zorder=3)
    for position, family in enumerate(families):
        axes.plot([], [], color=f"C{position}", linewidth=2, label=f"{family}, from each weight to the next")
    ends = [value for chord in shown for value in (chord["beta"], chord["next_beta"], chord["slope"])] or [0.1, 10.0]
    ends = [min(ends) / 1.5, max(ends) * 1.5]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="slope = β", zorder=1)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("KL weight β")
    axes.set_ylabel("slope  −ΔD / ΔR")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(title or "", fontsize=11)
    return figure


def _places(curve: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([[point["rate"], point["distortion"]] for point in curve], dtype=float)


def _draw(axes: Axes, name: str, curve: Sequence[Mapping[str, Any]], colour: str) -> Artist:
    """A curve with its standard errors; returns what a legend shows."""
    other = any("prior" in point for point in curve)
    x_errors, y_errors = ([point.get(f"{side}_se", 0.0) for point in curve] for side in ("rate", "distortion"))
    return axes.errorbar(
        *_places(curve).T,
        xerr=x_errors,
        yerr=y_errors,
        label=f"{name}: rate against the marginal of its codes" if other else name,
        color=colour,
        marker="o",
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2,
        zorder=3,
    )


def _limit(axes: Axes, points: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Choose the view; returns its lower left corner and its size."""
    costly = _places([point for point in points if point.get("beta") != 0] or points)
    places = _places(points)
    largest = costly[:, 0].max()
    places = places[places[:, 0] <= max(largest, FREE * largest)]  # sampled rates may lie below 0
    low, high = places.min(0), places.max(0)
    margin = np.where(high > low, 0.12 * (high - low), np.maximum(0.05 * np.abs(high), 1.0))
    low, high = np.array([min(0.0, low[0]), low[1] - margin[1]]), high + margin
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return low, high - low


def _draw_sums(axes: Axes, curves: Sequence[np.ndarray], corner: np.ndarray, size: np.ndarray) -> Artist:
    """Lines of constant rate plus distortion, the value where a line is furthest from all curves; returns the last."""
    busy = np.concatenate([_along(curve) for curve in curves])
    levels = MaxNLocator(12, steps=[1, 2, 2.5, 5, 10]).tick_values(corner.sum(), (corner + size).sum())
    for level in levels:
        first, last = max(corner[0], level - corner[1] - size[1]), min(corner[0] + size[0], level - corner[1])
        if last - first < 0.2 * size.min():  # in a corner, too short to be written on
            continue
        ends = np.array([first, last])
        (line,) = axes.plot(ends, level - ends, color=GREY, linewidth=0.6, zorder=1, label="rate + distortion = −ELBO")
        x = first + np.linspace(0.1, 0.9, 33) * (last - first)
        axes.text(
            *_clearest(np.stack([x, level - x], -1), busy, size),
            f"{level:g}",
            color=GREY,
            fontsize=8,
            ha="center",
            va="center",
            rotation=-45,
            rotation_mode="anchor",
            transform_rotates_text=True,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=2,
        )
    return line


def _label_points(
    axes: Axes, curves: Sequence[Sequence[Mapping[str, Any]]], corner: np.ndarray, size: np.ndarray
) -> None:
    """Write each point's weight or target beside it, where there is most room."""
    edges = corner + size * np.array([[0, 1], [0, 0], [1, 0]])
    busy = np.concatenate([_along(edges), *(_along(_places(curve)) for curve in curves)])
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = size * np.stack([0.05 * np.cos(angles), 0.035 * np.sin(angles)], -1)
    right = corner[0] + size[0]
    for position, curve in enumerate(curves):
        for point, place in zip(curve, _places(curve), strict=True):
            text = f"β = {point['beta']:g}" if "beta" in point else f"{point['target']:g}".replace("-", "−")
            candidates = place + around
            if place[0] > right:  # where the curve leaves the axes, above it or below
                text += f" at rate {place[0]:,.0f} →"
                x = right - 0.13 * size[0]
                candidates = np.array([x, np.interp(x, *_places(curve).T)]) + size * [[0, 0.035], [0, -0.035]]
            candidates = candidates[candidates[:, 0] > corner[0] + 0.04 * size[0]]  # not over the ticks
            at = _clearest(candidates, busy, size)
            busy = np.concatenate([busy, at[None]])
            label = axes.text(*at, text, color=f"C{position}", fontsize=9, ha="center", va="center", zorder=4)
            label.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _along(places: np.ndarray) -> np.ndarray:
    """Many points on the line through a few, `(n, 2)`."""
    between = np.linspace(0, 1, 50)[:, None, None]
    return np.concatenate([(places[:-1] + between * np.diff(places, axis=0)).reshape(-1, 2), places])


def _clearest(candidates: np.ndarray, busy: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The candidate furthest from everything that is drawn; a text is wide, so that distance across counts half."""
    distances = np.linalg.norm((candidates[:, None] - busy) / size * np.array([0.5, 1]), axis=-1)
    return candidates[distances.min(1).argmax()]
