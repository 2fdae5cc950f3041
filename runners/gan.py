"""Generative adversarial networks, on any data that svi.py trains on.

    python runners/gan.py                                    a GAN on MNIST (S12)
    python runners/gan.py --loss saturating                  its generator by log(1 - D) instead of -log D
    python runners/gan.py --loss wgan-gp                     a Wasserstein GAN with gradient penalty (S13)
    python runners/gan.py --critic-steps 5                   five critic updates for one of the generator
    python runners/gan.py --path-energy 1                    a generator with paths of low energy (S17)
    python runners/gan.py --preset s14 --data FOLDER         a DCGAN on colour photographs (S14)
    torchrun --nproc-per-node 2 runners/gan.py …             by several processes, a GPU each or all on the CPU
    python runners/gan.py --resume                           go on with the newest run
    python runners/assess.py RUN                             how good its samples are, measured

In Python: `gan.fit(Generator(ConvDecoder()), Critic(ConvEncoder()), mnist, "gan", steps=10_000)`.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runners import gan_summary
from runners.blueprint import rebuild
from runners.data import DataSet
from runners.devices import device_of
from runners.gan_fit import GanFit
from runners.gan_options import DEFAULTS, PRESETS, QUICK, check_options, networks_of, parser, settings_of
from runners.loop import processes
from runners.loop.command import Options, command, options_of
from runners.loop.folder import RunFolder
from runners.metrics import classifiers
from runners.metrics.classifiers import Trained
from runners.origin import config_in, data_again, data_of, length_of, origin_of, readable

__all__ = ["fit", "load", "main"]

NOT_IN_CONFIG = {"data", "classifier", "graph", "device", "out", "origin", "progress", "tensorboard"}

SELECTING = 1
"""The seed of the classifier that chooses; what reports is another one, of seed 0."""


def fit(generator: nn.Module, critic: nn.Module, data: DataSet, loss: str = "gan", **settings: Any) -> GanFit:
    """Train a generator against a critic and return the fit; the settings are those of `GanFit`.

    With `out=`, the run folder holds the final figures, pictures and a report as well.
    """
    made = GanFit(generator, critic, data, loss, **settings).run()
    if made.folder and not made.stopped:
        made.report()
    return made


fit.__signature__ = inspect.signature(GanFit)


def load(
    folder: Path | str,
    *,
    generator: nn.Module | None = None,
    critic: nn.Module | None = None,
    critic_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    generator_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    classifier: Trained | None = None,
    data: DataSet | None = None,
    data_root: Path | None = None,
    device: torch.device | str | None = None,
) -> GanFit:
    """The fit in a run folder, as its checkpoint left it; `.run(steps)` trains it further, in memory.

    Args:
        folder: The run folder.
        generator: An object to take the checkpoint's state; needed where it is not of the toolkit's own classes.
        critic: The same for the critic.
        critic_optimizer: What made its optimiser; needed where it is none of those that config.json can name.
        generator_optimizer: The same for the generator's.
        classifier: What the best generator goes on to be chosen by; by default the one that the command trains.
        data: The data set; by default the one that the run's command loaded, or that has the name of the run's.
        data_root: Where that is now, if not where the run had it.
        device: Where to put it; by default CUDA where there is one.

    Raises:
        UsageError: It is no run folder of a GAN, or holds pieces that are not the toolkit's own.
    """
    run, origin = RunFolder(Path(folder)), None
    config = config_in(run, command="gan")
    given = {"generator": generator, "critic": critic}
    given |= {"critic_optimizer": critic_optimizer, "generator_optimizer": generator_optimizer}
    with readable(run):
        if data is None:
            data, origin = data_again(config, data_root=data_root)
        names = inspect.signature(GanFit).parameters.keys() - NOT_IN_CONFIG
        settings = {name: rebuild(config[name]) if given.get(name) is None else given[name] for name in names}
        chooses = classifier or partial(_selecting, data, run, device=device)
        made = GanFit(data=data, device=device, origin=origin, classifier=chooses, **settings)
    return made.restore(run)


@command(shared=True)
def main(argv: Sequence[str] | None = None) -> GanFit:
    """Run the command; returns the finished fit."""
    given = vars(parser(__doc__).parse_args(argv))
    options, folder, resume = processes.from_first(
        partial(options_of, given, name="gan", defaults=DEFAULTS, presets=PRESETS, quick=QUICK)
    )
    with readable(folder, read=resume and folder.holds_run):
        check_options(given, options)
        run = build(options, folder)
    run.carry_out(resume=resume, command="gan")
    print(*gan_summary.lines(run.report()), sep="\n")
    print(folder.path / "report.html")
    return run


def build(options: Options, folder: RunFolder, *, data: DataSet | None = None) -> GanFit:
    """The fit that options describe, not yet run; `data` is what `data_of(options)` gave, where it is at hand."""
    data, device = data_of(options) if data is None else data, device_of(options["device"])
    generator, critic = networks_of(options, data)
    settings = settings_of(options)
    # An epoch is all images once: a step takes a batch for each update of the critic.
    steps, every = length_of(options, data, batches=settings["critic_steps"])
    chooses = partial(_selecting, data, folder, device=device)
    origin = origin_of(options, data, command="gan")
    made = settings | {
        "steps": steps,
        "every": every,
        "classifier": chooses,
        "graph": options["graph"],
        "tensorboard": options["tensorboard"],
        "device": device,
    }
    return GanFit(generator, critic, data, **made, out=folder.path, origin=origin)


def _selecting(data: DataSet, folder: RunFolder, *, device: torch.device | str | None) -> Trained:
    return classifiers.classifier(
        data, seed=SELECTING, folder=folder.path.resolve().parent / "classifiers", device=device
    )


if __name__ == "__main__":
    run = main()
