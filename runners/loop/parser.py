"""What options are made of: a parser whose errors are ours, those that commands share, numbers and paths as typed."""

import argparse
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from ppl_models import UsageError

__all__ = [
    "Parser",
    "add_graph_option",
    "add_image_options",
    "add_run_options",
    "fraction",
    "given_path",
    "natural",
    "non_negative_number",
    "number",
    "positive",
    "positive_number",
]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Options in one column, what they do in the next."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(110, shutil.get_terminal_size((100, 24)).columns))


class Parser(argparse.ArgumentParser):
    """Bad options are a `UsageError`; without defaults, what was given can be told from what was not."""

    def __init__(self, description: str, page: str | None, *, default: object = argparse.SUPPRESS) -> None:
        """Describe a command by one line and by the examples that its module's docstring opens with."""
        super().__init__(
            description=description,
            epilog=(page or "").split("\n\n")[1],
            argument_default=default,
            usage="%(prog)s [options]",
            formatter_class=_Help,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def showing(self, defaults: Mapping[str, Any]) -> Self:
        """This parser, its help naming the defaults that it does not name yet."""
        for action in self._actions:
            default = defaults.get(action.dest)
            if action.dest != "preset" and default and "(default" not in (action.help or ""):
                shown = " ".join(map(str, default)) if isinstance(default, list) else default
                action.help = f"{action.help or ''} (default: {shown})".strip()
        return self


def add_image_options(group: Any) -> None:
    """Give a command that trains on images the options that say on which."""
    add = group.add_argument
    add("--data", help="auto, mnist, fashion, fixed-binarized, digits, a folder of images or a .npz")
    add("--binarize", choices=["none", "threshold", "stochastic", "static"], help="how grey pixels become binary")


def add_graph_option(group: Any) -> None:
    """Give a command whose steps can be recorded as CUDA graphs the option that says whether."""
    switch = argparse.BooleanOptionalAction
    group.add_argument("--graph", action=switch, help="steps as one CUDA graph (default: where that is possible)")


def add_run_options(group: Any) -> None:
    """Give a command that trains the options that all of them share; `group` is its parser or a group of that."""
    add = group.add_argument
    add("--data-root", type=given_path, help="folder with data sets (default: $PPL_DATA, else data/)")
    add("--steps", type=positive, help="training steps")
    add("--batch", type=positive, help="data per step")
    add("--seed", type=natural, help="of the networks, the order of the data and all noise")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--precision", choices=["float32", "bf16"], help="of the networks; densities are float32")
    add("--out", type=given_path, help="the run folder itself (default: a new one under runs/)")
    switch = argparse.BooleanOptionalAction
    add("--tensorboard", action=switch, help="rows and pictures as TensorBoard's events too, in the run folder")
    add("--resume", action="store_true", help="go on with the run in --out, or with the newest one")
    add("--quick", action="store_true", help="a few hundred steps, to see that all is well")


def positive(text: str) -> int:
    """A whole number from 1 up to 2^63 - 1, for argparse."""
    return _whole(text, least=1)


def natural(text: str) -> int:
    """A whole number from 0 up to 2^63 - 1, for argparse."""
    return _whole(text, least=0)


def positive_number(text: str) -> float:
    """A finite number above 0, for argparse."""
    number = non_negative_number(text)
    if number < 1e-30:  # float32 would make it 0
        raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
    return number


def given_path(text: str) -> Path:
    """A path that is not empty, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected a path")
    return Path(text)


def number(text: str) -> float:
    """A finite number, for argparse."""
    return _finite(text, "a finite number")


def non_negative_number(text: str) -> float:
    """A finite number from 0 on, for argparse."""
    return _finite(text, "a finite number from 0 on", least=0.0)


def fraction(text: str) -> float:
    """A number from 0 to below 1, for argparse."""
    number = non_negative_number(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 0 to below 1")
    return number


def _whole(text: str, *, least: int) -> int:
    try:
        if least <= (number := int(text)) < 2**63:
            return number
    except ValueError:  # what argparse makes of that does not say what was expected
        pass
    raise argparse.ArgumentTypeError(f"found {text[:50]}, expected a whole number from {least} to 2^63 - 1")


def _finite(text: str, expected: str, *, least: float = -math.inf) -> float:
    try:
        if least <= (number := float(text)) and math.isfinite(number):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"found {text[:50]}, expected {expected}")
