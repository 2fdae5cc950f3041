"""What do rate and distortion come to as β goes to 0 and to infinity, and does Echo noise give another curve?"""

from collections.abc import Mapping, Sequence
from typing import Any

from runners import figures
from runners.rate_distortion import RateDistortion
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 25)

BETAS = {"diagonal": (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0), "echo": (0.1, 0.3, 1.0, 3.0, 10.0)}
QUICK_BETAS = {"diagonal": (0.01, 0.3, 1.0, 10.0, 100.0), "echo": (0.3, 1.0, 10.0)}


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder of each family at each KL weight, in batches that Echo can make its noise of."""
    shared = {"guide": "amortized", "objective": "beta", "batch": 100, "steps": 300 if quick else 3000}
    shared |= {"model": "mlp"} if quick else {}
    return {
        f"{family} {beta:g}": of_svi(family=family, beta=beta, **shared)
        for family, betas in (QUICK_BETAS if quick else BETAS).items()
        for beta in betas
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Both curves, their ends, the slope between neighbours, and how far one is below the other."""
    named = ((*name.split(), one) for name, one in made.items())
    curves = RateDistortion.from_results(
        ({"family": family, "beta": float(beta)}, one.result) for family, beta, one in named
    )
    chords = curves.chords()
    slopes = {(chord["family"], chord["beta"]): chord["slope"] for chord in chords}
    shown = ("family", "beta", "rate", "rate_se", "distortion", "distortion_se", "elbo", "elbo_se")
    table = [
        {name: point[name] for name in shown if name in point}
        | {"weighted_sum": point["distortion"] + point["beta"] * point["rate"]}
        | {"slope_to_the_next": slopes.get((point["family"], point["beta"]))}
        for point in curves.points
    ]
    by_family = {family: [row for row in table if row["family"] == family] for family in BETAS}
    finding = [_ends(rows) for rows in by_family.values()] + [_slopes(chords), *_best(by_family), _gap(by_family)]
    pictures = {
        "rate_and_distortion": curves.show(),
        "slopes": figures.slopes(chords, title="The slope between neighbouring points"),
    }
    return Answer(table, pictures, finding)


def _ends(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a curve comes to at its least and at its largest weight."""
    least, most = rows[0], rows[-1]
    return (
        f"From β = {least['beta']:g} to {most['beta']:g} the rate of {most['family']} posteriors goes from "
        f"{least['rate']:.2f} to {most['rate']:.2f} nats and the distortion from {least['distortion']:.1f} to "
        f"{most['distortion']:.1f}."
    )


def _slopes(chords: Sequence[Mapping[str, Any]]) -> str:
    """For how many neighbours the slope is where theory has it."""
    within = [chord for chord in chords if chord["beta"] <= chord["slope"] <= chord["next_beta"]]
    said = "; ".join(
        f"{chord['family']} {chord['slope']:.2g} from {chord['beta']:g} to {chord['next_beta']:g}"
        for chord in chords
        if chord not in within
    )
    others = f" (the others: {said})" if said else ""
    return (
        f"−ΔD/ΔR is between the two weights, as it must be between optima, for {len(within)} of {len(chords)} pairs of "
        f"neighbours between which the rate falls by a nat or more{others}."
    )


def _best(by_family: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """At which weights the test ELBO, which weighs both by one, is largest."""
    best = {family: max(rows, key=lambda row: row["elbo"]) for family, rows in by_family.items()}
    said = " and ".join(f"{row['elbo']:.1f} at β = {row['beta']:g} for {family}" for family, row in best.items())
    return [f"The largest test ELBO, −(D + R), is {said}."]


def _gap(by_family: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which family has the smaller D + βR, at each weight that both have."""
    gaussian = {row["beta"]: row for row in by_family["diagonal"]}
    said = []
    for row in by_family["echo"]:
        if (other := gaussian.get(row["beta"])) is None:
            continue
        gap = row["weighted_sum"] - other["weighted_sum"]
        # Of images in pairs it would be less: D and R of an image go together, and so do both families'.
        error = sum((each.get("distortion_se", 0) + row["beta"] * each.get("rate_se", 0)) ** 2 for each in (row, other))
        nothing = ", which means nothing" if abs(gap) < 2 * error**0.5 else ""
        said.append(f"{gap:+.1f} at β = {row['beta']:g} (standard error at most {error**0.5:.1f}{nothing})")
    return (
        f"At equal weight D + βR with Echo differs from the Gaussian's by {', '.join(said)}, where less is a lower "
        "curve; but Echo's rate is about the marginal of its own codes, the best of all priors, and the Gaussian's "
        "about N(0, I)."
    )
