"""Variational inference in a deep generative model: free parameters per image, or an encoder.

    python runners/svi.py                                        free parameters on MNIST (S1)
    python runners/svi.py --guide amortized                      an encoder instead: a VAE (S2)
    python runners/svi.py --preset s6                            the fully connected pair, 100 latents (S6)
    python runners/svi.py --precision bf16                       the networks in bfloat16, about twice as fast
    python runners/svi.py --resume                               go on with the newest run
    ipython -i runners/svi.py -- --guide amortized --quick       then: run.show(), run.swap(...)

In Python: `svi.fit(model, guide, data, ELBO(), steps=10_000)`, then `.swap(another_guide).run(2_000)`.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guides import ELBO
from guides.objectives import Objective
from guides.sites import Program
from ppl_models import UsageError
from runners import figures
from runners.assembly import DEFAULTS, OPTIMIZERS, PRESETS, data_of, device_of, pair_of, parser
from runners.check import check
from runners.data import DataSet
from runners.fit import Fit
from runners.loop.blueprint import rebuild
from runners.loop.command import Options, command, interrupted, options_of
from runners.loop.folder import RunFolder

__all__ = ["check", "fit", "load", "main"]


def fit(model: Program, guide: Program, data: DataSet, objective: Objective | None = None, **settings: Any) -> Fit:
    """Train a guide, and the model with it, and return the fit.

    Args:
        model: A Pyro model of one `Batch`.
        guide: A Pyro guide of one `Batch` with the same latent sites.
        data: The data set.
        objective: What to minimise; the ELBO by default.
        settings: `steps=10_000`, `batch=64`, `optimizer` (a function of parameters; Adam of lr 1e-3, betas 0.9 and
            0.9, by default), `clip` (a global gradient norm), `precision` ("float32" or "bf16"), `train_model=True`,
            `every=100` (steps between rows of the history), `pictures=0` (how many during training), `seed=0`,
            `device`, `out` (a run folder to write), `progress=True`.

    Raises:
        UsageError: The pieces do not fit together.
    """
    return Fit(model, guide, data, objective, **settings).run()


def load(folder: Path | str, *, data: DataSet | None = None, device: torch.device | str | None = None) -> Fit:
    """The fit in a run folder, as its checkpoint left it; `.run(steps)` trains it further, in memory.

    Args:
        folder: The run folder.
        data: The data set; by default the one that the run's command loaded.
        device: Where to put it; by default CUDA where there is one.

    Raises:
        UsageError: It is no run folder, or holds pieces that are not the toolkit's own.
    """
    run = RunFolder(Path(folder))
    config = run.read_json("config.json")
    if data is None:
        if "options" not in config:
            raise UsageError(f"{folder}: was not made by a command, so say which data: load(folder, data=...)")
        data = data_of(config["options"])
    settings = {name: rebuild(config[name]) for name in ("steps", "batch", "optimizer", "clip", "precision")}
    settings |= {name: config[name] for name in ("train_model", "every", "pictures", "seed", "note")}
    made = Fit(
        *(rebuild(config[part]) for part in ("model", "guide")),
        data,
        rebuild(config["objective"]),
        device=device,
        **settings,
    )
    return made.restore(run)


@command
def main(argv: Sequence[str] | None = None) -> Fit:
    """Run the command; returns the finished fit."""
    given = vars(parser(__doc__).parse_args(argv))
    if given.get("quick"):
        given = {"steps": 300, "images": 200, "updates": 50} | given
    if "epochs" in given and "steps" in given:
        raise UsageError("--epochs and --steps: give one of them")
    options, folder, going_on = options_of(given, name="svi", defaults=DEFAULTS, presets=PRESETS)
    if "steps" in given:
        options["epochs"] = None
    run = build(options, folder)
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    config = run.config() | {"command": "svi", "options": options}
    if going_on:
        run.resume()
    elif not folder.holds_run:
        folder.create(config)
    print(f"{run!r} → {folder.path}", file=sys.stderr)
    run.run()
    if run.stopped:
        interrupted(run.stopped, folder.path, "svi")
    finish(run, options)
    return run


def build(options: Options, folder: RunFolder) -> Fit:
    """The fit that options describe, not yet run."""
    data = data_of(options)
    model, guide = pair_of(options, data)
    optimizer = partial(OPTIMIZERS[options["optimizer"]], lr=options["lr"])
    every = 100
    if options["epochs"]:
        epoch = len(data.train) // options["batch"]
        options["steps"] = options["epochs"] * epoch
        every = epoch if epoch <= 1000 else 100
    grey = options["binarize"] == "none" and options["likelihood"] == "bernoulli" and data.name != "fixed-binarized"
    note = {"likelihood": "Bernoulli on grey values: not comparable with binary images"} if grey else {}
    return Fit(
        model,
        guide,
        data,
        ELBO(options["beta"], particles=options["particles"]),
        steps=options["steps"],
        batch=options["batch"],
        optimizer=optimizer,
        clip=options["clip"],
        precision=options["precision"],
        every=every,
        pictures=options["pictures"],
        seed=options["seed"],
        device=device_of(options["device"]),
        out=folder.path,
        note=note,
    )


def finish(run: Fit, options: Options) -> None:
    """Write result.json, the pictures and report.html of a finished run, and print its figures."""
    result = run.result(images=options["images"], updates=options["updates"])
    run.folder.write_json("result.json", result)
    for name, figure in run.figures().items():
        figures.save(figure, run.folder.path / f"{name}.png")
    figures.report(run.folder.path)
    for part in ("train", "train_refined", "test"):
        if part in result:
            error = f" ± {result[part]['elbo_se']:.2f}" if "elbo_se" in result[part] else ""
            numbers = "  ".join(f"{name} {result[part][name]:8.2f}" for name in ("log_likelihood", "kl"))
            print(f"{part:>14}  ELBO {result[part]['elbo']:8.2f}{error}  {numbers}  nats per image")
    print(f"{run.folder.path / 'report.html'}")


if __name__ == "__main__":
    run = main()
