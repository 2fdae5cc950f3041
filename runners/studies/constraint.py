"""What do several targets of the log-likelihood make of the KL and of the Lagrange multiplier over training?"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import listed

__all__ = ["MINUTES", "Price", "answer", "prices", "runs"]

MINUTES = (1, 7)

TARGETS = (-120.0, -105.0, -90.0, -80.0)
QUICK_TARGETS = (-160.0, -140.0, -120.0)

TOLERANCE = 0.01
"""How far from its target, as a part of it, a log-likelihood is still there."""


class Price(NamedTuple):
    """What a nat of log-likelihood costs between two targets, in nats of KL, and the multipliers at both."""

    slope: float
    multiplier: float
    next_multiplier: float

    @property
    def between(self) -> bool:
        """Whether the slope is between the multipliers, as it is where both runs are at their optimum."""
        return self.multiplier <= self.slope <= self.next_multiplier


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder under the least KL at each target; quick with the small networks, for as many steps."""
    steps, networks = (2000, {"model": "mlp"}) if quick else (3000, {})
    return {
        f"{target:g}": of_svi(guide="amortized", objective="constrained", target=target, steps=steps, **networks)
        for target in (QUICK_TARGETS if quick else TARGETS)
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The terms and the multiplier of each over training, and what they come to."""
    made = dict(sorted(made.items(), key=lambda item: float(item[0])))
    table = [{"target": name} | _row(one) for name, one in made.items()]
    columns = ("step", "log_likelihood", "kl", "lagrange_multiplier")
    drawn = {
        name: [{column: row[column] for column in columns} for row in one.fit.history.rows]
        for name, one in made.items()
    }
    targets = {f"log_likelihood: {name}": float(name) for name in made}
    picture = figures.curves(
        drawn,
        references=targets | {"lagrange_multiplier: the ELBO's": 1.0},
        title="The least KL at each target of the log-likelihood (dashed)",
    )
    optima = [
        tuple(one.result["train"][name] for name in ("log_likelihood", "kl", "lagrange_multiplier"))
        for one in made.values()
    ]
    return Answer(table, {"constraint": picture}, _finding(table, prices(optima)))


def prices(optima: Sequence[tuple[float, float, float]]) -> list[Price | None]:
    r"""The slopes of the KL between neighbours, :math:`\Delta KL / \Delta E \log p(x \mid z)`, and their multipliers.

    Where each is the least of :math:`KL - \lambda E \log p(x \mid z)` at its own multiplier, a slope is between both:
    the multiplier is the price of the constraint (Boyd and Vandenberghe 2004, section 5.6).

    Args:
        optima: Of each the log-likelihood, the KL and the multiplier, in the order of the targets.

    Returns:
        A price for each pair of neighbours, or None where the log-likelihood does not rise.
    """
    found: list[Price | None] = []
    for (log_likelihood, kl, multiplier), (next_log_likelihood, next_kl, next_multiplier) in pairwise(optima):
        rise = next_log_likelihood - log_likelihood
        found.append(Price((next_kl - kl) / rise, multiplier, next_multiplier) if rise > 0 else None)
    return found


def _row(one: Made) -> dict[str, Any]:
    """Terms of the test images, those of the last 1000 steps beside them, and the multiplier's end and peak."""
    train, test, rows = one.result["train"], one.result["test"], one.fit.history.rows
    peak = max(rows, key=lambda row: row["lagrange_multiplier"])
    missing = one.fit.objective.target - train["log_likelihood"]
    near = abs(missing) <= TOLERANCE * abs(one.fit.objective.target)
    return {
        "target_is": "met" if near else "missed" if missing > 0 else "passed",
        "training_log_likelihood": train["log_likelihood"],
        **{name: test[name] for name in ("log_likelihood", "kl", "elbo", "elbo_se") if name in test},
        "last_multiplier": rows[-1]["lagrange_multiplier"],
        "peak": peak["lagrange_multiplier"],
        "peak_at_step": int(peak["step"]),
    }


def _finding(table: Sequence[dict[str, Any]], found: Sequence[Price | None]) -> list[str]:
    first, last, best = table[0], table[-1], max(table, key=lambda row: row["elbo"])
    met, passed, missed = (
        listed(row["target"] for row in table if row["target_is"] == state) for state in ("met", "passed", "missed")
    )
    known = [price for price in found if price is not None]
    said = [
        f"The mean of the last 1,000 steps is within {TOLERANCE:.0%} of the target at {met}, above it, where the "
        f"multiplier has yet to come down, at {passed}, and below it at {missed}.",
        f"At the target {first['target']} the test images cost {first['kl']:.1f} nats of KL and at {last['target']} "
        f"{last['kl']:.1f}; their ELBO is best at {best['target']}, {best['elbo']:.1f}, where the multiplier is "
        f"{best['last_multiplier']:.2f} in the end (the ELBO's own is 1).",
        "The multiplier's peaks are "
        + listed([f"{row['peak']:.1f} at step {row['peak_at_step']:,}" for row in table])
        + ", its ends "
        + listed([f"{row['last_multiplier']:.2f}" for row in table])
        + ".",
    ]
    if known:
        priced = listed(
            f"{price.slope:.2f} (multipliers {price.multiplier:.2f} and {price.next_multiplier:.2f})" for price in known
        )
        said.append(
            f"From target to target a nat of log-likelihood costs {priced} nats of KL; settled runs have it between "
            f"the first multiplier and the second, which holds for {sum(price.between for price in known)} of "
            f"{len(known)}."
        )
    return said
