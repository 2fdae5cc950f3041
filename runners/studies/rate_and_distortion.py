"""What do rate and distortion come to as β goes to 0 and to infinity, and does Echo noise give another curve?"""

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (2, 25)

BETAS = {"diagonal": (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0), "echo": (0.1, 0.3, 1.0, 3.0, 10.0)}
QUICK_BETAS = {"diagonal": (0.01, 0.3, 1.0, 10.0, 100.0), "echo": (0.3, 1.0, 10.0)}


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder of each family at each KL weight, in batches that Echo can make its noise of."""
    shared = {"guide": "amortized", "objective": "beta", "batch": 100, "steps": 300 if quick else 3000}
    return {
        f"{family} {beta:g}": of_svi(family=family, beta=beta, **shared)
        for family, betas in (QUICK_BETAS if quick else BETAS).items()
        for beta in betas
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """TODO."""
    table = [{"run": name} | final(one) for name, one in made.items()]
    return Answer(
        table, {"rate_and_distortion": figures.curves({n: o.fit.history.rows for n, o in made.items()})}, [""]
    )
