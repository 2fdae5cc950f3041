"""What all commands share: options, presets, resuming, and bad input in one line with exit code 2."""

import argparse
import functools
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ppl_models import UsageError
from runners.loop.folder import RunFolder

__all__ = [
    "Options",
    "Parser",
    "add_run_options",
    "command",
    "interrupted",
    "non_negative_number",
    "options_of",
    "positive",
    "positive_number",
]

Options = dict[str, Any]

NOT_SETTINGS = ("out", "resume", "data_root", "device")
"""Options that may change when a run is resumed: they say where it is, not what it is."""


class Parser(argparse.ArgumentParser):
    """Bad options are a `UsageError`; without defaults, what was given can be told from what was not."""

    def __init__(self, description: str, page: str | None, *, default: object = argparse.SUPPRESS) -> None:
        """Describe a command by one line and by the examples that its module's docstring opens with."""
        super().__init__(
            description=description,
            epilog=(page or "").split("\n\n")[1],
            argument_default=default,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def add_run_options(parser: Parser) -> None:
    """Give a command that trains the options that all of them share."""
    add = parser.add_argument
    add("--data", help="auto, mnist, fashion, fixed-binarized, digits, a folder of images or a .npz")
    add("--data-root", type=Path, help="folder with data sets (default: $PPL_DATA, else data/)")
    add("--binarize", choices=["none", "threshold", "stochastic", "static"])
    add("--steps", type=positive)
    add("--batch", type=positive)
    add("--seed", type=int)
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--precision", choices=["float32", "bf16"], help="of the networks; densities are float32")
    add("--out", type=Path, help="the run folder itself (default: a new one under runs/)")
    add("--resume", action="store_true", help="go on with the run in --out, or with the newest one")
    add("--quick", action="store_true", help="a few hundred steps, to see that all is well")


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected a whole number from 1 on")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0, for argparse."""
    number = non_negative_number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("found 0, expected a number above 0")
    return number


def non_negative_number(text: str) -> float:
    """A finite number from 0 on, for argparse."""
    number = float(text)
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected a finite number from 0 on")
    return number


def options_of(
    given: Options, *, name: str, defaults: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]]
) -> tuple[Options, RunFolder, bool]:
    """All options of a run, its folder, and whether it goes on from there.

    Args:
        given: What was typed.
        name: The command's name, with which its default run folders begin.
        defaults: The options of a run for which nothing was typed.
        presets: What `--preset` puts in their place; what was typed wins.

    Raises:
        UsageError: The folder holds a run and `--resume` was not given, or the run was started with other options.
    """
    resume = given.pop("resume", False)
    out = given.get("out") or (resume and _newest(name)) or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(out)
    options = dict(defaults) | presets[given.get("preset", next(iter(presets)))] | given
    if resume and folder.holds_run:
        saved = folder.read_json("config.json")["options"]
        for option, value in given.items():
            if option not in NOT_SETTINGS and saved.get(option) != _plain(value):
                raise UsageError(
                    f"--{option.replace('_', '-')}: {folder.path} was started with {saved.get(option)!r}, found "
                    f"{value!r}; leave it out, or start another run"
                )
        options = dict(defaults) | saved | {option: given[option] for option in NOT_SETTINGS if option in given}
    elif folder.holds_run:
        raise UsageError(f"--out {out}: holds a run already; --resume goes on with it, or choose another folder")
    going_on = resume and folder.checkpoint.exists()
    if resume and not going_on:
        print(f"{out}: no checkpoint to go on from, so this run starts at step 0", file=sys.stderr)
    return options, folder, going_on


def command(main: Callable[..., Any]) -> Callable[..., Any]:
    """Let a `main(argv)` end in one line and exit code 2 where the input was bad; defects keep their traceback."""

    @functools.wraps(main)
    def checked(argv: Sequence[str] | None = None) -> Any:
        try:
            return main(argv)
        except UsageError as error:
            name = main.__module__.rpartition(".")[2]
            name = Path(sys.argv[0]).stem if name == "__main__" else name
            print(f"{name}: {error}", file=sys.stderr)
            raise SystemExit(2) from error

    return checked


def interrupted(stopped: int, out: Path, name: str) -> NoReturn:
    """Say how to resume a run that a signal ended, and exit as shells expect (130 for Ctrl-C)."""
    print(f"\nstopped; to go on: python runners/{name}.py --resume --out {out}", file=sys.stderr)
    raise SystemExit(128 + (stopped or signal.SIGINT))


def _newest(name: str) -> Path | None:
    folders = [path for path in Path("runs").glob(f"{name}-*") if (path / "config.json").exists()]
    return max(folders, key=lambda path: path.name, default=None)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
