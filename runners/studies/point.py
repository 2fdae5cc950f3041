"""One run of a study: a command's options, the fit that they describe, and what that came to."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from ppl_models import UsageError
from runners import gan, svi, text
from runners.data import DataSet, is_image_folder
from runners.loop.command import Options
from runners.loop.folder import RunFolder
from runners.origin import SOURCE, data_of
from runners.run import Run

__all__ = ["ANY", "Made", "Point", "all_options", "built", "of_gan", "of_svi", "of_text", "planned", "reported"]

ANY = "any"
"""In place of the options that name images: those that were given are meant, whatever the options say."""

LEAST_ROWS = 10
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


def planned(runs: Mapping[str, Point], given: Options, *, quick: bool, refuse: bool = True) -> dict[str, Point]:
    """Runs with all of their options; what was typed is for all of them, but for what the study itself varies.

    Args:
        runs: The runs.
        given: What was typed. `steps` are those of the longest run, to which the others keep their proportion.
        quick: Whether it is to be quick.
        refuse: Whether what the study has no use for is refused, or else left out.

    Raises:
        UsageError: There is such a thing.
    """
    if given and not runs and refuse:
        raise UsageError(f"--{min(given).replace('_', '-')}: changes nothing in a study that trains nothing")
    own = {name: all_options(point, {}, quick=quick) for name, point in runs.items()}
    longest, made = max((options["steps"] for options in own.values()), default=0), {}
    for name, point in runs.items():
        typed = dict(given)
        for option in given:
            alike = [own[other].get(option) for other in runs if runs[other].command is point.command]
            varied = option != "steps" and any(value != alike[0] for value in alike)
            if varied and refuse:
                raise UsageError(f"--{option.replace('_', '-')}: is what this study varies; leave it out")
            if not refuse and (varied or option not in point.command.DEFAULTS):
                del typed[option]
        if "steps" in typed:
            typed["steps"] = max(round(own[name]["steps"] * typed["steps"] / longest), 1)
        made[name] = point._replace(options=all_options(point, typed, quick=quick))
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
