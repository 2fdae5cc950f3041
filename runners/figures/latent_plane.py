"""Codes in a plane, beside the prior."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from torch import Tensor

from runners.figures.inline import Picture

__all__ = ["latent_plane"]

RADII = (1, 2, 3)
"""Of the prior's circles, which hold 39, 86 and 99 % of N(0, I): 1 - exp(-r²/2)."""

SEEN = 0.99
"""The part of the codes that the axes are made to hold; those beyond leave them."""


def latent_plane(
    codes: Mapping[str, Tensor],
    *,
    labels: Tensor | None = None,
    samples: Mapping[str, Tensor] | None = None,
    image: Tensor | None = None,
) -> Figure:
    """Codes of data, a panel each, with the prior's circles, and on top samples of one image's posterior.

    Args:
        codes: By title, of two dimensions, `(N, 2)`.
        labels: The data's classes, `(N,)`, as colours.
        samples: By title, of one image's posterior, `(S, 2)`.
        image: That image, `(C, H, W)` in [0, 1], drawn in a corner of the first panel.
    """
    across = min(2, len(codes))
    down = -(-len(codes) // across)
    figure = Picture(figsize=(4.6 * across, 4.6 * down + 0.6), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, (title, points) in zip(panels, codes.items(), strict=False):
        _draw(axes, points.cpu(), None if labels is None else labels.cpu(), (samples or {}).get(title))
        axes.set_title(title, fontsize=11)
    for axes in panels[len(codes) :]:
        axes.set_visible(False)
    if image is not None:
        corner = panels[0].inset_axes((0.01, 0.8, 0.19, 0.19))
        corner.imshow(image.cpu().clamp(0, 1).movedim(0, -1).squeeze(-1).numpy(), cmap="gray", interpolation="nearest")
        corner.set_xticks([])
        corner.set_yticks([])
    classes = [] if labels is None else labels.unique().tolist()
    handles = [_dot(_colour(label), str(label)) for label in classes]
    handles.append(Line2D([], [], color="0.15", linewidth=1.2, label="prior, radius 1, 2, 3"))
    if samples:
        handles.append(Line2D([], [], color="black", marker="+", linestyle="", label="posterior samples of one image"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, points: Tensor, labels: Tensor | None, samples: Tensor | None) -> None:
    colours = "C0" if labels is None else [_colour(label) for label in labels.tolist()]
    axes.scatter(*points.T.numpy(), s=5, c=colours, alpha=0.6, linewidths=0)
    for radius in RADII:
        axes.add_patch(Circle((0, 0), radius, fill=False, color="0.15", linewidth=1.2))
    if samples is not None:
        axes.scatter(*samples.cpu().T.numpy(), s=28, c="black", marker="+", linewidths=0.9, zorder=3)
    half = max(1.1 * RADII[-1], 1.05 * float(torch.quantile(points.float().abs().amax(1), SEEN)))
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_aspect("equal")
    axes.set_xlabel("$z_1$", fontsize=9)
    axes.set_ylabel("$z_2$", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(label: int) -> str:
    return f"C{label % 10}"


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", markersize=5, linestyle="", label=label)
