"""What are five updates of the critic for one of the generator worth, to a Wasserstein GAN and to a GAN?"""

from runners.gan_fit import GanFit
from runners.studies import adversaries
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 32)

ALONE, QUICK_ALONE = 200, 30
"""Updates of the critic alone that say how far it was behind."""

GAMES = {"S13": {"preset": "s13"}, "S12": {}}
STEPS = (1, 5)


def runs(*, quick: bool) -> dict[str, Point]:
    """S13 and S12, each with one update of the critic and with five, and as many of the generator."""
    shared = adversaries.QUICKER | {"steps": 300, "selection": 0} if quick else {"steps": 1500, "selection": 10}
    return {
        _name(game, steps): of_gan(critic_steps=steps, pictures=0, **options, **shared)
        for game, options in GAMES.items()
        for steps in STEPS
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Losses or estimates over training, samples, and where each run ends and how far its critic is from its best."""
    more = QUICK_ALONE if quick else ALONE
    table = [
        {"run": name} | adversaries.ended(one) | {"critic_behind": _behind(one.fit, more)} for name, one in made.items()
    ]
    title = "One update of the critic for one of the generator, and five"
    pictures = {
        "critic_steps": adversaries.curves(made, heading=title, columns=("critic_loss", "held_out", "diversity")),
        "samples": adversaries.samples(made),
    }
    by, (column, words) = {row["run"]: row for row in table}, adversaries.distance(table)
    finding = []
    for game in GAMES:
        one, five = (by[_name(game, steps)] for steps in STEPS)
        finding += [
            f"In {game}, after {one['generator_updates']:,} generator updates, one update of the critic for each ends "
            f"at a {words} of {one[column]:.3g} in {one['seconds']:,.0f} seconds, five at {five[column]:.3g} in "
            f"{five['seconds']:,.0f}.",
            f"{more} more updates of the critic alone take {one['critic_behind']:.2g} off its held-out loss after one, "
            f"{five['critic_behind']:.2g} after five.",
        ]
    near = min(table, key=lambda row: row[column])
    finding.append(f"Of all four {near['run']} is nearest to the data, by one seed each.")
    return Answer(table, pictures, finding)


def _behind(fit: GanFit, updates: int) -> float:
    """By how much a critic's held-out loss falls where it is trained on alone, on the same latents."""
    on = adversaries.alone(fit)
    return on.measured()["held_out"] - on.run(updates).measured()["held_out"]


def _name(game: str, steps: int) -> str:
    return f"{game}, {steps} critic step{'s' * (steps > 1)}"
