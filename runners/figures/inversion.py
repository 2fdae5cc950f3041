"""Targets, their inversions, where the losses of all restarts ended, and what lies between these places."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from runners.figures.inline import Picture

__all__ = ["inversion", "places"]


def inversion(
    targets: Tensor, found: Tensor, losses: Tensor, *, planted: Tensor | None = None, threshold: float = 1e-6
) -> Figure:
    """Draw targets above their best inversions, and histograms of the final losses of all restarts.

    Args:
        targets: `(N, C, H, W)` in [0, 1].
        found: Their best inversions, likewise.
        losses: Squared error per pixel of every restart, `(restarts, N)`.
        planted: The same of images made by the generator itself, `(restarts, M)`.
        threshold: The loss that recovers a planted image.
    """
    shown = min(len(targets), 16)
    figure = Picture(figsize=(max(8.0, 0.9 * shown + 1.2), 6.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.2, 3.6])
    columns = max(shown, 8)  # a few images stay side by side
    cells = top.subplots(2, columns, squeeze=False)
    for axes in cells[:, shown:].flat:
        axes.set_axis_off()
    best = losses.amin(0)
    for row, (images, label) in enumerate(((targets, "target"), (found, "inversion,\nits error"))):
        for axes, image, loss in zip(cells[row], images.cpu(), best.tolist(), strict=False):
            picture = image.detach().float().clamp(0, 1).permute(1, 2, 0)
            axes.imshow(picture.expand(-1, -1, 3).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row:
                axes.set_xlabel(f"{loss:.2g}", fontsize=9)
        cells[row][0].set_ylabel(label, fontsize=10)
    pooled: Mapping[str, Tensor | None] = {"planted images": planted, "images of the data": losses}
    pooled = {name: values.flatten().cpu().double() for name, values in pooled.items() if values is not None}
    axes = bottom.subplots()
    ends = torch.cat(list(pooled.values())).clamp_min(1e-18).log10()
    low, high = math.floor(float(ends.min())), math.ceil(float(ends.max()) + 1e-9)
    bins = torch.logspace(low, high, max(6 * (high - low), 20) + 1, dtype=torch.float64).tolist()
    for (name, values), colour in zip(pooled.items(), ("tab:blue", "tab:orange")[-len(pooled) :], strict=True):
        label = f"{name}: {len(values):,} runs"
        axes.hist(values.clamp(10**low, 10**high).tolist(), bins=bins, color=colour, alpha=0.75, label=label)
    if planted is not None:
        axes.axvline(threshold, color="0.25", linewidth=1.2, linestyle="--", label=f"recovered: below {threshold:g}")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=10)  # a few failures beside thousands of runs are what is looked for
    axes.set_ylim(bottom=0)
    most = axes.get_ylim()[1]
    counts = [n for n in (0, 1, 2, 5, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000) if n <= most]
    axes.set_yticks(counts, [f"{n:,}" for n in counts])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("squared error per pixel where a run ended", fontsize=9)
    axes.set_ylabel("runs", fontsize=9)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=9, frameon=False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="both", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def places(losses: Tensor, each: Sequence[Mapping[str, Any]]) -> Figure:
    """For each image where its runs ended, and how far the loss rises on the way from its lowest place to the next.

    Args:
        losses: Squared error per pixel of every restart, `(restarts, N)`.
        each: Of each image what `runners.local_minima.images_evidence` found: `cluster_losses`, and `barriers` with
            `loss`, `relaxed` and `found`.
    """
    figure = Picture(figsize=(max(7.0, 0.9 * len(each) + 1.5), 4.2), layout="constrained")
    axes = figure.subplots()
    shown = {}
    for i, image in enumerate(each):
        ends = losses[:, i].cpu().double()
        left = torch.linspace(-0.36, -0.14, len(ends)) + i
        shown["a run's end"] = axes.scatter(left, ends.sort().values, s=8, color="0.6", linewidths=0)
        for loss in image["cluster_losses"]:
            (line,) = axes.plot([i - 0.1, i + 0.4], [loss] * 2, color="tab:blue", alpha=0.5)
            shown["a place: runs at one code"] = line
        for place, one in enumerate(image["barriers"]):
            x, top = [i + 0.02 + 0.12 * place] * 2, one["loss"] + max(one["relaxed"], 0.0)
            colour = "tab:red" if one["found"] else "0.4"
            (line,) = axes.plot(x, [one["loss"], top], color=colour, marker="_", markersize=6, linewidth=1.6)
            shown["the rise to it from the lowest" if one["found"] else "no rise found"] = line
    axes.set_xticks(range(len(each)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("test image", fontsize=9)
    axes.set_ylabel("squared error per pixel", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure
