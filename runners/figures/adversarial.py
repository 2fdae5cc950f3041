"""What the losses of a generator ask of it."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppl_models.adversarial import AdversarialLoss
from runners.figures.inline import Picture

__all__ = ["generator_losses"]


Lines = Mapping[str, Sequence[tuple[float, float]]]


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
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
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
