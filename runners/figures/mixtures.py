"""Points in the plane over the modes of a mixture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from runners.figures.inline import Picture

__all__ = ["mixtures"]

ACROSS = 4
CLOSE, FAR, HIT, MISSED = "C0", "C1", "0.45", "C3"


def mixtures(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Generated points over a circle around each mode, a panel for each run; modes without a point are red.

    Args:
        runs: Each with `title` and `text`, the two lines above it; the modes' `means`, `(K, 2)`, and the `radius` of
            the circles; generated `points`, `(N, 2)`, and which are `close` to a mode, `(N,)`.
    """
    across = min(len(runs), 2 if len(runs) == 4 else ACROSS)
    down = math.ceil(len(runs) / across)
    figure = Picture(figsize=(max(3.6 * across, 6), 4.0 * down + 0.4), layout="constrained")
    for position, run in enumerate(runs, start=1):
        _draw(figure.add_subplot(down, across, position, aspect="equal"), run)
    legend = {"within 3σ of a mode": CLOSE, "elsewhere": FAR}
    handles = [Line2D([], [], linestyle="", marker="o", markersize=4, color=c, label=k) for k, c in legend.items()]
    rings = {"3σ around a mode that was hit": HIT, "and one that was not": MISSED}
    handles += [
        Line2D([], [], linestyle="", marker="o", markersize=8, markerfacecolor="none", color=c, label=k)
        for k, c in rings.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if across > 2 else 2, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, run: Mapping[str, Any]) -> None:
    means, points, close = run["means"], run["points"], run["close"]
    room = 1.3 * abs(means).max()
    outside = int((abs(points) > room).any(1).sum())
    for shown, colour, size in ((~close, FAR, 3), (close, CLOSE, 3)):
        axes.scatter(*points[shown].T, s=size, color=colour, alpha=0.5, linewidths=0, zorder=2)
    apart = ((means[:, None] - points[close]) ** 2).sum(-1) <= run["radius"] ** 2
    colours = [HIT if hit else MISSED for hit in apart.any(1)]
    wide = [2 * run["radius"]] * len(means)
    axes.add_collection(
        EllipseCollection(
            wide,
            wide,
            [0] * len(means),
            units="xy",
            offsets=means,
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=colours,
            linewidths=[1.6 if colour == MISSED else 0.8 for colour in colours],
            zorder=3,
        )
    )
    axes.set(xlim=(-room, room), ylim=(-room, room))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    text = run["text"] + (f"; {outside} outside" if outside else "")
    axes.set_title(f"{run['title']}\n{text}", fontsize=10)
