"""How good samples are, in two numbers."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from runners.figures.inline import Picture

__all__ = ["precision_recall"]


def precision_recall(points: Mapping[str, tuple[float, float]]) -> Figure:
    """Precision against recall: how many samples are among the data, and how much of the data is among the samples.

    Args:
        points: By name, recall and precision.
    """
    figure = Picture(figsize=(6.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, (name, (recall, precision)) in enumerate(points.items()):
        marker = "*osD^vP"[place % 7]
        axes.scatter(recall, precision, s=130 if place == 0 else 70, marker=marker, label=name, zorder=3, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_box_aspect(1)
    axes.set_xlabel("recall: data among the samples", fontsize=9)
    axes.set_ylabel("precision: samples among the data", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return figure
