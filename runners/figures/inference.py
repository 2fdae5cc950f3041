"""How good inference is, as pictures: gaps to the evidence, brackets around it, active units."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from runners.figures.inline import Picture

__all__ = ["active_units", "annealing", "gaps"]


def gaps(split: Mapping[str, Any]) -> Figure:
    """How far the guide and the best posteriors of some families are below the evidence, a bar each.

    Args:
        split: Figures as in assessment.json: `family`, `amortization`, and `best` with the `approximation` of each
            family, and their errors `_se` over the images.
    """
    own, best = split["family"], split["best"]
    bars = {f"the guide ({own})": (best[own]["approximation"], split["amortization"], split.get("gap_se", 0.0))}
    for name, one in best.items():
        bars[f"best {name}"] = (one["approximation"], 0.0, one.get("approximation_se", 0.0))
    figure = Picture(figsize=(7, 1.8 + 0.4 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    approximation, amortization, errors = zip(*bars.values(), strict=True)
    ends = [sum(pair) for pair in zip(approximation, amortization, strict=True)]
    style = {"height": 0.6}
    axes.barh(list(bars), approximation, color="tab:blue", label="approximation: the family", **style)
    axes.barh(
        list(bars), amortization, left=approximation, color="tab:orange", label="amortization: the guide", **style
    )
    axes.errorbar(ends, list(bars), xerr=errors, fmt="none", color="0.2", capsize=3)
    for name, end, error in zip(bars, ends, errors, strict=True):
        text = f"{end:.2f} ± {error:.2f}" if error else f"{end:.2f}"
        axes.annotate(text, (end + error, name), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xlim(min(0.0, *ends), 1.25 * max(end + error for end, error in zip(ends, errors, strict=True)))
    axes.set_xlabel("nats per image below log p(x)", fontsize=9)
    axes.set_title(f"{split['images']:,} images, ± standard error over them", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    axes.invert_yaxis()
    _tidy(axes, "x")
    return figure


def annealing(by_temperatures: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Annealed importance sampling against the number of temperatures, on data and on simulated data.

    Args:
        by_temperatures: By their number, figures as in assessment.json: `minus_importance`, and `simulated` with its
            `gap`.
    """
    counts = [int(count) for count in by_temperatures]
    rows = list(by_temperatures.values())
    figure = Picture(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curve(left, counts, [(row["minus_importance"], row.get("minus_importance_se", 0.0)) for row in rows])
    left.set_title("data: annealing minus importance sampling", fontsize=11)
    gap = [(row["simulated"]["gap"], row["simulated"].get("gap_se", 0.0)) for row in rows]
    _curve(right, counts, gap)
    right.set_title("simulated data: upper minus lower bound", fontsize=11)
    for axes in (left, right):
        axes.axhline(0, color="0.25", linewidth=1.2, linestyle="--")
        axes.set_ylabel("nats per image", fontsize=9)
        axes.set_xlabel("temperatures", fontsize=9)
    return figure


def active_units(variance: Mapping[str, Tensor], error: Mapping[str, Tensor], *, threshold: float) -> Figure:
    """The variance over the data of each latent's posterior mean, largest first, by site.

    Args:
        variance: By site, of the site's event shape.
        error: Standard errors, likewise.
        threshold: What active units are above.
    """
    figure = Picture(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in variance.items():
        values, order = values.flatten().cpu().sort(descending=True)
        active = int((values > threshold).sum())
        axes.errorbar(
            range(1, len(values) + 1),
            values,
            yerr=error[name].flatten().cpu()[order],
            fmt="o",
            markersize=3.5,
            linewidth=1,
            label=f"{name}: {active} of {len(values)} active",
        )
    axes.axhline(threshold, color="0.25", linewidth=1.2, linestyle="--")
    axes.set_yscale("symlog", linthresh=threshold)  # estimates may be below 0
    axes.set_xlabel("units, the most active first", fontsize=9)
    axes.set_ylabel("variance of the posterior mean", fontsize=9)
    axes.legend(loc="best", fontsize=8)
    _tidy(axes, "both")
    return figure


def _curve(axes: Axes, counts: list[int], points: list[tuple[float, float]]) -> None:
    values, errors = zip(*points, strict=True)
    axes.errorbar(counts, values, yerr=errors, marker="o", markersize=4, linewidth=1.4, capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    _tidy(axes, "both")


def _tidy(axes: Axes, grid: str) -> None:
    axes.tick_params(labelsize=9)
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
