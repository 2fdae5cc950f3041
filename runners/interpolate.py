"""Paths between latent codes through a run's generator, GAN or VAE, with their energies, as filmstrips.

    python runners/interpolate.py                       the newest run, or a quick one where there is none
    python runners/interpolate.py runs/B                paths.json, paths.png and path_energies.png go into runs/B
    python runners/interpolate.py runs/B --pairs 20 --nodes 64 --starts 4
    python runners/interpolate.py runs/C --label 3      a class-conditional model's threes

In Python: `interpolate(fit)`.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ppl_models import UsageError
from runners import figures
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.generators import generator_of
from runners.interpolation import ENERGIES, PathsOfAKind, figures_of, lines, lower_bounds, paths_between, short
from runners.loading import load_run, newest_or_quick
from runners.loop.command import Parser, command, given_path, natural, positive
from runners.loop.folder import RunFolder
from runners.origin import device_of

__all__ = ["Interpolation", "interpolate", "main"]

SHOWN = 3
"""Pairs whose filmstrips are drawn."""

IMAGES = 11
"""Images of a filmstrip."""

NAMES = {"path_energy": "path energy", "pullback_energy": "pull-back energy"}

QUICK = {"pairs": 3, "nodes": 12, "steps": 20, "starts": 1}


class Interpolation(dict[str, Any]):
    """Figures of paths as in paths.json, and the pictures; shown as a table."""

    def __init__(self, **figures: Any) -> None:
        super().__init__(figures)
        self.pictures: dict[str, Figure] = {}

    def __repr__(self) -> str:
        return "\n".join(lines(self))


def interpolate(
    fit: Fit | GanFit,
    *,
    pairs: int = 10,
    nodes: int = 32,
    steps: int = 100,
    starts: int = 2,
    label: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
) -> Interpolation:
    """Measure paths of five kinds between codes from the prior, and draw them.

    Where there is a run folder, what is found is written into it.

    Args:
        fit: A GAN, or a fit of a model with one latent; it is not changed.
        pairs: Pairs of codes, the first of which do not depend on how many there are.
        nodes: Points of a path, both ends among them.
        steps: Of descent, to paths of least energy.
        starts: Descents for each pair.
        label: The class that a conditional model is asked for.
        seed: Of the codes and of what the descents start from.
        out: The run folder; by default the fit's, if it has one.

    Raises:
        UsageError: A setting that means nothing, a folder that cannot be written to, or a model of several latents.
    """
    least = {"pairs": (pairs, 1), "nodes": (nodes, 3), "steps": (steps, 1), "starts": (starts, 1)}
    for name, (value, from_there) in least.items():
        if value < from_there:
            raise UsageError(f"{name}: found {value}, expected {from_there} or more")
    folder = fit.folder if out is None else RunFolder(Path(out))
    if folder and not (folder.holds_run and os.access(folder.path, os.W_OK)):
        raise UsageError(f"{folder.path}: not a run folder that can be written to")  # before minutes of work
    generator, started = generator_of(fit, label=label), time.monotonic()
    # On the host, so that every device has the same codes.
    codes = torch.randn(pairs, 2, generator.latents, generator=torch.Generator().manual_seed(seed))
    z_a, z_b = codes.to(fit.device).unbind(1)
    settings = {"nodes": nodes, "steps": steps, "starts": starts, "seed": seed}
    paths, lower = paths_between(generator, z_a, z_b, **settings), lower_bounds(generator, z_a, z_b)
    found = Interpolation(
        data=fit.data.name,
        steps=fit.history.step,
        latents=generator.latents,
        pairs_of_codes=pairs,
        descent_steps=steps,
        **{name: settings[name] for name in ("nodes", "starts", "seed")},
        **({} if label is None else {"label": label}),
        device=str(fit.device),
        **figures_of(paths, lower),
        seconds=round(time.monotonic() - started, 1),
    )
    found.pictures = {"paths": _filmstrips(generator, paths, found), "path_energies": _energies(paths, lower)}
    if folder:
        folder.write_json("paths.json", found)
        for name, picture in found.pictures.items():
            figures.save(picture, folder.path / f"{name}.png")
        figures.report(folder.path)
    return found


@torch.no_grad()
def _filmstrips(generator: nn.Module, paths: dict[str, PathsOfAKind], found: Interpolation) -> Figure:
    """Images along the paths of a few pairs, a row for each kind, beside its energies."""

    def label(kind: str, pair: int) -> str:
        of, said = found["pairs"][kind], []
        for name in ENERGIES:
            gain = of[f"{name}_gain_percent"][pair]
            beside = "" if kind == "straight" or gain is None else f" ({-gain:+.1f} %)"
            said.append(f"{NAMES[name]} {short(of[name][pair])}{beside}")
        return "\n".join([kind, *said])

    nodes = found["nodes"]
    shown = torch.linspace(0, nodes - 1, min(IMAGES, nodes)).round().long().to(paths["straight"].path.device)
    return figures.filmstrips(
        [
            {label(kind, pair): generator(of.path[pair, shown]) for kind, of in paths.items()}
            for pair in range(min(SHOWN, found["pairs_of_codes"]))
        ]
    )


def _energies(paths: dict[str, PathsOfAKind], lower: dict[str, Tensor]) -> Figure:
    """Both energies along the paths of the first pair, and of all pairs."""
    return figures.path_energies(
        {name: {kind: getattr(of, name) for kind, of in paths.items()} for name in ENERGIES}, lower
    )


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Interpolation:
    """Run the command; returns what it found."""
    parser = Parser("Paths between latent codes through a run's generator, with their energies.", __doc__)
    parser.usage = "%(prog)s [RUN] [options]"
    add = parser.add_argument
    add(
        "run",
        type=given_path,
        nargs="?",
        metavar="RUN",
        help="a run folder of svi.py or gan.py (default: the newest under runs/)",
    )
    add("--pairs", type=positive, help="pairs of codes from the prior (default: 10)")
    add("--nodes", type=positive, help="points of a path (default: 32)")
    add("--steps", type=positive, help="of descent, to paths of least energy (default: 100)")
    add("--starts", type=positive, help="descents for each pair (default: 2)")
    add("--label", type=natural, help="the class that a conditional model is asked for")
    add("--seed", type=natural, help="of the codes and the starts (default: 0)")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--data-root", type=given_path, help="folder with data sets (default: the run's, $PPL_DATA, data/)")
    add("--model", help="FILE.py:NAME, where the run's model is your own")
    add("--guide", help="the same for its guide")
    add("--quick", action="store_true", help="few pairs, nodes and steps, to see that all is well")
    options = vars(parser.parse_args(argv))
    settings = QUICK if options.pop("quick", False) else {}
    own = {name: options.pop(name) for name in ("model", "guide") if name in options}
    place = {"device": device_of(options.pop("device", None)), "data_root": options.pop("data_root", None)}
    folder = options.pop("run", None) or newest_or_quick()
    fit = load_run(folder, **own, **place)
    found = interpolate(fit, out=folder, **(settings | options))
    print(f"{fit!r} ← {folder}", file=sys.stderr)
    print(found)
    print(folder / "report.html")
    return found


if __name__ == "__main__":
    interpolation = main()
