"""What becomes of a GAN when one of the two learns faster, by its step size or by its number of steps?"""

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (2, 40)


def runs(*, quick: bool) -> dict[str, Point]:
    """S12, each learning rate up and down, and more steps of one for a step of the other."""
    steps = 100 if quick else 3000
    shared = {"steps": steps, "pictures": 0, "selection": 0 if quick else 10}
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
    """TODO."""
    table = [{"run": name} | one.result["train"] for name, one in made.items()]
    return Answer(table, {"balance": figures.curves({n: o.fit.history.rows for n, o in made.items()})}, [""])
