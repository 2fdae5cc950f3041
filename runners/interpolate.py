"""Paths between latent codes through a run's generator, GAN or VAE, with their energies, as filmstrips.

    python runners/interpolate.py                       the newest run, or a quick one where there is none
    python runners/interpolate.py runs/B                paths.json, paths.png and path_energies.png go into runs/B
    python runners/interpolate.py runs/B --pairs 20 --nodes 64 --starts 4
    python runners/interpolate.py runs/C --label 3      a class-conditional model's threes
    python runners/interpolate.py runs/B --images 0 1 2 3         between test images 0 and 1, and 2 and 3
    python runners/interpolate.py runs/A runs/B runs/C  a table, such as of GANs with and without --path-energy (S17)

In Python: `interpolate(fit)`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import ppl_models
from ppl_models import UsageError
from runners import figures
from runners.fit import Fit, settled
from runners.gan_fit import GanFit
from runners.generators import Which, generator_of
from runners.interpolation import ENERGIES, PathsOfAKind, figures_of, lines, paths_between, short, table
from runners.look import Look, at_least, look_at, opened, writable
from runners.loop.command import command
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, natural, positive
from runners.loop.random import forked
from runners.metrics.measures import SETTINGS
from runners.predictive import latents

__all__ = ["Interpolation", "interpolate", "main"]

SHOWN = 3
"""Pairs whose filmstrips are drawn."""

IMAGES = 11
"""Images of a filmstrip, given ones among them."""

NAMES = {"path_energy": "path energy", "pullback_energy": "pull-back energy"}

QUICK = {"pairs": 3, "nodes": 12, "steps": 20, "starts": 1}


class Interpolation(Look):
    """Figures of paths as in paths.json, and the pictures; shown as a table."""

    file = "paths.json"

    def lines(self) -> list[str]:
        """A table."""
        return lines(self)


def interpolate(
    fit: Fit | GanFit,
    *,
    pairs: int = 10,
    nodes: int = 32,
    steps: int = 100,
    starts: int = 2,
    images: Sequence[int] | None = None,
    label: int | None = None,
    which: Which | None = None,
    seed: int = 0,
    out: Path | str | None = None,
) -> Interpolation:
    """Measure paths of five kinds between codes from the prior, or of images, and draw them.

    Images have the codes that the guide samples for them, or that `ppl_models.invert` finds for a GAN, the best of its
    restarts. They are then what the path energy asks to stay close to, in place of the images of both codes.

    Where there is a run folder, what is found is written into it.

    Args:
        fit: A GAN, or a fit of a model with one latent; it is not changed.
        pairs: Pairs of codes from the prior, the first of which do not depend on how many there are.
        nodes: Points of a path, both ends among them.
        steps: Of descent, to paths of least energy.
        starts: Descents for each pair.
        images: Test images in place of codes from the prior, by their numbers from 0: from the first to the second,
            from the third to the fourth, and so on.
        label: The class that a conditional model is asked for all along a path; images have to be of it.
        which: Of a GAN's generators; by default the average, where one is kept, else as it is.
        seed: Of the codes and of what the descents start from.
        out: The run folder; by default the fit's, if it has one.

    Raises:
        UsageError: A setting that means nothing, a folder that cannot be written to, or a model of several latents.
    """
    at_least(pairs=(pairs, 1), nodes=(nodes, 3), steps=(steps, 1), starts=(starts, 1))
    folder, started = writable(fit, out), time.monotonic()
    generator = generator_of(fit, label=label, which=which)
    if images is None:
        # On the host, so that every device has the same codes.
        codes = torch.randn(pairs, 2, generator.latents, generator=torch.Generator().manual_seed(seed))
        ends = codes.to(fit.device).unbind(1)
    else:
        ends = _ends(fit, generator, images, label=label, seed=seed)
    settings = {"nodes": nodes, "steps": steps, "starts": starts, "seed": seed}
    paths, lower = paths_between(generator, *ends, **settings)
    given = {"images": images and list(images), "label": label, "which": which}
    found = Interpolation(
        fit,
        latents=generator.latents,
        pairs_of_codes=len(ends[0]),
        descent_steps=steps,
        **{name: settings[name] for name in ("nodes", "starts", "seed")},
        **{name: value for name, value in given.items() if value is not None},
        device=str(fit.device),
        **figures_of(paths, lower),
        seconds=round(time.monotonic() - started, 1),
    )
    strips = _filmstrips(generator, paths, found, *ends[2:])
    found.pictures = {"paths": strips, "path_energies": _energies(paths, lower)}
    found.write(folder)
    return found


def _ends(
    fit: Fit | GanFit, generator: nn.Module, images: Sequence[int], *, label: int | None, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes and pixels of pairs of test images: z_a, z_b, x_a, x_b."""
    test = fit.data.test
    if not images or len(images) % 2:
        raise UsageError(f"images: found {len(images)}, expected pairs of them")
    for number in images:
        if not 0 <= number < len(test):
            raise UsageError(f"images: found {number}, expected 0 to {len(test) - 1}")
        if label is not None and test.labels[number] != label:
            raise UsageError(f"images: found {number} of class {int(test.labels[number])}, expected class {label}")
    batch = settled(test).gather(torch.tensor(images, device=fit.device))
    if isinstance(fit, GanFit):
        found = ppl_models.invert(generator, batch.x, seed=seed)
        z = found.z.take_along_dim(found.loss.argmin(0)[None, :, None], 0).squeeze(0).to(batch.x)
    else:
        with fit.aside(), forked(seed, fit.device):
            z = latents(fit.posterior(batch), batch)
    return z[::2], z[1::2], batch.x[::2], batch.x[1::2]


@torch.no_grad()
def _filmstrips(generator: nn.Module, paths: dict[str, PathsOfAKind], found: Interpolation, *ends: Tensor) -> Figure:
    """Images along the paths of a few pairs, a row for each kind, beside its energies; given ones at both ends."""

    def label(kind: str, pair: int) -> str:
        of, said = found["pairs"][kind], []
        for name in ENERGIES:
            gain = of[f"{name}_gain_percent"][pair]
            beside = "" if kind == "straight" or gain is None else f" ({-gain:+.1f} %)"
            said.append(f"{NAMES[name]} {short(of[name][pair])}{beside}")
        return "\n".join([kind, *said])

    def strip(path: Tensor, pair: int) -> Tensor:
        first, last = ([x[pair, None]] for x in ends) if ends else ([], [])
        return torch.cat([*first, generator(path[pair, shown]), *last])

    nodes = found["nodes"]
    shown = torch.linspace(0, nodes - 1, min(IMAGES - len(ends), nodes)).round().long()
    shown = shown.to(paths["straight"].path.device)
    return figures.filmstrips(
        [
            {label(kind, pair): strip(of.path, pair) for kind, of in paths.items()}
            for pair in range(min(SHOWN, found["pairs_of_codes"]))
        ]
    )


def _energies(paths: dict[str, PathsOfAKind], lower: dict[str, Tensor]) -> Figure:
    """Both energies along the paths of the first pair, and of all pairs."""
    speeds = {name: {kind: of.speeds[name] for kind, of in paths.items()} for name in ENERGIES}
    return figures.path_energies(speeds, lower)


def _samples(folder: Path, fit: Fit | GanFit, found: Interpolation) -> dict[str, Any] | None:
    """What the run's assessment says of samples of the same generator in the same state."""
    try:
        assessed = RunFolder(folder).read_json("assessment.json")
    except UsageError:  # there is none, or it is damaged: the table goes without
        return None
    samples, which = assessed.get("samples") if isinstance(assessed, dict) else None, found.get("which")
    if not isinstance(samples, dict) or assessed.get("state") != found["state"]:
        return None
    if which == "best":
        samples = samples.get("best", {})
    elif which == "last" and fit.average is not None:
        return None  # assessed are those of the average
    return samples if {"images", *SETTINGS} <= samples.keys() else None


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Interpolation | list[Interpolation]:
    """Run the command; returns what it found, of each run where there are several."""
    parser = Parser("Paths between latent codes through a run's generator, with their energies.", __doc__)
    add = parser.add_argument
    add("--pairs", type=positive, help="pairs of codes from the prior (default: 10)")
    add("--nodes", type=positive, help="points of a path (default: 32)")
    add("--steps", type=positive, help="of descent, to paths of least energy (default: 100)")
    add("--starts", type=positive, help="descents for each pair (default: 2)")
    add("--images", type=natural, nargs="+", metavar="I", help="between test images, two and two, instead of codes")
    runs, settings = opened(parser, argv, quick=QUICK, generator=True)
    every = look_at(interpolate, runs, settings)
    if len(every) == 1:
        return every[0]
    rows = [(run[0].name, found, _samples(*run, found)) for run, found in zip(runs, every, strict=True)]
    print("", *table(rows), sep="\n")
    return every


if __name__ == "__main__":
    interpolation = main()
