"""How much estimates of a gradient vary."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from runners.figures.inline import Picture

__all__ = ["gradients"]


def gradients(
    variances: Mapping[str, Mapping[int, float]],
    components: Mapping[str, Sequence[float]],
    *,
    title: str | None = None,
) -> Figure:
    """The variance of estimators against the number of particles, and what single draws are worth.

    Args:
        variances: By estimator and number of particles, the trace of the covariance.
        components: By estimator, of each draw the component along the gradient, in units of the gradient's length, so
            that the mean is 1 where there is no bias. Beyond ±1 the axis is logarithmic.
        title: A line above.
    """
    figure = Picture(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {name: f"C{position}" for position, name in enumerate(variances)}
    for name, by in variances.items():
        left.plot(list(by), list(by.values()), marker="o", markersize=4, color=colours[name], label=name)
        first = min(by)
        ends = np.array([first, max(by)])
        left.plot(
            ends, by[first] * first / ends, color="0.6", linewidth=0.8, linestyle="--", zorder=1
        )  # what independent samples give
    left.plot([], [], color="0.6", linewidth=0.8, linestyle="--", label="1 / particles")
    counts = sorted({count for by in variances.values() for count in by})
    left.set(xscale="log", yscale="log", xlabel="particles")
    left.set_ylabel("variance, summed over the parameters", fontsize=9)
    left.set_xticks(counts, [f"{count:,}" for count in counts])
    left.minorticks_off()
    jitter = np.random.default_rng(0)
    for position, (name, draws) in enumerate(components.items()):
        draws = np.asarray(draws)
        heights = position + jitter.uniform(-0.25, 0.25, len(draws))
        right.plot(draws, heights, ".", color=colours.get(name, "0.4"), markersize=3, alpha=0.5)
        right.plot([draws.mean()] * 2, [position - 0.38, position + 0.38], color="0.1", linewidth=1.6)
    right.axvline(1, color="0.25", linewidth=1, linestyle="--", zorder=1)
    right.set_xscale("symlog", linthresh=1)
    right.set_yticks(range(len(components)), list(components))
    right.invert_yaxis()
    right.set_xlabel("draws along the gradient, in units of its length; bars: their means", fontsize=9)
    for axes in (left, right):
        axes.tick_params(labelsize=9)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside lower center", ncols=4, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
