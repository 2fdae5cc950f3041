"""Do a GAN's losses say when to stop, and what does a falling generator loss mean while the discriminator's stays?"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from runners import figures
from runners.metrics import rank_correlation
from runners.studies.adversaries import STEADY
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan
from runners.table import title

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 28)

GENERATOR = "generator's loss"

ESTIMATES = {"gan": "log 2 − discriminator's loss", "wasserstein": "Wasserstein estimate"}
"""What each critic's loss says of a distance, by the loss's name."""

Looks = Sequence[Mapping[str, float]]

FEWEST = 4
"""Looks of which a correlation, of the second half too, is one."""


def runs(*, quick: bool) -> dict[str, Point]:
    """A GAN and a Wasserstein GAN, looked at often; a step of the second costs as much as six of the first."""
    shared = {"pictures": 0, "selection": 15 if quick else 40} | (STEADY if quick else {})
    steps = (600, 150) if quick else (6000, 2000)
    return {"S12": of_gan(steps=steps[0], **shared), "S13": of_gan(loss="wgan-gp", steps=steps[1], **shared)}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Losses since the last look and the distance there, and what stopping by each loss would have given."""
    looks = {name: _looks(one) for name, one in made.items()}
    distance = title(next(iter(made.values())).fit.selection.figure)
    table = [
        _row(name, rows, loss) for name, rows in looks.items() for loss in rows[0] if loss not in ("step", "distance")
    ]
    drawn = {
        name: [{distance if key == "distance" else key: value for key, value in row.items()} for row in rows]
        for name, rows in looks.items()
    }
    finding = [_of_run(name, [row for row in table if row["run"] == name], distance) for name in made]
    finding.append(" ".join(_standing(name, rows) for name, rows in looks.items()))
    return Answer(table, {"stopping": figures.stopping(drawn, distance=distance)}, finding)


def _looks(one: Made) -> list[dict[str, float]]:
    """Step, distance, and both losses as what should fall with it: the critic's as an estimate of a distance."""
    fit = one.fit
    return [
        {
            "step": row["step"],
            "distance": row[fit.selection.figure],
            GENERATOR: row["generator_loss"],
            ESTIMATES[fit.loss]: fit.fooled - row["critic_loss"],
        }
        for row in fit.selection.rows
    ]


def _row(name: str, looks: Looks, loss: str) -> dict[str, Any]:
    """How one loss goes with the distance, and where its least would have stopped the run."""
    losses, distances = ([row[of] for row in looks] for of in (loss, "distance"))
    late = len(looks) // 2
    of = rank_correlation if len(looks) >= FEWEST else lambda *_: math.nan
    stop, best = losses.index(min(losses)), distances.index(min(distances))
    return {
        "run": name,
        "loss": loss,
        "looks": len(looks),
        "rank_correlation": of(losses, distances),
        "in_second_half": of(losses[late:], distances[late:]),
        "least_at_step": looks[stop]["step"],
        "distance_there": distances[stop],
        "best_step": looks[best]["step"],
        "best_distance": distances[best],
        "last_distance": distances[-1],
    }


def _of_run(name: str, rows: Sequence[Mapping[str, Any]], distance: str) -> str:
    """What the losses of a run would have been worth."""
    if rows[0]["looks"] < FEWEST:
        return f"{name}: {rows[0]['looks']} looks are too few to say anything; expected {FEWEST} or more."
    said = ", ".join(
        f"{row['loss']} {row['rank_correlation']:+.2f} ({row['in_second_half']:+.2f} in the second half)"
        for row in rows
    )
    stops = " and ".join(
        f"at the least {row['loss']} (step {row['least_at_step']:,}) at {row['distance_there']:.3g}" for row in rows
    )
    one, chance = rows[0], 1 / math.sqrt(rows[0]["looks"] - 1)
    return (
        f"{name}, rank correlation with the {distance} over {one['looks']} looks: {said}; independent looks would "
        f"have 0 ± {chance:.2f}. Stopping would have ended {stops}; the best look, at step {one['best_step']:,}, "
        f"has {one['best_distance']:.3g} and the last {one['last_distance']:.3g}."
    )


def _standing(name: str, looks: Looks) -> str:
    """What the distance did where the critic's loss stood, by the median of its moves, and the generator's fell."""
    if len(looks) < 2:
        return ""
    critic = next(loss for loss in looks[0] if loss in ESTIMATES.values())
    moves = [{of: after[of] - before[of] for of in after} for before, after in zip(looks[:-1], looks[1:], strict=True)]
    little = median(abs(move[critic]) for move in moves)
    fallen = [move["distance"] < 0 for move in moves if abs(move[critic]) <= little and move[GENERATOR] < 0]
    if not fallen:
        return f"{name}: the generator's loss never fell while the critic's stood."
    return (
        f"{name}: the generator's loss fell between {len(fallen)} pairs of looks while the critic's moved by no more "
        f"than its median, {little:.2g}; the distance fell in {sum(fallen)} of them."
    )
