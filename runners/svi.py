"""Variational inference in a deep generative model: any model, any guide, any objective.

    python runners/svi.py                                        free parameters on MNIST (S1)
    python runners/svi.py --guide amortized                      an encoder instead: a VAE (S2)
    python runners/svi.py --preset s4                            least KL at a log-likelihood of -90 (S4)
    python runners/svi.py --preset s7                            class-conditional, 50 epochs (S7)
    python runners/svi.py --preset s8 --data FOLDER              colour photographs, learned variance (S8)
    python runners/svi.py --preset iwae --particles 50           the importance-weighted bound
    python runners/svi.py --model my.py:MyVAE --guide amortized  a model of yours
    python runners/svi.py --resume                               go on with the newest run
    torchrun --nproc-per-node 2 runners/svi.py …                 by several processes, a GPU each or all on the CPU
    ipython -i runners/svi.py -- --guide amortized --quick       then: run.show(), run.swap(...)

In Python: `svi.fit(model, guide, data, ELBO(), steps=10_000)`, then `.swap(another_guide).run(2_000)`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guides.objectives import Objective
from guides.sites import Program
from ppl_models import UsageError
from runners import summary
from runners.assembly import init_of, objective_of, optimizer_of, pair_of
from runners.blueprint import rebuild
from runners.check import check
from runners.data import DataSet
from runners.devices import device_of
from runners.fit import Fit
from runners.loop import processes
from runners.loop.command import Options, command, options_of
from runners.loop.folder import RunFolder
from runners.options import check_options, parser
from runners.origin import config_in, data_again, data_of, length_of, origin_of, readable
from runners.own import is_own, own
from runners.presets import DEFAULTS, PRESETS, QUICK

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
    model: Program | str | None = None,
    guide: Program | str | None = None,
    objective: Objective | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    data: DataSet | None = None,
    data_root: Path | None = None,
    device: torch.device | str | None = None,
) -> Fit:
    """The fit in a run folder, as its checkpoint left it; `.run(steps)` trains it further, in memory.

    Args:
        folder: The run folder.
        model: An object to take the checkpoint's state, needed where it is not of the toolkit's own classes, or its
            name in a file, `"my.py:MyVAE"`, which is without effect where it is. A file is imported only if it is
            named here, never because a run folder says so.
        guide: The same for the guide.
        objective: The same for the objective.
        optimizer: What made the optimiser; needed where it is none of those that config.json can name.
        data: The data set; by default the one that the run's command loaded, or that has the name of the run's.
        data_root: Where that is now, if not where the run had it.
        device: Where to put it; by default CUDA where there is one.

    Raises:
        UsageError: It is no run folder, or holds pieces that are not the toolkit's own.
    """
    run, origin = RunFolder(Path(folder)), None
    config = config_in(run, command="svi")
    with readable(run):
        if data is None:
            data, origin = data_again(config, data_root=data_root)
        pieces = {"objective": rebuild(config["objective"]) if objective is None else objective}
        pieces["model"] = _piece(config, "model", model, data)
        pieces["guide"] = _piece(config, "guide", guide, data, model=pieces["model"])
        names = ("steps", "batch", "clip", "precision", "train_model", "every", "pictures", "seed")
        settings = {name: rebuild(config[name]) for name in names}
        settings["optimizer"] = rebuild(config["optimizer"]) if optimizer is None else optimizer
        made = Fit(**pieces, data=data, device=device, origin=origin, **settings)
    return made.restore(run)


def _piece(config: dict[str, Any], name: str, given: Any, data: DataSet, *, model: Any = None) -> Any:
    """A run's model or guide: as it was given, from the file that was named, or the toolkit's own made again."""
    if given is None or (isinstance(given, str) and "made by" in config[name]):
        return rebuild(config[name])
    if not isinstance(given, str):
        return given
    latents = getattr(model, "latents", config.get("options", DEFAULTS)["latents"])
    return own(given, shape=data.shape, latents=latents, data=data.train)


@command(shared=True)
def main(argv: Sequence[str] | None = None) -> Fit:
    """Run the command; returns the finished fit."""
    given = vars(parser(__doc__).parse_args(argv))
    options, folder, resume = processes.from_first(partial(start, given))
    with readable(folder, read=resume and folder.holds_run):
        check_options(given, options)
        run = build(options, folder)
    run.carry_out(resume=resume, command="svi")
    found = run.report(**{name: options[name] for name in ("images", "updates", "evidence")})
    print(*summary.lines(found), sep="\n")
    print(folder.path / "report.html")
    return run


def start(
    given: Options,
    *,
    name: str = "svi",
    defaults: Mapping[str, Any] = DEFAULTS,
    presets: Mapping[str, Options] = PRESETS,
) -> tuple[Options, RunFolder, bool]:
    """All options of a run, its folder, and whether it is to go on from there, as `options_of` says.

    Raises:
        UsageError: As for `options_of`, or a run with files of the user's own is resumed without naming them.
    """
    for option in ("model", "guide"):
        if is_own(given.get(option, "")):
            file, _, what = given[option].rpartition(":")
            given[option] = f"{Path(file).resolve()}:{what}"  # from wherever it is resumed
    options, folder, resume = options_of(given, name=name, defaults=defaults, presets=presets, quick=QUICK)
    for option in ("model", "guide"):
        if is_own(options[option]) and option not in given:
            # A run folder that came from somewhere else must not decide which code runs here.
            raise UsageError(f"--{option}: {folder.path} was started with {options[option]}; name it again to resume")
    return options, folder, resume


def build(options: Options, folder: RunFolder, *, data: DataSet | None = None) -> Fit:
    """The fit that options describe, not yet run; `data` is what `data_of(options)` gave, where it is at hand."""
    data = data_of(options) if data is None else data
    model, guide = pair_of(options, data)
    steps, every = length_of(options, data)
    names = ("batch", "clip", "precision", "pictures", "seed")
    return Fit(
        model,
        guide,
        data,
        objective_of(options),
        steps=steps,
        every=every,
        optimizer=optimizer_of(options),
        graph=options["graph"],
        tensorboard=options["tensorboard"],
        device=device_of(options["device"]),
        out=folder.path,
        origin=origin_of(options | {"init": init_of(options)}, data, command="svi"),
        **{name: options[name] for name in names},
    )


if __name__ == "__main__":
    run = main()
