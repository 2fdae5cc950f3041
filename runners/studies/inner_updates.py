"""How many updates of the free parameters are worth their time, for each update of the decoder and in all?"""

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (2, 45)

UPDATES = (1, 3, 10, 20)
BATCHES = (16, 256)


def runs(*, quick: bool) -> dict[str, Point]:
    """So many updates of the rows for one of the decoder, and batches of other sizes that see as many images."""
    steps, images = (60, 100) if quick else (3000, 500)
    shared = {"guide": "free", "images": images}
    by_updates = {
        f"{updates} update{'s' * (updates > 1)}": of_svi(local_steps=updates, steps=steps, **shared)
        for updates in UPDATES
    }
    by_batch = {f"batch {batch}": of_svi(batch=batch, steps=steps * 64 // batch, **shared) for batch in BATCHES}
    return by_updates | by_batch


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """TODO."""
    table = [{"run": name} | final(one) for name, one in made.items()]
    return Answer(table, {"inner_updates": figures.curves({n: o.fit.history.rows for n, o in made.items()})}, [""])
