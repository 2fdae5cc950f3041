"""Several measures of several things, a panel each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from runners.figures.curves import EARLY, view
from runners.figures.inline import Picture

__all__ = ["Panel", "lines"]

FEW = 15
"""Points that are marked."""


class Panel(NamedTuple):
    """A measure.

    Attributes:
        title: What it is.
        x: What it is drawn against.
        y: In what unit.
        curves: By name, its points `(x, y)`.
        log: The axes that are logarithmic, of "x" and "y".
        levels: By name, values to draw as dashed lines.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    log: str = ""
    levels: Mapping[str, float] = {}


def lines(panels: Sequence[Panel], *, title: str | None = None) -> Figure:
    """The panels side by side; what has the same name in several has one colour, and one place in the legend.

    On linear axes the view is that after the first points, where these would flatten the rest.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    across = min(len(names), 4)
    below = 0.25 * -(-len(names) // across)
    figure = Picture(figsize=(max(4.6 * len(panels), 5.2), 3.6 + below), layout="constrained")
    drawn = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in panel.curves.items():
            (drawn[name],) = axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=f"C{names.index(name)}",
                linewidth=1.5,
                marker="o" if len(points) < FEW else "",
                markersize=4,
            )
        for name, level in panel.levels.items():
            axes.axhline(level, color="0.25", linewidth=1.2, linestyle="--", label=f"{name} {level:,.3g}")
        if panel.levels:
            axes.legend(handles=axes.lines[-len(panel.levels) :], loc="best", fontsize=8)
        if panel.log:
            for axis in panel.log:
                getattr(axes, f"set_{axis}scale")("log")
        else:
            points = [point for curve in panel.curves.values() for point in curve]
            begun = EARLY * max(x for x, _ in points)
            late, everything = [y for x, y in points if x > begun], [y for _, y in points]
            axes.set_ylim(view(late, everything, list(panel.levels.values())))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_title(panel.title, fontsize=11)
        axes.set_xlabel(panel.x, fontsize=9)
        axes.set_ylabel(panel.y, fontsize=9)
        axes.tick_params(labelsize=9)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=list(drawn.values()), loc="outside lower center", ncols=across, frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure
