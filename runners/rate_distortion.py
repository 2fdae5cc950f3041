"""Rate-distortion curves: the same model at several KL weights, rate against distortion on the test set.

    python runners/rate_distortion.py                                 an encoder at KL weights from 0.1 to 10 (S9)
    python runners/rate_distortion.py --beta 0.3 1 3 --quick          at these weights, 300 steps each
    python runners/rate_distortion.py --family diagonal echo          a curve for each family of posteriors
    python runners/rate_distortion.py --target -110 -100 -90          least KL at these log-likelihoods
    python runners/rate_distortion.py --resume                        go on with the newest sweep
    python runners/rate_distortion.py --resume --beta 30              and add a point to it

The options are those of svi.py, of which `--beta`, `--target` and `--family` take several values here. A sweep's folder
holds a run folder of svi.py for each point, which is there for `svi.load`, compare.py and `svi.py --resume`. Resuming
reads the points that are finished, goes on with the one that was cut, and adds those that are newly asked for.

In Python: `rate_distortion(*(svi.fit(VAE(), Amortized(), mnist, ELBO(beta)) for beta in (0.3, 1.0, 3.0)))`.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ppl_models import UsageError
from runners import figures, svi
from runners.assembly import data_of
from runners.blueprint import config_of
from runners.fit import Fit
from runners.loop.atomic import write_atomically
from runners.loop.command import Options, Parser, command, interrupted
from runners.loop.folder import RunFolder
from runners.options import check_options, parser
from runners.own import is_own
from runners.presets import DEFAULTS as SVI_DEFAULTS
from runners.presets import PRESETS as SVI_PRESETS

__all__ = ["RateDistortion", "main", "rate_distortion"]

BETAS = (0.1, 0.3, 1.0, 3.0, 10.0)
SWEPT = ("beta", "target", "family")
"""Options of svi.py that have a list of values here."""
MEASURED = ("rate", "distortion", "elbo", "multiplier")
"""Figures of a point, some with standard errors."""


def _swept(preset: Options) -> Options:
    """A preset of svi.py without the objective, its family the only one."""
    kept = {name: value for name, value in preset.items() if name not in ("objective", "beta", "target")}
    return kept | ({"family": [preset["family"]]} if "family" in preset else {})


DEFAULTS: Options = SVI_DEFAULTS | {"preset": "s9", "beta": None, "target": None, "family": None}
PRESETS = {name: _swept(SVI_PRESETS[name]) for name in ("s9", *(name for name in SVI_PRESETS if name != "s9"))}


@dataclass(frozen=True)
class RateDistortion:
    """Rate and distortion of several fits, in nats per image; its repr is a Markdown table.

    Attributes:
        points: For each fit `family`, `beta` or `target`, `rate`, `distortion` and `elbo` with standard errors over
            the test images (`_se`, left out where there is one image alone), `images`, `steps`, `data`; what a
            constrained fit's `multiplier` was, and what the fit's result remarks (`prior` with Echo).
    """

    points: list[dict[str, Any]]

    def show(self) -> Figure:
        """The curves, as a picture."""
        steps = {point["steps"] for point in self.points}
        said = f", {steps.pop():,} steps each" if len(steps) == 1 else ""
        return figures.rate_distortion(self.points, title=f"Rate and distortion on {self.points[0]['data']}{said}")

    def __repr__(self) -> str:
        varied = list(dict.fromkeys(name for point in self.points for name in ("beta", "target") if name in point))
        named = ["multiplier"] if any("multiplier" in point for point in self.points) else []
        rows = [["family", *varied, *named, "rate", "distortion", "ELBO"]]
        for point in self.points:
            settings = [f"{point[name]:g}" if name in point else "" for name in varied]
            settings += [f"{point[name]:.3g}" if name in point else "" for name in named]
            figured = [_with_error(point, name) for name in ("rate", "distortion", "elbo")]
            rows.append([point["family"], *settings, *figured])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])])
        padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
        lines = ["| " + " | ".join(row) + " |" for row in padded]
        first = self.points[0]
        images = f", {first['images']:,} test images" if len({point["images"] for point in self.points}) == 1 else ""
        lines = [f"{first['data']}{images}, nats per image", "", *lines]
        remarks = [f"{name}: {text}" for name, text in _remarks(self.points).items()]
        return "\n".join([*lines, *([""] if remarks else []), *remarks])


def rate_distortion(
    *fits: Fit, names: Sequence[str] | None = None, images: int | None = None, updates: int | None = None
) -> RateDistortion:
    r"""The rate :math:`R = E_x KL(q(z \mid x) \| p(z))` and the distortion :math:`D = -E_x E_q \log p(x \mid z)`.

    Where fits minimise :math:`D + \beta R`, the slope of the curve is :math:`dD / dR = -\beta`, and
    :math:`D + R = -ELBO` is least at :math:`\beta = 1` (Alemi et al. 2018, arXiv:1711.00464). Echo's rate is exact and
    stands against the marginal of its codes (Brekelmans et al. 2019, arXiv:1904.07199).

    Args:
        fits: Trained by `ELBO(beta)` or `Constrained(target)`, on the same data.
        names: The curve that each belongs to; by default its guide's family.
        images: How many test images, the first ones; by default all, and 1000 where they are refined.
        updates: Gradient steps where the guide refines.

    Raises:
        UsageError: There are no fits, they are of different data, or trained by other objectives.
    """
    if len({fit.data.test.fingerprint() for fit in fits}) != 1:
        raise UsageError("expected at least one fit, all with the same test images")
    points = []
    for position, fit in enumerate(fits):
        beta, target = getattr(fit.objective, "kl_weight", None), getattr(fit.objective, "target", None)
        if not isinstance(beta, int | float) and target is None:
            raise UsageError(f"expected fits by ELBO(beta) or Constrained(target), found {fit.objective!r}")
        name = names[position] if names else type(getattr(fit.guide, "family", fit.guide)).__name__
        setting = {"target": target} if target is not None else {"beta": beta}
        points.append(_point(fit.result(images=images, updates=updates), family=name, **setting))
    return _ordered(points)


@command
def main(argv: Sequence[str] | None = None) -> RateDistortion:
    """Run the command; returns the curves."""
    given = vars(_parser().parse_args(argv))
    asked = _asked(given)
    options, folder, _ = svi.start(given, name="rate_distortion", defaults=DEFAULTS, presets=PRESETS)
    goes_on = folder.holds_run
    _extend(options, asked, folder=folder if goes_on else None)
    if "echo" in options["family"] and "batch" not in given and not goes_on:
        # For all curves, so that they can be compared: Echo makes its noise of the others in a batch.
        options["batch"] = max(options["batch"], SVI_PRESETS["s10"]["batch"])
    points = _points(options)
    _check(given | asked, points.values())
    found = {name: _finished(folder, name) for name in points}
    curves = _written(folder, points, found) if all(found.values()) else _train(options, folder, points, found)
    print(curves)
    print(folder.path / "report.html")
    return curves


def _parser() -> Parser:
    made = parser(
        __doc__, description="Rate-distortion curves of a deep generative model.", defaults=DEFAULTS | PRESETS["s9"]
    )
    several = {
        "beta": "weights of the KL term, a point each (default: 0.1 0.3 1 3 10)",
        "target": "targets of a constraint instead, a point each",
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
    return {f"{_label(point)}-{_varied(point)}-{_short(point[_varied(point)])}": point for point in every}


def _label(point: Options) -> str:
    """The curve's name: the family, or a guide of the user's own."""
    return point["guide"].rpartition(":")[2] if is_own(point["guide"]) else point["family"]


def _varied(point: Options) -> str:
    return "beta" if point["objective"] == "beta" else "target"


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


def _finished(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """The result of a point, if its run has come to its end; the report is what is written last."""
    point = RunFolder(folder.path / name)
    return point.read_json("result.json") if (point.path / "report.html").exists() else None


def _train(
    options: Options, folder: RunFolder, points: dict[str, Options], found: dict[str, dict[str, Any] | None]
) -> RateDistortion:
    """Run the points that are not finished, and write the curves after each.

    Raises:
        UsageError: A point does not fit together; or, after all others have been run, one left the finite numbers.
    """
    data, failed = data_of(options), []
    pending = {name: point for name, point in points.items() if found[name] is None}
    for name, point in pending.items():  # before anything is written
        fit = svi.build(point, RunFolder(folder.path / name), data=data).rehearse()
    _begin(folder, options, fit)
    try:
        for name, point in pending.items():
            fit = svi.build(point, RunFolder(folder.path / name), data=data).resume()
            print(f"{fit!r} → {fit.folder.path}", file=sys.stderr)
            try:
                fit.run()
            except UsageError as error:  # where numbers left the finite ones, the other points are still worth having
                failed.append(f"{name}: {error}")
                print(failed[-1], file=sys.stderr)
                continue
            if fit.stopped:
                interrupted(fit.stopped, folder.path, "rate_distortion")
            found[name] = fit.report(**{setting: options[setting] for setting in ("images", "updates", "evidence")})
            curves = _written(folder, points, found)
    finally:
        folder.unlock()
    if failed:
        raise UsageError("; ".join(failed))
    return curves


def _begin(folder: RunFolder, options: Options, fit: Fit) -> None:
    """Write the sweep's config.json, with what the options came to for one of its points.

    Raises:
        UsageError: The points that are there were trained on other data.
    """
    config, sweep = config_of(fit), {name: options[name] for name in SWEPT}
    content = {
        "command": "rate_distortion",
        "options": fit.origin["options"] | sweep,
        **{name: config[name] for name in ("data", "device", "threads", "versions")},
    }
    if folder.holds_run:
        was = folder.read_json("config.json").get("data")
        if was != config["data"]:
            raise UsageError(f"{folder.path}: was trained on {was}, found {config['data']}")
        folder.lock()
        folder.write_json("config.json", content)
    else:
        folder.create(content)


def _written(folder: RunFolder, points: dict[str, Options], found: dict[str, dict[str, Any] | None]) -> RateDistortion:
    """The curves as far as they are found, written into the sweep's folder."""
    curves = _ordered(
        _point(result, family=_label(point), **{_varied(point): point[_varied(point)]})
        for point, result in ((points[name], result) for name, result in found.items() if result)
    )
    folder.write_json("rate_distortion.json", curves.points)
    write_atomically(folder.path / "rate_distortion.md", lambda file: file.write(f"{curves!r}\n".encode()))
    figures.save(curves.show(), folder.path / "rate_distortion.png")
    rows = {}
    for point in curves.points:
        setting = next(f"{name} {point[name]:g}" for name in ("beta", "target") if name in point)
        measured = {name: value for name, value in point.items() if name.removesuffix("_se") in MEASURED}
        rows[f"{point['family']}, {setting}"] = measured
    common = {name: curves.points[0][name] for name in ("data", "steps", "images")}
    figures.report(folder.path, result=rows | common | _remarks(curves.points))
    return curves


def _point(found: Mapping[str, Any], **setting: Any) -> dict[str, Any]:
    """A point of a curve, from a run's final figures."""
    test = found["test"]
    point = dict(setting)
    for name, term, sign in (("rate", "kl", 1), ("distortion", "log_likelihood", -1), ("elbo", "elbo", 1)):
        point[name] = sign * test[term]
        if f"{term}_se" in test:
            point[f"{name}_se"] = test[f"{term}_se"]
    if "lagrange_multiplier" in found["train"]:
        point["multiplier"] = found["train"]["lagrange_multiplier"]
    point |= {"images": test["images"], "steps": found["steps"], "data": found["data"]}
    return point | {name: found[name] for name in ("likelihood", "prior", "remark") if name in found}


def _ordered(points: Iterable[dict[str, Any]]) -> RateDistortion:
    """Curve by curve, along each by weight or target."""
    points = list(points)
    families = list(dict.fromkeys(point["family"] for point in points))
    return RateDistortion(
        sorted(points, key=lambda point: (families.index(point["family"]), point.get("beta", point.get("target"))))
    )


def _remarks(points: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the results say beside their figures, by the curve or the point that they say it of."""
    said = {}
    for point in points:
        if "prior" in point:
            said[f"{point['family']}'s prior"] = point["prior"]
        if "likelihood" in point:
            said["likelihood"] = point["likelihood"]
        if "remark" in point:
            said[f"{point['family']}, target {point['target']:g}"] = point["remark"]
    return said


def _with_error(point: Mapping[str, Any], name: str) -> str:
    return f"{point[name]:.2f}" + (f" ± {point[f'{name}_se']:.2f}" if f"{name}_se" in point else "")


if __name__ == "__main__":
    curves = main()
