"""Variational inference in a deep generative model: free parameters per image, or an encoder.

    python runners/svi.py                                        free parameters on MNIST (S1)
    python runners/svi.py --guide amortized                      an encoder instead: a VAE (S2)
    python runners/svi.py --preset s6                            the fully connected pair, 100 latents (S6)
    python runners/svi.py --precision bf16                       the networks in bfloat16, which is faster
    python runners/svi.py --resume                               go on with the newest run
    ipython -i runners/svi.py -- --guide amortized --quick       then: run.show(), run.swap(...)

In Python: `svi.fit(model, guide, data, ELBO(), steps=10_000)`, then `.swap(another_guide).run(2_000)`.
"""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from guides import ELBO
from guides.objectives import Objective
from guides.sites import Program
from ppl_models import UsageError
from runners.assembly import (
    DEFAULTS,
    INIT,
    PRESETS,
    QUICK,
    check_options,
    data_of,
    device_of,
    optimizer_of,
    pair_of,
    parser,
)
from runners.blueprint import rebuild
from runners.check import check
from runners.data import DataSet
from runners.fit import Fit
from runners.loop.command import Options, command, interrupted, options_of
from runners.loop.folder import RunFolder
from runners.loop.history import WINDOW

__all__ = ["check", "fit", "load", "main"]


def fit(model: Program, guide: Program, data: DataSet, objective: Objective | None = None, **settings: Any) -> Fit:
    """Train a guide, and the model with it, and return the fit; the settings are those of `Fit`.

    With `out=`, the run folder holds the final figures, pictures and a report as well.
    """
    made = Fit(model, guide, data, objective, **settings).run()
    if made.folder and not made.stopped:
        made.report()
    return made


fit.__signature__ = inspect.signature(Fit)


def load(
    folder: Path | str,
    *,
    model: Program | None = None,
    guide: Program | None = None,
    objective: Objective | None = None,
    data: DataSet | None = None,
    device: torch.device | str | None = None,
) -> Fit:
    """The fit in a run folder, as its checkpoint left it; `.run(steps)` trains it further, in memory.

    Args:
        folder: The run folder.
        model: An object to take the checkpoint's state; needed where it is not of the toolkit's own classes.
        guide: The same for the guide.
        objective: The same for the objective.
        data: The data set; by default the one that the run's command loaded, or that has the name of the run's.
        device: Where to put it; by default CUDA where there is one.

    Raises:
        UsageError: It is no run folder, or holds pieces that are not the toolkit's own.
    """
    run = RunFolder(Path(folder))
    config = run.read_json("config.json")
    try:
        if data is None:
            named = {"data": config["data"]["name"], "binarize": config["data"]["binarize"]}
            data = data_of(DEFAULTS | config.get("options", named))
        given = {"model": model, "guide": guide, "objective": objective}
        pieces = {name: rebuild(config[name]) if piece is None else piece for name, piece in given.items()}
        names = ("steps", "batch", "optimizer", "clip", "precision", "train_model", "every", "pictures", "seed")
        settings = {name: rebuild(config[name]) for name in names}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{run.path / 'config.json'}: {error} is missing or not as a run writes it") from error
    made = Fit(pieces["model"], pieces["guide"], data, pieces["objective"], device=device, **settings)
    return made.restore(run)


@command
def main(argv: Sequence[str] | None = None) -> Fit:
    """Run the command; returns the finished fit."""
    given = vars(parser(__doc__).parse_args(argv))
    options, folder, resume = options_of(given, name="svi", defaults=DEFAULTS, presets=PRESETS, quick=QUICK)
    check_options(given, options)
    run = build(options, folder)
    if resume:
        starts = not folder.checkpoint.exists()
        run.resume()
        if starts:
            print(f"{folder.path}: no checkpoint to go on from, so this run starts at step 0", file=sys.stderr)
    else:
        run.begin()
    print(f"{run!r} → {folder.path}", file=sys.stderr)
    run.run()
    if run.stopped:
        interrupted(run.stopped, folder.path, "svi")
    found = run.report(images=options["images"], updates=options["updates"])
    for part in ("train", "train_refined", "test"):
        if part in found:
            error = f" ± {found[part]['elbo_se']:.2f}" if "elbo_se" in found[part] else ""
            numbers = "  ".join(f"{name} {found[part][name]:8.2f}" for name in ("log_likelihood", "kl"))
            print(f"{part:>14}  ELBO {found[part]['elbo']:8.2f}{error}  {numbers}  nats per image")
    print(folder.path / "report.html")
    return run


def build(options: Options, folder: RunFolder) -> Fit:
    """The fit that options describe, not yet run."""
    data = data_of(options)
    model, guide = pair_of(options, data)
    steps, every = options["steps"], 100
    if options["epochs"]:
        epoch = len(data.train) // options["batch"]
        if not epoch:
            raise UsageError(
                f"--batch: found {options['batch']}, expected at most {len(data.train)}, the training images"
            )
        steps, every = options["epochs"] * epoch, epoch if epoch <= WINDOW else 100
    names = ("batch", "clip", "precision", "pictures", "seed")
    written = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    written["init"] = options["init"] or INIT[options["guide"]]
    if options["data"] == "auto":
        written["data"] = data.name  # what it was this time, whatever is on disk when the run is resumed
    elif Path(options["data"]).exists():
        written["data"] = str(Path(options["data"]).resolve())  # from wherever it is resumed
    return Fit(
        model,
        guide,
        data,
        ELBO(options["beta"], particles=options["particles"]),
        steps=steps,
        every=every,
        optimizer=optimizer_of(options),
        device=device_of(options["device"]),
        out=folder.path,
        origin={"command": "svi", "options": written},
        **{name: options[name] for name in names},
    )


if __name__ == "__main__":
    run = main()
