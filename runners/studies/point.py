"""One run of a study: a command's options, the fit that they describe, and what that came to."""

from types import ModuleType
from typing import Any, NamedTuple

from ppl_models import UsageError
from runners import gan, svi, text
from runners.data import DataSet, is_image_folder
from runners.loop.command import Options
from runners.loop.folder import RunFolder
from runners.origin import SOURCE, data_of
from runners.run import Run

__all__ = ["ANY", "Made", "Point", "all_options", "built", "of_gan", "of_svi", "of_text", "reported"]

ANY = "any"
"""In place of the options that name images: those that were given are meant, whatever the options say."""

LEAST_ROWS = 5
"""Rows of the history of each run."""

REPORTED = ("images", "updates", "evidence")
"""Options of svi.py that say what its report measures."""


class Point(NamedTuple):
    """Options of a command, in place of its defaults, and, where the data are a folder of images, in place of those."""

    command: ModuleType
    options: Options
    photographs: Options = {}


class Made(NamedTuple):
    """A finished run, and its final figures, as in result.json."""

    fit: Any
    result: dict[str, Any]


def of_svi(**options: Any) -> Point:
    """A run of svi.py."""
    return Point(svi, options)


def of_gan(**options: Any) -> Point:
    """A run of gan.py."""
    return Point(gan, options)


def of_text(**options: Any) -> Point:
    """A run of text.py."""
    return Point(text, options)


def all_options(point: Point, given: Options, *, quick: bool) -> Options:
    """A point's options: the command's, under those of its preset, of `--quick`, the point's own and what was typed.

    Raises:
        UsageError: Something was typed that the command has no use for.
    """
    command, own = point.command, point.options
    if is_image_folder(given.get("data", own.get("data"))):
        own = own | point.photographs
    unknown = (own.keys() | given.keys()) - command.DEFAULTS.keys()
    if unknown:
        name = command.__name__.rpartition(".")[2]
        raise UsageError(f"--{min(unknown).replace('_', '-')}: changes nothing in runs of {name}.py")
    preset = command.PRESETS[own.get("preset", next(iter(command.PRESETS)))]
    changes = (command.QUICK if quick else {}) | own | given
    made = dict(command.DEFAULTS) | preset | changes | {"quick": quick}
    if "steps" in changes and "epochs" not in changes:
        made["epochs"] = None
    if quick and "data" in made and "data" not in given and "data" not in own:
        made["data"] = "digits"
    return made


def built(point: Point, folder: RunFolder, *, loaded: dict[Any, DataSet]) -> Run:
    """The run of a point with all its options, not yet run; a short one has rows enough for a curve.

    Args:
        point: The point.
        folder: The run's.
        loaded: Images that were loaded already by the options that name them, or those of all runs under `ANY`.
    """
    command, options = point.command, point.options
    if command is text:
        made = text.build(options, folder)
    else:
        source = ANY if ANY in loaded else tuple(str(options[name]) for name in SOURCE)
        if source not in loaded:
            loaded[source] = data_of(options)
        made = command.build(options, folder, data=loaded[source])
    made.settings["every"] = min(made.settings["every"], max(made.settings["steps"] // LEAST_ROWS, 1))
    return made


def reported(run: Run, point: Point) -> dict[str, Any]:
    """Write a finished run's report; returns its final figures."""
    return run.report(**{name: point.options[name] for name in REPORTED if name in point.options})
