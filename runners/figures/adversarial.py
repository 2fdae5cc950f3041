"""What the losses of a generator ask of it."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ppl_models.adversarial import AdversarialLoss
from runners.figures.inline import Picture

__all__ = ["generator_losses", "stopping"]

Lines = Mapping[str, Sequence[tuple[float, float]]]

STYLES = ((0, (4, 4)), (4, (4, 4)))
"""Dashes in each other's gaps: two lines at one place are both seen."""


def generator_losses(losses: Mapping[str, AdversarialLoss], *, measured: Mapping[str, Lines] | None = None) -> Figure:
    """Generator losses and their derivatives by the discriminator's logit, against D(G(z)).

    Where the discriminator is sure, D(G(z)) near 0, the saturating loss has no slope left, and log D keeps its own.

    Args:
        losses: By the names of their curves; of a discriminator.
        measured: By the same names, lines by their labels, of pairs: a mean D(G(z)), and the norm of the loss's
            gradient by the generator's weights there; a third panel.
    """
    probability = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    figure = Picture(figsize=(13.5 if measured else 9, 3.4), layout="constrained")
    values, slopes, *norms = figure.subplots(1, 3 if measured else 2)
    for name, loss in losses.items():
        logits = probability.logit().requires_grad_()
        each = torch.stack([loss.generator(logit.unsqueeze(0)) for logit in logits])
        (slope,) = torch.autograd.grad(each.sum(), logits)
        values.plot(probability, each.detach(), label=name)
        slopes.plot(probability, slope, label=name)
    values.set_title("the generator's loss", fontsize=11)
    values.set_ylabel("nats", fontsize=9)
    slopes.set_title("its derivative by the logit", fontsize=11)
    for axes in norms:
        _draw_norms(axes, losses, measured)
    for axes in (values, slopes, *norms):
        axes.set_xlabel("D(G(z)), the probability that a generated image is real", fontsize=9)
        axes.axvline(0.5, color="0.25", linewidth=1, linestyle="--")
        _plain(axes)
    values.legend(fontsize=9, frameon=False)
    return figure


def _draw_norms(axes: Axes, losses: Mapping[str, AdversarialLoss], measured: Mapping[str, Lines]) -> None:
    for place, name in enumerate(losses):
        for (label, points), style in zip(measured[name].items(), cycle(("o-", "s--", "^:")), strict=False):
            label = label if place == 0 else None  # the colours are the first panel's
            axes.plot(*zip(*points, strict=True), style, color=f"C{place}", markersize=4, label=label)
    axes.set(xscale="log", yscale="log")
    axes.set_title("its gradient by the generator's weights", fontsize=11)
    axes.set_ylabel("norm", fontsize=9)
    for line in (legend := axes.legend(fontsize=9, frameon=False)).get_lines():
        line.set_color("0.25")
    legend.set_title("a generator trained by", prop={"size": 9})


def stopping(runs: Mapping[str, Sequence[Mapping[str, float]]], *, distance: str) -> Figure:
    """A distance to the data over training, losses beside it, and the one against the others; runs one below the other.

    Rings are where each is smallest. In the last panels looks that follow each other are joined, the last one filled.

    Args:
        runs: By name, the looks at each run, with `step`, the distance and one or two losses by their names.
        distance: What the distance is called.
    """
    figure = Picture(figsize=(12, 3.3 * len(runs) + 0.2), layout="constrained")
    grid = figure.subplots(len(runs), 3, squeeze=False)
    for (name, rows), (far, losses, against) in zip(runs.items(), grid, strict=True):
        steps, distances = ([row[of] for row in rows] for of in ("step", distance))
        names = [of for of in rows[0] if of not in ("step", distance)]
        _curve(far, steps, distances, colour="0.2")
        if 0 < 3 * min(distances) < max(distances):
            for axis in (far.set_yscale, against.set_yscale):
                axis("log")
        for place, of in enumerate(names):
            values, colour = [row[of] for row in rows], f"C{place}"
            _curve(losses, steps, values, colour=colour, label=of)
            stop = values.index(min(values))
            far.axvline(steps[stop], color=colour, linewidth=1.2, linestyle=STYLES[place % 2], label=f"least {of}")
            against.plot(values, distances, color=colour, linewidth=0.6, alpha=0.6)
            against.scatter(values[:-1], distances[:-1], s=18, facecolors="white", edgecolors=colour, zorder=3)
            against.scatter(values[-1:], distances[-1:], s=30, color=colour, zorder=4)
        far.set_title(f"{name}: {distance}", fontsize=11)
        losses.set_title(f"{name}: losses", fontsize=11)
        against.set_title(f"{name}: {distance} against losses", fontsize=11)
        for axes in (far, losses):
            axes.set_xlabel("step", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        against.set_xlabel("loss since the last look", fontsize=9)
        for axes in (far, losses, against):
            _plain(axes)
        for axes in (far, losses):
            axes.legend(fontsize=8, frameon=False)
    return figure


def _curve(axes: Axes, steps: Sequence[float], values: Sequence[float], *, colour: str, label: str = "") -> None:
    """A curve with a ring where it is lowest."""
    axes.plot(steps, values, color=colour, linewidth=1.4, marker=".", markersize=4, label=label or None)
    least = values.index(min(values))
    axes.plot(steps[least], values[least], marker="o", markersize=9, markerfacecolor="none", color=colour)


def _plain(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
