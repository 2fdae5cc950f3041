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

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from ppl_models import UsageError
from runners import figures
from runners.fit import Fit
from runners.loop.atomic import write_atomically
from runners.loop.command import Options, command
from runners.loop.folder import RunFolder
from runners.series import finished
from runners.summary import family_name
from runners.sweep import label, setting, start, sweep_parser, train
from runners.table import markdown

__all__ = ["RateDistortion", "main", "rate_distortion"]

CURVE = ("rate", "distortion", "elbo")
"""Figures of a point, with standard errors."""

NEAR = 1.0
"""Nats of rate, closer than which two points have no slope between them that means anything."""

COMMON = ("steps", "images")
"""What all points have in common, unless a sweep was resumed with other options."""


@dataclass(frozen=True)
class RateDistortion:
    """Rate and distortion of several fits, in nats per image; its repr is a Markdown table.

    Attributes:
        points: For each fit `family`, `beta` or `target`, `rate`, `distortion` and `elbo` with standard errors over
            the test images (`_se`, left out where there is one image alone), `images`, `steps`, `data`; what a
            constrained fit's `multiplier` was, and what the fit's result remarks (`prior` with Echo).
    """

    points: list[dict[str, Any]]

    @classmethod
    def from_results(cls, results: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> "RateDistortion":
        """The curves of finished runs.

        Args:
            results: Of each run its `family` and its `beta` or `target`, and its final figures, as in result.json.
        """
        return _ordered(_point(result, **about) for about, result in results)

    def chords(self) -> list[dict[str, Any]]:
        r"""Between neighbours on a curve of KL weights, the slope :math:`-\Delta D / \Delta R`.

        At optima of one family it is between the two weights, :math:`\beta \le -\Delta D / \Delta R \le \beta'`.

        Returns:
            For each pair `family`, `beta`, `next_beta` and `slope`; where the rate does not fall by more than `NEAR`
            noise would decide, and the pair is left out.
        """
        found = []
        for one, other in pairwise(self.points):
            if one["family"] == other["family"] and "beta" in one and one["rate"] - other["rate"] > NEAR:
                slope = (other["distortion"] - one["distortion"]) / (one["rate"] - other["rate"])
                found.append({"family": one["family"], "beta": one["beta"], "next_beta": other["beta"], "slope": slope})
        return found

    def show(self) -> Figure:
        """The curves, as a picture."""
        said = "" if _differ(self.points, "steps") else f", {self.points[0]['steps']:,} steps each"
        return figures.rate_distortion(self.points, title=f"Rate and distortion on {self.points[0]['data']}{said}")

    def _repr_html_(self) -> str:
        return figures.html(repr(self), self.show())

    def __repr__(self) -> str:
        varied = list(dict.fromkeys(name for point in self.points for name in ("beta", "target") if name in point))
        named = ["multiplier"] if any("multiplier" in point for point in self.points) else []
        named += [name for name in COMMON if _differ(self.points, name)]
        shown = ["family", *varied, *named, *(f"{name}{error}" for name in CURVE for error in ("", "_se"))]
        rows = [{name: point[name] for name in shown if name in point} for point in self.points]
        first = self.points[0]
        images = "" if _differ(self.points, "images") else f", {first['images']:,} test images"
        lines = [f"{first['data']}{images}, nats per image", "", markdown(rows)]
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
    results = []
    for position, fit in enumerate(fits):
        beta, target = getattr(fit.objective, "kl_weight", None), getattr(fit.objective, "target", None)
        if not isinstance(beta, int | float) and target is None:
            raise UsageError(f"expected fits by ELBO(beta) or Constrained(target), found {fit.objective!r}")
        name = names[position] if names else family_name(fit.guide)
        varied = {"target": target} if target is not None else {"beta": beta}
        results.append(({"family": name} | varied, fit.result(images=images, updates=updates)))
    return RateDistortion.from_results(results)


@command
def main(argv: Sequence[str] | None = None) -> RateDistortion:
    """Run the command; returns the curves."""
    parser = sweep_parser(__doc__, description="Rate-distortion curves of a deep generative model.")
    given = vars(parser.parse_args(argv))
    options, folder, points = start(dict(given), name="rate_distortion")
    found = {name: finished(RunFolder(folder.path / name), "test") for name in points}

    def written(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        _write(folder, points, found)

    pending = {name: point for name, point in points.items() if found[name] is None}
    if pending:
        train(options, folder, pending, name="rate_distortion", on_result=written)
    elif unused := [f"--{option}" for option in ("images", "updates", "evidence") if option in given]:
        print(f"{folder.path}: all points are measured, {', '.join(unused)} changes nothing", file=sys.stderr)
    curves = _write(folder, points, found)
    print(curves)
    print(folder.path / "report.html")
    return curves


def _write(folder: RunFolder, points: dict[str, Options], found: dict[str, dict[str, Any] | None]) -> RateDistortion:
    """The curves as far as they are found, written into the sweep's folder."""
    curves = RateDistortion.from_results(
        ({"family": label(points[name])} | setting(points[name]), result) for name, result in found.items() if result
    )
    folder.write_json("rate_distortion.json", curves.points)
    write_atomically(folder.path / "rate_distortion.md", lambda file: file.write(f"{curves!r}\n".encode()))
    figures.save(curves.show(), folder.path / "rate_distortion.png")
    rows = {}
    for point in curves.points:
        varied = next(f"{name} {point[name]:g}" for name in ("beta", "target") if name in point)
        shown = (*CURVE, "multiplier", *(name for name in COMMON if _differ(curves.points, name)))
        rows[f"{point['family']}, {varied}"] = {k: v for k, v in point.items() if k.removesuffix("_se") in shown}
    common = {name: curves.points[0][name] for name in ("data", *COMMON) if not _differ(curves.points, name)}
    figures.report(folder.path, result=rows | common | _remarks(curves.points))
    return curves


def _point(found: Mapping[str, Any], **about: Any) -> dict[str, Any]:
    """A point of a curve, from a run's final figures."""
    test = found["test"]
    point = dict(about)
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


def _differ(points: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({point.get(name) for point in points}) > 1


def _remarks(points: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the results say beside their figures, by the curve or the point that they say it of."""
    said = {}
    for point in points:
        if "prior" in point:
            said[f"{point['family']}'s prior"] = point["prior"]
        if "likelihood" in point:
            said["likelihood"] = point["likelihood"]
        if "remark" in point:
            said[f"{point['family']}, target {point.get('target', 0):g}"] = point["remark"]
    return said


if __name__ == "__main__":
    curves = main()
