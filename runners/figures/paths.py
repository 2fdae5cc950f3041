"""Energies of paths between latent codes, along the paths and pair by pair."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from runners.figures.inline import Picture

__all__ = ["path_energies"]

TITLES = {
    "path_energy": "path energy, $w(Z)\\,\\Vert\\dot Z\\Vert^2$",
    "pullback_energy": "pull-back energy, $\\Vert\\dot x\\Vert^2$",
}


def path_energies(speeds: Mapping[str, Mapping[str, Tensor]], lower: Mapping[str, Tensor]) -> Figure:
    """What energies sum, along the first pair's paths; and each pair's energy beside its straight line's.

    Args:
        speeds: By energy and kind of path, `(pairs, points)`, of which the means over points are the energies; the
            kind `straight` is what the others are compared with.
        lower: By energy, what no path is below, `(pairs)`.
    """
    figure = Picture(figsize=(10, 3.4 * len(speeds) + 0.4), layout="constrained")
    panels = figure.subplots(len(speeds), 2, squeeze=False)
    for (along, by_pair), (name, kinds) in zip(panels, speeds.items(), strict=True):
        title = TITLES.get(name, name.replace("_", " "))
        straight = kinds["straight"].mean(-1).cpu()
        pairs = torch.arange(1, len(straight) + 1)
        for position, (kind, speed) in enumerate(kinds.items()):
            points = speed.shape[-1]
            times = (torch.arange(points) + 0.5) / points
            along.plot(times, speed[0].cpu(), label=kind, linewidth=1.3)
            aside = pairs + 0.12 * (position - (len(kinds) - 1) / 2)
            by_pair.plot(aside, speed.mean(-1).cpu() / straight, "o", markersize=4)
        bound = lower[name].cpu() / straight
        by_pair.hlines(bound, pairs - 0.35, pairs + 0.35, color="0.25", linewidth=1.2, label="lower bound")
        along.set_title(f"{title}: along the paths of pair 1", fontsize=10)
        along.set_xlabel("time t", fontsize=9)
        along.set_yscale("log")  # the ends of pull-back paths are many times as fast as the rest
        by_pair.set_title("of each pair, over the straight line's", fontsize=10)
        by_pair.set_xlabel("pair", fontsize=9)
        by_pair.set_xticks(pairs[:: -(-len(pairs) // 20)])
        by_pair.set_ylim(bottom=0)
        for axes in (along, by_pair):
            axes.tick_params(labelsize=9)
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
    handles = [*panels[0, 0].get_legend_handles_labels()[0], *panels[0, 1].get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    return figure
