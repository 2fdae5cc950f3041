"""Paths between two latents of a generator, straight, mixed otherwise, or of least energy, and what each costs."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_models import least_energy_path, pullback_path, spherical, straight, variance_preserving
from ppl_models.path_energy import end_images, lower_bound, pullback_segments, segments
from ppl_models.paths import subdivided

__all__ = ["ENERGIES", "KINDS", "PathsOfAKind", "figures_of", "lines", "lower_bounds", "paths_between", "short"]

KINDS = ("straight", "variance-preserving", "spherical", "pull-back", "least energy")

ENERGIES = {"path_energy": "least energy", "pullback_energy": "pull-back"}
"""What is measured, and the kind of path that has least of it."""

FINE = 500
"""Points at which energies are summed: what was minimised on a few nodes is judged by what lies between them too."""

PAIRS = 16
"""Pairs at a time, for memory's sake."""


class PathsOfAKind(NamedTuple):
    """Paths and how fast they go; the mean of that over the points is a path's energy.

    Attributes:
        path: Points at equal times, `(pairs, nodes, latents)`.
        path_energy: The weighted squared speed of the codes along the path, `(pairs, points)`.
        pullback_energy: The squared speed of the images, likewise.
        path_variation: Standard deviation over mean of the first between the nodes, `(pairs)`.
        pullback_variation: The same of the second.
        norm: The least norm of a code over the root of the dimensions, `(pairs)`; about 1 for codes from the prior.
    """

    path: Tensor
    path_energy: Tensor
    pullback_energy: Tensor
    path_variation: Tensor
    pullback_variation: Tensor
    norm: Tensor


def paths_between(
    generator: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    *,
    nodes: int = 32,
    steps: int = 100,
    starts: int = 2,
    seed: int = 0,
    subpoints: int = FINE,
) -> dict[str, PathsOfAKind]:
    """Paths of all `KINDS` between pairs of codes, measured on as many points.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`, differentiable; a module in eval mode.
        z_a: Where the paths start, `(pairs, latents)`.
        z_b: Where they end, the same shape.
        nodes: Points of a path, straight in between.
        steps: Of descent, to those of least energy.
        starts: Descents for each pair.
        seed: Of what these differ by.
        subpoints: How finely energies are summed, in points or a few more.

    Raises:
        UsageError: As `least_energy_path`.
    """
    several = {"nodes": nodes, "steps": steps, "starts": starts, "seed": seed}
    time = torch.linspace(0, 1, nodes, device=z_a.device, dtype=z_a.dtype)
    # The same codes as at equal steps of the weight, at an even rate.
    even = (math.pi / 2 * time).sin().square()
    parts: dict[str, list[PathsOfAKind]] = {kind: [] for kind in KINDS}
    for a, b in zip(z_a.split(PAIRS), z_b.split(PAIRS), strict=True):
        made = (
            straight(b, a, time),
            variance_preserving(b, a, even),
            spherical(b, a, time),
            pullback_path(generator, a, b, **several).path,
            least_energy_path(generator, a, b, **several).path,
        )
        for kind, path in zip(KINDS, made, strict=True):
            parts[kind].append(_measured(generator, path, subpoints))
    return {kind: PathsOfAKind(*map(torch.cat, zip(*some, strict=True))) for kind, some in parts.items()}


def lower_bounds(generator: Callable[[Tensor], Tensor], z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """What no path's energies are below, `(pairs)` each, by energy."""
    with torch.no_grad():
        x_a, x_b = end_images(generator, z_a, z_b, None, None)
        apart = (x_a - x_b).flatten(1).square().sum(-1)
        return {"path_energy": lower_bound(z_a, z_b, x_a, x_b), "pullback_energy": apart}


def figures_of(paths: Mapping[str, PathsOfAKind], lower: Mapping[str, Tensor]) -> dict[str, Any]:
    """Means over pairs by kind, with standard errors; whether the bounds hold; and the figures of each pair."""
    line = paths["straight"]
    by_pair: dict[str, dict[str, Tensor]] = {}
    for kind, of in paths.items():
        by_pair[kind] = {}
        for name, variation in zip(ENERGIES, (of.path_variation, of.pullback_variation), strict=True):
            energy, on_the_line = getattr(of, name).mean(-1), getattr(line, name).mean(-1)
            gain = 100 * (1 - energy / on_the_line)
            by_pair[kind] |= {name: energy, f"{name}_gain_percent": gain, f"{name}_speed_variation": variation}
        by_pair[kind]["smallest_norm"] = of.norm
    bounds = {}
    for name, kind in ENERGIES.items():
        least, on_the_line, below = by_pair[kind][name], by_pair["straight"][name], lower[name]
        slack = 1 + 1e-5  # of single precision, where both are one, as on a linear generator
        held = (below <= slack * least) & (least <= slack * on_the_line)
        means = {"lower": below, "least": least, "straight": on_the_line}
        bounds[name] = {key: _plain(value.mean()) for key, value in means.items()}
        bounds[name] |= {"held": int(held.sum()), "pairs": len(held)}
    kinds = {kind: _means(figures) for kind, figures in by_pair.items()}
    pairs = {kind: {key: [_plain(v) for v in value] for key, value in one.items()} for kind, one in by_pair.items()}
    return {"kinds": kinds, "bounds": bounds, "pairs": pairs}


def lines(found: Mapping[str, Any]) -> list[str]:
    """A table of the kinds, and what their energies are bounded by."""
    names = ["", "path energy", "gain %", "variation", "pull-back", "gain %", "variation", "‖Z‖/√d"]
    keys = [f"{name}{of}" for name in ENERGIES for of in ("", "_gain_percent", "_speed_variation")] + ["smallest_norm"]
    rows = [[kind, *(_cell(one, key) for key in keys)] for kind, one in found["kinds"].items()]
    widths = [max(len(row[column]) for row in [names, *rows]) for column in range(len(names))]
    said = [
        f"{found['pairs_of_codes']} pairs of {found['latents']} latents, paths of {found['nodes']} nodes; "
        "gain over the straight line, variation of what is even at an optimum, the smallest norm on the way"
    ]
    said += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [names, *rows]]
    for name, kind in ENERGIES.items():
        bound = found["bounds"][name]
        formula = "½ ‖x_A − x_B‖² ‖z_A − z_B‖²" if name == "path_energy" else "‖x_A − x_B‖²"
        said.append(
            f"{formula} {short(bound['lower'])} ≤ {kind} {short(bound['least'])} ≤ straight "
            f"{short(bound['straight'])}: held by {bound['held']} of {bound['pairs']} pairs"
        )
    return [line.rstrip() for line in said]


@torch.no_grad()
def _measured(generator: Callable[[Tensor], Tensor], path: Tensor, subpoints: int) -> PathsOfAKind:
    x_a, x_b = end_images(generator, path[:, 0], path[:, -1], None, None)

    def speeds(points: Tensor) -> list[Tensor]:
        count = points.shape[-2] - 1
        pieces = segments(generator, points, x_a, x_b), pullback_segments(generator, points)
        return [count**2 * piece for piece in pieces]

    variations = (speed.std(-1, correction=0) / speed.mean(-1) for speed in speeds(path))
    norm = path.norm(dim=-1).amin(-1) / math.sqrt(path.shape[-1])
    return PathsOfAKind(path, *speeds(subdivided(path, subpoints)), *variations, norm)


def _means(by_pair: Mapping[str, Tensor]) -> dict[str, float | None]:
    found = {}
    for key, value in by_pair.items():
        found[key] = _plain(value.mean())
        if len(value) > 1 and found[key] is not None:
            found[f"{key}_se"] = _plain(value.std() / math.sqrt(len(value)))
    return found


def _plain(value: Tensor) -> float | None:
    """A number for JSON, which knows none that is not finite."""
    return float(value) if value.isfinite() else None


def _cell(figures: Mapping[str, float | None], key: str) -> str:
    error = figures.get(f"{key}_se")
    return short(figures[key]) + ("" if error is None else f" ± {short(error)}")


def short(value: float | None) -> str:
    """Three digits of a number."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
