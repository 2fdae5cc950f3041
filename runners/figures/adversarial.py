"""What the losses of a generator ask of it."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from ppl_models.adversarial import AdversarialLoss
from runners.figures.inline import Picture

__all__ = ["generator_losses"]


def generator_losses(losses: Mapping[str, AdversarialLoss]) -> Figure:
    """Generator losses and their derivatives by the discriminator's logit, against D(G(z)).

    Where the discriminator is sure, D(G(z)) near 0, the saturating loss has no slope left, and log D keeps its own.

    Args:
        losses: By the names of their curves; of a discriminator.
    """
    probability = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    figure = Picture(figsize=(9, 3.4), layout="constrained")
    values, slopes = figure.subplots(1, 2)
    for name, loss in losses.items():
        logits = probability.logit().requires_grad_()
        each = torch.stack([loss.generator(logit.unsqueeze(0)) for logit in logits])
        (slope,) = torch.autograd.grad(each.sum(), logits)
        values.plot(probability, each.detach(), label=name)
        slopes.plot(probability, slope, label=name)
    values.set_title("the generator's loss", fontsize=11)
    values.set_ylabel("nats", fontsize=9)
    slopes.set_title("its derivative by the logit", fontsize=11)
    for axes in (values, slopes):
        axes.set_xlabel("D(G(z)), the probability that a generated image is real", fontsize=9)
        axes.axvline(0.5, color="0.25", linewidth=1, linestyle="--")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    values.legend(fontsize=9, frameon=False)
    return figure
