"""Looks at finished runs: what they find, and what the commands that take them have in common."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from ppl_models import UsageError
from runners import figures
from runners.devices import device_of
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.generators import WHICH, generator_of
from runners.loading import load_run, newest_or_quick
from runners.loop.checkpoint import digest
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, given_path, natural

__all__ = ["Look", "at_least", "look_at", "opened", "writable"]


def at_least(**settings: tuple[int | None, int]) -> None:
    """Refuse settings, each given with the least that it may be, that are less; None is no setting.

    Raises:
        UsageError: There is one.
    """
    for name, (value, least) in settings.items():
        if value is not None and value < least:
            raise UsageError(f"{name}: found {value}, expected {least} or more")


def writable(fit: Fit | GanFit, out: Path | str | None) -> RunFolder | None:
    """The run folder that a look goes into: `out`, or the fit's, if it has one.

    Raises:
        UsageError: It holds no run or cannot be written to, which is better known before minutes of work.
    """
    folder = fit.folder if out is None else RunFolder(Path(out))
    if folder and not (folder.holds_run and os.access(folder.path, os.W_OK)):
        raise UsageError(f"{folder.path}: not a run folder that can be written to")
    return folder


def opened(
    parser: Parser,
    argv: Sequence[str] | None,
    *,
    quick: dict[str, Any],
    generator: bool = False,
    adversarial: bool = False,
) -> tuple[list[tuple[Path, Fit | GanFit]], dict[str, Any]]:
    """The runs that were asked for, all loaded before any work, and the settings of the look.

    Args:
        parser: Of the command, to which what all looks share is added.
        argv: What was typed.
        quick: What `--quick` sets; what was typed wins.
        generator: Whether the look is at a generator, of which there may be several in a run.
        adversarial: Whether it is a GAN that is trained where there is no run at all.
    """
    parser.usage = "%(prog)s [RUN …] [options]"  # an option with several values would swallow a run behind it
    add = parser.add_argument
    add(
        "run",
        type=given_path,
        nargs="*",
        metavar="RUN",
        help="run folders of svi.py or gan.py, before the options (default: the newest under runs/)",
    )
    if generator:
        add("--label", type=natural, help="the class that a conditional model is asked for")
        add("--which", choices=WHICH, help="of a GAN's: by default the average, where one is kept, else the last")
    add("--seed", type=natural, help="of all noise (default: 0)")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--data-root", type=given_path, help="folder with data sets (default: the run's, $PPL_DATA, data/)")
    add("--model", help="FILE.py:NAME, where the run's model is your own")
    add("--guide", help="the same for its guide")
    add("--quick", action="store_true", help="few images, pairs and steps, to see that all is well")
    options = vars(parser.parse_args(argv))
    settings = quick if options.pop("quick", False) else {}
    folders = options.pop("run", None) or [newest_or_quick(adversarial=adversarial)]
    place = {name: options.pop(name) for name in ("model", "guide", "data_root") if name in options}
    place["device"] = device_of(options.pop("device", None))
    return [(folder, load_run(folder, **place)) for folder in folders], settings | options


def look_at(
    look: Callable[..., "Look"], runs: Sequence[tuple[Path, Fit | GanFit]], settings: dict[str, Any]
) -> list["Look"]:
    """Look at each run, and print what is found, and where all of it is."""
    for folder, fit in runs:
        writable(fit, folder)  # before any of them is changed
        if "label" in settings or "which" in settings:
            generator_of(fit, label=settings.get("label"), which=settings.get("which"))
    every = []
    for folder, fit in runs:
        every.append(look(fit, out=folder, **settings))
        print(f"{fit!r} ← {folder}", file=sys.stderr)
        print(every[-1])
        print(folder / "report.html")
    return every


class Look(dict[str, Any]):
    """Figures as in a JSON file of the run folder, and pictures; shown as the `lines` of a subclass.

    The figures begin with what they are of: `data`, `steps` and `state`, a digest of all weights.

    Args:
        fit: What was looked at.
        found: Figures.

    Attributes:
        pictures: By name.
    """

    file: str
    """The JSON file's name."""

    prefix = ""
    """What the names of the pictures' files begin with."""

    def __init__(self, fit: Fit | GanFit, **found: Any) -> None:
        state = digest(*(piece for piece in fit.pieces.values() if isinstance(piece, nn.Module)))
        super().__init__(data=fit.data.name, steps=fit.history.step, state=state, **found)
        self.pictures: dict[str, Figure] = {}

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return figures.html(repr(self), *self.pictures.values())

    def lines(self) -> list[str]:
        """What the figures say."""
        raise NotImplementedError

    def write(self, folder: RunFolder | None) -> None:
        """Leave figures, pictures and the page with all of them in a run folder, where there is one."""
        if folder is None:
            return
        folder.write_json(self.file, self)
        for name, picture in self.pictures.items():
            figures.save(picture, folder.path / f"{self.prefix}{name}.png")
        figures.report(folder.path)
