"""Paths between two latents of a generator, straight, mixed otherwise, or of least energy, and what each costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_models import least_energy_path, pullback_path, spherical, straight, variance_preserving
from ppl_models.path_energy import end_images, pullback_segments, segments
from ppl_models.paths import subdivided
from ppl_models.reprs import fields_repr
from runners.metrics.measures import SETTINGS, cell

__all__ = ["ENERGIES", "KINDS", "PathsOfAKind", "figures_of", "lines", "paths_between", "short", "table"]

KINDS = ("straight", "variance-preserving", "spherical", "pull-back", "least energy")

ENERGIES = {"path_energy": "least energy", "pullback_energy": "pull-back"}
"""What is measured, and the kind of path that has least of it."""

COLUMNS = {
    "straight_over_lower": "straight path energy / lower bound",
    "least_over_lower": "least path energy / lower bound",
    "path_energy_gain_percent": "gain %",
    "pullback_energy_gain_percent": "pull-back gain %",
    "frechet_distance": "Fréchet distance",
    "reverse_kl": "reverse KL",
    "classes_percent": "classes above 1 %",
}
"""What a table of several runs shows, and how it calls it."""

FINE = 500
"""Points at which energies are summed: what was minimised on a few nodes is judged by what lies between them too."""

PAIRS = 16
"""Pairs at a time, for memory's sake."""


class PathsOfAKind(NamedTuple):
    """Paths and how fast they go; the mean of that over the points is a path's energy.

    Attributes:
        path: Points at equal times, `(pairs, nodes, latents)`.
        path_speed: The weighted squared speed of the codes along the path, `(pairs, points)`.
        image_speed: The squared speed of the images, likewise.
        path_variation: Standard deviation over mean of the first between the nodes, `(pairs)`.
        image_variation: The same of the second.
        norm: The least norm of a code over the root of the dimensions, `(pairs)`; about 1 for codes from the prior.
    """

    path: Tensor
    path_speed: Tensor
    image_speed: Tensor
    path_variation: Tensor
    image_variation: Tensor
    norm: Tensor

    __repr__ = fields_repr

    @property
    def speeds(self) -> dict[str, Tensor]:
        """What the mean of is an energy, by the energy's name."""
        return dict(zip(ENERGIES, (self.path_speed, self.image_speed), strict=True))

    @property
    def variations(self) -> dict[str, Tensor]:
        """How uneven that is, likewise."""
        return dict(zip(ENERGIES, (self.path_variation, self.image_variation), strict=True))


def paths_between(
    generator: Callable[[Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    x_a: Tensor | None = None,
    x_b: Tensor | None = None,
    *,
    nodes: int = 32,
    steps: int = 100,
    starts: int = 2,
    seed: int = 0,
    subpoints: int = FINE,
) -> tuple[dict[str, PathsOfAKind], dict[str, Tensor]]:
    """Paths of all `KINDS` between pairs of codes, measured on as many points, and what no path's energies are below.

    Args:
        generator: From latents `(*, latents)` to images `(*, *event)`, differentiable; a module in eval mode.
        z_a: Where the paths start, `(pairs, latents)`.
        z_b: Where they end, the same shape.
        x_a: The first image of the path energy, `(pairs, *event)`; G(z_a) by default.
        x_b: The second image, likewise.
        nodes: Points of a path, straight in between.
        steps: Of descent, to those of least energy.
        starts: Descents for each pair.
        seed: Of what these differ by.
        subpoints: How finely energies are summed, in points or a few more.

    Returns:
        The paths by kind, and the lower bounds by energy, `(pairs)`; that of the pull-back energy is always between
        G(z_a) and G(z_b).

    Raises:
        UsageError: As `least_energy_path`.
    """
    with torch.no_grad():
        x_a, x_b = end_images(generator, z_a, z_b, x_a, x_b)
    several = {"nodes": nodes, "steps": steps, "starts": starts, "seed": seed}
    time = torch.linspace(0, 1, nodes, device=z_a.device, dtype=z_a.dtype)
    # The same codes as at equal steps of the weight, at an even rate.
    even = (math.pi / 2 * time).sin().square()
    parts: dict[str, list[PathsOfAKind]] = {kind: [] for kind in KINDS}
    lower: dict[str, list[Tensor]] = {name: [] for name in ENERGIES}
    for a, b, *ends in zip(*(both.split(PAIRS) for both in (z_a, z_b, x_a, x_b)), strict=True):
        geodesic = pullback_path(generator, a, b, **several)
        least = least_energy_path(generator, a, b, *ends, **several)
        mixed = straight(b, a, time), variance_preserving(b, a, even), spherical(b, a, time)
        for kind, path in zip(KINDS, (*mixed, geodesic.path, least.path), strict=True):
            parts[kind].append(_measured(generator, path, *ends, subpoints))
        for name, bound in zip(ENERGIES, (least.lower_bound, geodesic.lower_bound), strict=True):
            lower[name].append(bound)
    paths = {kind: PathsOfAKind(*map(torch.cat, zip(*some, strict=True))) for kind, some in parts.items()}
    return paths, {name: torch.cat(bounds) for name, bounds in lower.items()}


def figures_of(paths: Mapping[str, PathsOfAKind], lower: Mapping[str, Tensor]) -> dict[str, Any]:
    """Means over pairs by kind, with standard errors; whether the bounds hold; and the figures of each pair."""
    line = paths["straight"]
    by_pair: dict[str, dict[str, Tensor]] = {}
    for kind, of in paths.items():
        by_pair[kind] = {}
        for name in ENERGIES:
            energy, on_the_line = of.speeds[name].mean(-1), line.speeds[name].mean(-1)
            gain, variation = 100 * (1 - energy / on_the_line), of.variations[name]
            by_pair[kind] |= {name: energy, f"{name}_gain_percent": gain, f"{name}_speed_variation": variation}
        by_pair[kind]["smallest_norm"] = of.norm
    bounds = {}
    for name, kind in ENERGIES.items():
        least, on_the_line, below = by_pair[kind][name], by_pair["straight"][name], lower[name]
        slack = 1 + 1e-5  # of single precision, where both are one, as on a linear generator
        held = (below <= slack * least) & (least <= slack * on_the_line)
        means = {"lower": below, "least": least, "straight": on_the_line}
        bounds[name] = {key: _plain(value.mean()) for key, value in means.items()}
        bounds[name] |= _means({"straight_over_lower": on_the_line / below, "least_over_lower": least / below})
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


def table(runs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any] | None]]) -> list[str]:
    """The lines of a Markdown table, a row a run; means and standard errors are over the pairs.

    Args:
        runs: For each its name, what was found of its paths, and what `measure` returned for its samples, if that is
            known; what was measured otherwise than the first of these is left out.
    """
    how = next(({of: samples[of] for of in SETTINGS} for *_, samples in runs if samples is not None), {})
    rows, left_out = [], False
    for name, found, samples in runs:
        alike = samples is not None and all(samples[setting] == value for setting, value in how.items())
        left_out |= not alike
        figures = found["bounds"]["path_energy"] | (dict(samples) if alike else {})
        for energy, kind in ENERGIES.items():
            figures |= {key: value for key, value in found["kinds"][kind].items() if key.startswith(f"{energy}_gain")}
        rows.append(f"| {name} | {' | '.join(cell(figures, column) for column in COLUMNS)} |")
    first = runs[0][1]
    said = f"Mean ± standard error over {first['pairs_of_codes']} pairs, of the gain over the straight line too"
    if "images" in first:
        said += f"; paths between the images {' '.join(map(str, first['images']))}."
    else:
        latents = len({found["latents"] for _, found, _ in runs})
        said += "; the same codes for each run." if latents == 1 else "; the same codes for runs of as many latents."
    if left_out:
        said += " –: no samples were assessed in this state, or in other ways than the first run's."
    return [f"| | {' | '.join(COLUMNS.values())} |", f"| --- |{' ---: |' * len(COLUMNS)}", *rows, "", said]


@torch.no_grad()
def _measured(
    generator: Callable[[Tensor], Tensor], path: Tensor, x_a: Tensor, x_b: Tensor, subpoints: int
) -> PathsOfAKind:
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
