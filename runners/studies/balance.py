"""What becomes of a GAN when one of the two learns faster, by its step size or by its number of steps?"""

import math
from collections.abc import Sequence
from typing import Any

from runners.studies import adversaries
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan
from runners.studies.rows import listed

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 42)

FOOLED = math.log(2)


def runs(*, quick: bool) -> dict[str, Point]:
    """S12, each learning rate up and down, and more steps of one for a step of the other."""
    steps = 300 if quick else 3000
    shared = {"steps": steps, "pictures": 0, "selection": 0 if quick else 10} | (adversaries.QUICKER if quick else {})
    return {
        "S12": of_gan(**shared),
        "generator ×3": of_gan(generator_lr=9e-4, **shared),
        "generator ÷3": of_gan(generator_lr=1e-4, **shared),
        "discriminator ×3": of_gan(critic_lr=3e-4, **shared),
        "discriminator ÷3": of_gan(critic_lr=3.3e-5, **shared),
        "5 discriminator steps": of_gan(critic_steps=5, **shared),
        "10 generator steps": of_gan(generator_steps=10, **shared | {"steps": max(steps // 3, 1)}),
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Both losses over training, samples, and where each run ends."""
    table = [{"run": name} | adversaries.ended(one) for name, one in made.items()]
    pictures = {
        "balance": adversaries.curves(made, heading="A GAN of which one learns faster (losses in nats per image)"),
        "samples": adversaries.samples(made),
    }
    return Answer(table, pictures, [*_winners(table), *_nearest(table)])


def _winners(table: Sequence[dict[str, Any]]) -> list[str]:
    """What the discriminator's loss says of each run."""
    ranked = sorted(table, key=lambda row: row["critic_loss"])
    ahead = [row["run"] for row in ranked if row["critic_loss"] < FOOLED / 2]
    even = [row["run"] for row in ranked if FOOLED / 2 <= row["critic_loss"] < FOOLED]
    lost = [row["run"] for row in ranked if row["critic_loss"] >= FOOLED]
    low, high = ranked[0], ranked[-1]
    least = min(table, key=lambda row: row["diversity"])
    return [
        f"A discriminator that tells nothing apart has a loss of log 2, {FOOLED:.2f}; at the end it is lowest under "
        f"{low['run']}, {low['critic_loss']:.2f}, and highest under {high['run']}, {high['critic_loss']:.2f}.",
        f"It is below half of log 2 under {listed(ahead)}, between that and log 2 under {listed(even)}, and no better "
        f"than a coin's under {listed(lost)}.",
        f"The images vary least under {least['run']}, by {least['diversity']:.2g} of the data's variance.",
    ]


def _nearest(table: Sequence[dict[str, Any]]) -> list[str]:
    """Whose samples are nearest to the data, and whether they were nearer before."""
    column, words = adversaries.distance(table)
    near, far = (choose(table, key=lambda row: row[column]) for choose in (min, max))
    said = (
        f"By the {words}, one seed each, the last generator is nearest to the data under {near['run']}, "
        f"{near[column]:.3g}, and furthest under {far['run']}, {far[column]:.3g}"
    )
    if "best" not in near:
        return [f"{said}."]
    best = min(table, key=lambda row: row["best"])
    at = f"{best['best']:.3g}, under {best['run']} at step {best['best_at_step']:,}"
    return [f"{said}; the best of all looks is {at}."]
