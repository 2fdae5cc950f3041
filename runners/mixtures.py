"""GANs on mixtures of Gaussians in the plane, where what a generator misses can be counted.

    python runners/mixtures.py                                             GAN and WGAN-GP on a grid and a ring
    python runners/mixtures.py --mixture grid --loss wgan-gp --seeds 3     one of the four, three times
    python runners/mixtures.py --loss gan saturating hinge                 other losses
    python runners/mixtures.py --quick                                     a few hundred steps, to see that all is well

A run folder holds the table (mixtures.md), its figures run by run (result.json) and the points (mixtures.png).

In Python: `mixtures([GRID], ["gan", "wgan-gp"], seeds=range(3))`, or `fit(GRID, "wgan-gp").sample(2500)`.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppl_models import WASSERSTEIN, UsageError
from runners import figures
from runners.devices import device_of, device_or_default
from runners.loop.atomic import write_atomically
from runners.loop.command import Options, command, fresh
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, given_path, natural, non_negative_number, positive, positive_number
from runners.metrics.transport import wasserstein
from runners.mixture import CLOSE, GRID, MIXTURES, RING, Mixture
from runners.mixture_fit import BETAS, BY_NAME, HIDDEN, LATENTS, MixtureFit, fit

__all__ = ["GRID", "RING", "Mixtures", "fit", "main", "mixtures"]

FRESH = (2**32 - 2, 2**32 - 1)  # torch's generator on the CPU takes 32 bits
"""Seeds of the data that generators are judged by, far from those that runs are given."""

DEFAULTS: Options = {
    "mixture": ["grid", "ring"],
    "loss": ["gan", "wgan-gp"],
    "seeds": 1,
    "critic_steps": None,
    "penalty": None,
    "lr": 1e-3,
    "steps": 5000,
    "batch": 256,
    "samples": 2500,
    "seed": 0,
    "device": None,
    "quick": False,
}
QUICK: Options = {"steps": 300, "samples": 500}


@dataclass(frozen=True, eq=False)
class Mixtures:
    """What generators made of mixtures; its repr is a Markdown table.

    Attributes:
        runs: For each run `mixture`, `loss`, `seed`, `steps` and `seconds`; what `Mixture.measure` says; the exact `w1`
            to fresh data and `w1_floor`, that of data to data; of a Wasserstein critic `critic_w1` and `slope`.
        mixtures: The mixture of each run.
        points: The generated points of each run, `(N, 2)`.
        stopped: The signal that cut a run, which is not among these, or `None`.
    """

    runs: tuple[dict[str, Any], ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    points: tuple[Tensor, ...] = ()
    stopped: int | None = None

    def show(self) -> Figure:
        """The points of each run over the modes."""
        return figures.mixtures(
            [
                {
                    "title": f"{run['loss']} on the {run['mixture']}, seed {run['seed']}",
                    "text": f"{run['modes']} of {run['of']} modes, {run['high_quality']:.0%} high quality",
                    "means": mixture.means.numpy(),
                    "radius": CLOSE * mixture.deviation,
                    "points": x.numpy(),
                    "close": mixture.nearest(x)[1].numpy(),
                }
                for run, mixture, x in zip(self.runs, self.mixtures, self.points, strict=True)
            ]
        )

    def _repr_html_(self) -> str:
        return figures.html(repr(self), *([self.show()] if self.runs else []))

    def __repr__(self) -> str:
        columns: dict[str, Callable[[dict[str, Any]], Any]] = {
            "modes": lambda run: run["modes"],
            "high quality, %": lambda run: 100 * run["high_quality"],
            "reverse KL": lambda run: run["reverse_kl"],
            "(floor)": lambda run: run["reverse_kl_floor"],
            "width / σ": lambda run: run["width"],
            "W1": lambda run: run["w1"],
            "(data)": lambda run: run["w1_floor"],
            "critic's": lambda run: run.get("critic_w1"),
            "seconds": lambda run: run["seconds"],
        }
        digits = {"modes": 1, "high quality, %": 1, "reverse KL": 3, "(floor)": 3, "seconds": 0}
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for run in self.runs:
            groups.setdefault((run["mixture"], run["loss"]), []).append(run)
        lines = ["| " + " | ".join(["mixture", "loss", *columns]) + " |", "| --- | --- |" + " ---: |" * len(columns)]
        for (mixture, loss), group in groups.items():
            cells = [_mean([read(run) for run in group], digits.get(name, 2)) for name, read in columns.items()]
            cells[0] += f" of {group[0]['of']}"
            lines.append("| " + " | ".join([mixture, loss, *cells]) + " |")
        seeds = max((len(group) for group in groups.values()), default=0)
        said = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
        return "\n".join([*lines, "", said])


def _mean(values: Sequence[float | None], digits: int) -> str:
    """The mean ± standard deviation over the runs that have one."""
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if not len(known):
        return "–"
    if len(known) == 1:
        return f"{float(known):.{digits}f}"
    return f"{known.mean():.{digits}f} ± {known.std():.{digits}f}"


def mixtures(
    chosen: Sequence[Mixture] = (GRID, RING),
    losses: Sequence[str] = ("gan", "wgan-gp"),
    *,
    seeds: Sequence[int] = (0,),
    samples: int = 2500,
    on_run: Callable[[Mixtures], None] | None = None,
    **settings: Any,
) -> Mixtures:
    """Train a generator on each mixture by each loss for each seed, and measure it.

    Args:
        chosen: The mixtures.
        losses: As for `fit`.
        seeds: One for each run.
        samples: Points by which to judge.
        on_run: Called with what there is after each run.
        settings: Those of `fit`.
    """
    found = Mixtures()
    for mixture in chosen:
        # The same for all runs on a mixture, so that they are compared on equal terms.
        data, other = (mixture.sample(samples, torch.Generator().manual_seed(seed)) for seed in FRESH)
        floor = wasserstein(data, other)
        for loss in losses:
            for seed in seeds:
                made = fit(mixture, loss, seed=seed, **settings)
                if made.stopped:
                    return replace(found, stopped=made.stopped)
                found = _with(found, made, data, floor=floor)
                if on_run:
                    on_run(found)
    return found


def _with(found: Mixtures, made: MixtureFit, data: Tensor, *, floor: float) -> Mixtures:
    """The table with one more run."""
    x = made.sample(len(data), seed=made.seed)
    run = {"mixture": made.mixture.name, "loss": made.loss, "seed": made.seed, "steps": made.history.step}
    run |= made.mixture.measure(x) | {"w1": wasserstein(x, data), "w1_floor": floor}
    if BY_NAME[made.loss] is WASSERSTEIN:
        run |= made.criticise(data.to(x.device), x)
    run["seconds"] = round(made.history.seconds, 1)
    return Mixtures((*found.runs, run), (*found.mixtures, made.mixture), (*found.points, x.cpu()))


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Mixtures:
    """Run the command; returns the table."""
    given = vars(_parser().parse_args(argv))
    options = DEFAULTS | (QUICK if given.get("quick") else {}) | given
    folder = RunFolder(options.pop("out", None) or fresh("mixtures"))
    if folder.holds_run:
        raise UsageError(f"--out {folder.path}: holds a run already; choose another folder")
    device = device_or_default(device_of(options["device"]))
    if options["batch"] < 2:
        raise UsageError("--batch 1: one point has no variety, expected 2 or more")
    folder.create(_config(options, device))

    def written(found: Mixtures) -> None:
        folder.write_json("result.json", {"runs": found.runs})
        write_atomically(folder.path / "mixtures.md", lambda file: file.write(f"{found!r}\n".encode()))
        figures.save(found.show(), folder.path / "mixtures.png")

    chosen = [MIXTURES[name] for name in dict.fromkeys(options["mixture"])]
    losses = list(dict.fromkeys(options["loss"]))
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    settings = {name: options[name] for name in ("samples", "steps", "batch", "critic_steps", "penalty", "lr")}
    found = mixtures(chosen, losses, seeds=seeds, on_run=written, device=device, **settings)
    if found.stopped:
        print(f"\nstopped; {folder.path} has the runs that were finished", file=sys.stderr)
        raise SystemExit(128 + found.stopped)
    print(found)
    print(folder.path / "mixtures.png")
    return found


def _config(options: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    networks = {"generator": [LATENTS, *HIDDEN, 2], "critic": [2, *HIDDEN, 1], "betas": BETAS}
    about = {"device": str(device), "threads": torch.get_num_threads()}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"command": "mixtures", "options": options, **networks, **about, "versions": versions}


def _parser() -> Parser:
    parser = Parser("GANs on mixtures of Gaussians in the plane.", __doc__)
    add = parser.add_argument
    add("--mixture", nargs="+", choices=list(MIXTURES), help="grid, of 25 modes, ring, of eight (default: both)")
    add("--loss", nargs="+", choices=list(BY_NAME), help="what the two minimise (default: gan wgan-gp)")
    add("--seeds", type=positive, metavar="N", help="runs of each, of seeds from --seed on (default: 1)")
    add("--critic-steps", type=positive, metavar="N", help="critic updates per step (default: 1; wgan-gp: 5)")
    add("--penalty", type=non_negative_number, help="weight of the gradient penalty (default: 0; wgan-gp: 0.1)")
    add("--lr", type=positive_number, help="Adam's step size at the start (default: 1e-3)")
    add("--samples", type=positive, metavar="N", help="generated points to judge by (default: 2500)")
    add("--steps", type=positive, help="training steps (default: 5000)")
    add("--batch", type=positive, help="data per step (default: 256)")
    add("--seed", type=natural, help="of the networks and all noise")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--out", type=given_path, help="the run folder itself (default: a new one under runs/)")
    add("--quick", action="store_true", help="a few hundred steps, to see that all is well")
    return parser


if __name__ == "__main__":
    found = main()
