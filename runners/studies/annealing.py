"""What does annealing the KL weight do to the KL over training, rising and falling?"""

from runners import figures
from runners.comparisons import compare_bounds
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final, tenths

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 8)

SCHEDULES = {"rising": "linear", "sigmoid": "sigmoid", "cyclical": "cyclical", "falling": "falling"}


def runs(*, quick: bool) -> dict[str, Point]:
    """An encoder without annealing, and under each schedule."""
    shared = {"guide": "amortized", "steps": 300 if quick else 3000}
    annealed = {name: of_svi(objective="annealed", schedule=schedule, **shared) for name, schedule in SCHEDULES.items()}
    return {"constant": of_svi(**shared)} | annealed


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The KL of each over training, and what they come to."""
    table = [{"weight": name} | tenths(one) | final(one) for name, one in made.items()]
    by = {row["weight"]: row for row in table}
    picture = figures.curves(
        {name: one.fit.history.rows for name, one in made.items()}, title="An encoder under schedules of the KL weight"
    )
    early, late = ({name: row[f"kl_in_{which}_tenth"] for name, row in by.items()} for which in ("first", "last"))
    beside = compare_bounds({name: one.fit for name, one in made.items()}, images=200 if quick else 10_000)
    (rising, its), (falling, theirs) = (beside.difference(name) for name in ("rising", "falling"))
    finding = [
        f"In the first tenth of training a rising weight leaves the codes {early['rising']:.1f} nats and a falling one "
        f"{early['falling']:.1f}; without annealing it is {early['constant']:.1f}.",
        f"In the last tenth it is {late['rising']:.1f}, {late['falling']:.1f} and {late['constant']:.1f}.",
        f"Image by image the test ELBO under a rising weight ends {rising:+.2f} ± {its:.2f} nats from that without "
        f"annealing, under a falling one {falling:+.2f} ± {theirs:.2f}.",
    ]
    return Answer(table, {"annealing": picture}, finding)
