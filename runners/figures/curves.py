"""Training curves against the step."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from runners.figures.inline import Picture

__all__ = ["EARLY", "curves", "view"]

Rows = Sequence[Mapping[str, float]]

TERMS = {"elbo": "ELBO", "log_likelihood": "log-likelihood  E[log p(x | z)]", "kl": "KL"}
TITLES = TERMS | {
    "wasserstein_estimate": "Wasserstein estimate",
    "iwae": "importance-weighted bound",
    "kl_weight": "KL weight",
    "lagrange_multiplier": "Lagrange multiplier",
    "violation": "violation of the constraint",
}
IN_UNITS = TERMS.keys() | {"iwae"}
NOT_DRAWN = {"step", "epoch", "loss", "seconds"}
EARLY = 0.05
"""The share of a run that does not decide what is in view."""


def curves(
    rows: Rows | Mapping[str, Rows],
    *,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
    unit: str = "nats per image",
) -> Figure:
    """The ELBO and its terms against the step, and whatever else varied, a panel each.

    The view is that of the run after its first steps: where those would flatten the rest, the curve leaves the axes.

    Args:
        rows: A run's logged rows, each with `step` and any of `elbo`, `log_likelihood`, `kl` and further columns; or
            several runs (or a published curve) by name, overlaid with a legend.
        references: Levels to draw as dashed lines, by column or `"column: label"`; without such a panel, left out.
            Where the label is a run's name, the line is in that run's colour and needs no legend.
        title: A line above.
        unit: What the ELBO and its terms are measured in.
    """
    runs = rows if isinstance(rows, Mapping) else {"": rows}
    columns = _columns([run for run in runs.values() if run])
    if not columns:
        figure = Picture(figsize=(6, 1.6))
        figure.text(0.5, 0.45, "no rows yet", ha="center", va="center", color="0.4", fontsize=12)
        figure.suptitle(title or "")
        return figure
    across = 2 if len(columns) == 4 else min(len(columns), 3)
    down = math.ceil(len(columns) / across)
    legend_lines = math.ceil(len(runs) / (across + 1)) if len(runs) > 1 else 0
    size = (4 * across, 3 * down + 0.25 * legend_lines + 0.3 * bool(title))
    figure = Picture(figsize=size, layout="constrained")
    for position, column in enumerate(columns, start=1):
        axes = figure.add_subplot(down, across, position)
        _draw(axes, column, runs, references or {})
        axes.set_title(TITLES.get(column, column.replace("_", " ")), fontsize=11)
        in_units = column in IN_UNITS or (column.startswith("kl_") and column != "kl_weight")
        axes.set_ylabel(unit if in_units else "", fontsize=9)
    if legend_lines:
        lines = figure.axes[0].lines[: len(runs)]
        figure.legend(handles=lines, loc="outside lower center", ncols=across + 1, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _columns(runs: Sequence[Rows]) -> list[str]:
    """The ELBO and its terms (without an ELBO, the loss), then every column that varies within a run."""
    names = list(dict.fromkeys(name for run in runs for row in run for name in row))
    terms = [name for name in TERMS if name in names]
    loss = ["loss"] if "loss" in names and "elbo" not in names else []
    others = [name for name in names if name not in NOT_DRAWN | TERMS.keys()]
    return loss + terms + [name for name in others if any(len(set(_points(run, name)[1])) > 1 for run in runs)]


def _points(run: Rows, column: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows in which `column` is a finite number."""
    points = [(row["step"], row[column]) for row in run if math.isfinite(row.get(column, math.nan))]
    return [step for step, _ in points], [value for _, value in points]


def _draw(axes: Axes, column: str, runs: Mapping[str, Rows], references: Mapping[str, float]) -> None:
    settled, everything, lines = [], [], []
    for name, run in runs.items():
        steps, values = _points(run, column)
        label = name if run else f"{name} (no rows yet)"
        axes.plot(steps, values, label=label, linewidth=1.4, marker="o" if 0 < len(steps) < 10 else "", markersize=3)
        begun = steps[0] + EARLY * (steps[-1] - steps[0]) if steps else 0.0
        late = [value for step, value in zip(steps, values, strict=True) if step > begun]
        settled += late if len(late) > 2 else values
        everything += values
    colours = {name: line.get_color() for name, line in zip(runs, axes.lines, strict=True) if name}
    levels = {key: level for key, level in references.items() if key.partition(":")[0] == column}
    of_runs = {key: name for key in levels if (name := key.partition(":")[2].strip()) in colours}
    for key, name in of_runs.items():
        axes.axhline(levels[key], color=colours[name], linewidth=1.0, linestyle="--")
    named = {key: level for key, level in levels.items() if key not in of_runs}
    for (key, level), style in zip(named.items(), cycle(("--", ":", "-.")), strict=False):
        label = f"{key.partition(':')[2].strip() or 'reference'} {level:,.2f}"
        lines.append(axes.axhline(level, color="0.25", linewidth=1.2, linestyle=style, label=label))
    if lines:
        axes.legend(handles=lines, loc="best", fontsize=8)
    if everything or levels:
        axes.set_ylim(view(settled, everything, list(levels.values())))
    logged = {row["step"] for run in runs.values() for row in run}
    # Around a single step the locator would put several ticks that all read the same.
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True) if len(logged) > 1 else FixedLocator(list(logged)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def view(settled: list[float], everything: list[float], levels: list[float]) -> tuple[float, float]:
    """Limits of the vertical axis: all values, unless the first steps' would take more than two thirds of the room."""
    spread = max(settled, default=0.0) - min(settled, default=0.0)
    spiked = bool(everything) and 0 < spread < (max(everything) - min(everything)) / 3
    shown = (settled if spiked else everything) + levels
    low, high = min(shown), max(shown)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
