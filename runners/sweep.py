"""A sweep: runs of svi.py that differ in KL weight, target or family, each in a run folder of its own."""

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ppl_models import UsageError
from runners import series, svi
from runners.blueprint import config_of
from runners.fit import Fit
from runners.loop.command import Options
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser
from runners.options import check_options, parser
from runners.origin import data_of, readable
from runners.own import is_own
from runners.presets import DEFAULTS as SVI_DEFAULTS
from runners.presets import PRESETS as SVI_PRESETS

__all__ = ["label", "setting", "start", "sweep_parser", "train"]

BETAS = (0.1, 0.3, 1.0, 3.0, 10.0)
SWEPT = ("beta", "target", "family")
"""Options of svi.py that have a list of values here."""


def _swept(preset: Options) -> Options:
    """A preset of svi.py without the objective, its family the only one."""
    kept = {name: value for name, value in preset.items() if name not in ("objective", "beta", "target")}
    return kept | ({"family": [preset["family"]]} if "family" in preset else {})


DEFAULTS: Options = SVI_DEFAULTS | {"preset": "s9", "beta": None, "target": None, "family": None}
PRESETS = {name: _swept(SVI_PRESETS[name]) for name in ("s9", *(name for name in SVI_PRESETS if name != "s9"))}


def sweep_parser(page: str | None, *, description: str) -> Parser:
    """The options of svi.py, some with several values; `page` is the command's docstring."""
    made = parser(page, description=description, defaults=DEFAULTS | PRESETS["s9"])
    several = {
        "beta": f"weights of the KL term, a point each (default: {' '.join(map(_short, BETAS))})",
        "target": "instead of --beta: least log-likelihoods per image in nats, a point each, such as -110 -90",
        "family": "of the posteriors, a curve each (default: diagonal)",
    }
    for action in made._actions:
        if action.dest in several:
            action.nargs, action.help = "+", several[action.dest]
        if action.dest in ("objective", "schedule", "gradient"):
            action.help = argparse.SUPPRESS  # --beta or --target say which, and the others would change nothing
        if action.dest == "preset":
            action.help = "settings of svi.py by name, all but the objective (default: s9)"
        if action.dest == "batch":
            action.help = "data per step (default: 64; with echo among the families 100, for all of them)"
    return made


def start(given: Options, *, name: str) -> tuple[Options, RunFolder, dict[str, Options]]:
    """All options of a sweep, its folder, and the options of svi.py for each point by the name of the point's folder.

    Args:
        given: What was typed.
        name: The command's name.

    Raises:
        UsageError: Options do not go together, or not with what the folder holds.
    """
    asked = _asked(given)
    options, folder, resume = svi.start(given, name=name, defaults=DEFAULTS, presets=PRESETS)
    if resume and not folder.holds_run:
        print(f"{folder.path}: no sweep to go on from, so this one starts", file=sys.stderr)
    with readable(folder, read=folder.holds_run):
        return options, folder, _extended(given, options, asked, folder=folder)


def _extended(given: Options, options: Options, asked: Options, *, folder: RunFolder) -> dict[str, Options]:
    """The points of a sweep's options, to which what was asked for is added."""
    _extend(options, asked, folder=folder if folder.holds_run else None)
    if "echo" in options["family"] and "batch" not in given and not folder.holds_run:
        # For all curves, so that they can be compared: Echo makes its noise of the others in a batch.
        options["batch"] = max(options["batch"], SVI_PRESETS["s10"]["batch"])
    points = _points(options)
    _check(given | asked, points.values())
    return points


def _asked(given: Options) -> Options:
    """What was typed of the sweep itself, taken out of `given`.

    Raises:
        UsageError: It contradicts itself, or sets what a sweep sets.
    """
    if "objective" in given:
        raise UsageError("--objective: set for each point of a sweep; expected --beta or --target")
    if "beta" in given and "target" in given:
        raise UsageError("--beta and --target: give one of them")
    return {name: given.pop(name) for name in SWEPT if name in given}


def _extend(options: Options, asked: Options, *, folder: RunFolder | None) -> None:
    """Add what was asked for to what a sweep's folder already has, or to nothing.

    Raises:
        UsageError: Targets are to be added to a sweep of KL weights, or weights to targets.
    """
    for one, other in (("beta", "target"), ("target", "beta")):
        if folder and one in asked and options[other]:
            raise UsageError(f"--{one}: {folder.path} was started with --{other}, found --{one}; start another sweep")
    for name, values in asked.items():
        options[name] = list(dict.fromkeys([*(options[name] or []), *values]))
    if not options["target"]:
        options["beta"] = options["beta"] or list(BETAS)
    options["family"] = options["family"] or [SVI_DEFAULTS["family"]]


def _points(options: Options) -> dict[str, Options]:
    """The options of svi.py for each point, by its folder's name; families in turn, so that all curves grow."""
    shared = options | {name: SVI_DEFAULTS[name] for name in SWEPT}
    settings = [{"objective": "beta", "beta": beta} for beta in options["beta"] or []]
    settings += [{"objective": "constrained", "target": target} for target in options["target"] or []]
    every = [shared | setting | {"family": family} for setting in settings for family in options["family"]]
    named = {}
    for point in every:
        ((varied, value),) = setting(point).items()
        named[f"{label(point)}-{varied}-{_short(value)}"] = point
    return named


def label(point: Options) -> str:
    """The curve's name: the family, or a guide of the user's own."""
    return point["guide"].rpartition(":")[2] if is_own(point["guide"]) else point["family"]


def setting(point: Options) -> dict[str, float]:
    """The weight or the target of a point, by its name."""
    varied = "beta" if point["objective"] == "beta" else "target"
    return {varied: point[varied]}


def _short(value: float) -> str:
    """A number as short as it can be written without becoming another one."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _check(given: Options, points: Iterable[Options]) -> None:
    """Refuse options that were typed and would change nothing at any point, or that do not go together.

    Raises:
        UsageError: There is one.
    """
    for point in points:
        typed = given | {name: point[name] for name in ("family", "target") if name in given}
        typed.pop("beta", None)
        for name, family in (("scale", "diagonal"), ("rank", "low-rank")):
            if point["family"] != family and family in given.get("family", ()):
                typed.pop(name, None)  # it is another curve's
        check_options(typed, point)


def train(
    options: Options,
    folder: RunFolder,
    points: dict[str, Options],
    *,
    name: str,
    on_result: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run points of a sweep, those that were cut from where they were, and hand over the result of each.

    Args:
        options: Of the sweep.
        folder: The sweep's.
        points: Those to run, by the names of their folders.
        name: The command's name.
        on_result: Called with a point's name and final figures, as in result.json, before the next one runs.

    Raises:
        UsageError: A point does not fit together; or, after all others have been run, one left the finite numbers.
    """
    data = data_of(options)

    def built(point_name: str) -> Fit:
        return svi.build(points[point_name], RunFolder(folder.path / point_name), data=data)

    def reported(point_name: str, fit: Fit) -> None:
        on_result(point_name, fit.report(**{about: options[about] for about in ("images", "updates", "evidence")}))

    for point_name in points:  # before anything is written
        with readable(folder, read=folder.holds_run):
            built(point_name).rehearse()
    _begin(folder, options, built(next(iter(points))), name=name)
    try:
        series.train(points, built, folder=folder, command=name, on_end=reported)
    finally:
        folder.unlock()


def _begin(folder: RunFolder, options: Options, fit: Fit, *, name: str) -> None:
    """Write the sweep's config.json, with what the options came to for one of its points.

    Raises:
        UsageError: The points that are there were trained on other data.
    """
    config, sweep = config_of(fit), {swept: options[swept] for swept in SWEPT}
    content = {
        "command": name,
        "options": fit.origin["options"] | sweep,
        **{about: config[about] for about in ("data", "device", "threads", "versions")},
    }
    if folder.holds_run:
        was = folder.read_json("config.json").get("data")
        if was != config["data"]:
            raise UsageError(f"{folder.path}: was trained on {was}, found {config['data']}")
        folder.lock()
        folder.write_json("config.json", content)
    else:
        folder.create(content)
