"""What do several targets of the log-likelihood make of the KL and of the Lagrange multiplier over training?"""

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 7)

TARGETS = (-120.0, -105.0, -90.0, -80.0)
QUICK_TARGETS = (-160.0, -140.0, -120.0)


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder under the least KL at each target."""
    steps = 500 if quick else 3000
    return {
        f"{target:g}": of_svi(guide="amortized", objective="constrained", target=target, steps=steps)
        for target in (QUICK_TARGETS if quick else TARGETS)
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """TODO."""
    table = [{"target": name} | final(one) for name, one in made.items()]
    return Answer(table, {"constraint": figures.curves({n: one.fit.history.rows for n, one in made.items()})}, [""])
