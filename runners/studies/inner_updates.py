"""How many updates of the free parameters are worth their time, for each update of the decoder and in all?"""

import math
from typing import Any

from runners import figures
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import at, final, milliseconds, points

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 45)

UPDATES = (1, 3, 10, 20)
BATCHES = (16, 256)


def runs(*, quick: bool) -> dict[str, Point]:
    """So many updates of the rows for one of the decoder, and batches of other sizes that see as many images."""
    steps, images = (40, 100) if quick else (3000, 500)
    shared = {"guide": "free", "images": images}
    by_updates = {_named(updates): of_svi(local_steps=updates, steps=steps, **shared) for updates in UPDATES}
    by_batch = {f"batch {batch}": of_svi(batch=batch, steps=steps * 64 // batch, **shared) for batch in BATCHES}
    return by_updates | by_batch


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """What each run had come to after as many seconds, and after as many steps, as the shortest of them took."""
    last = {name: one.fit.history.rows[-1] for name, one in made.items()}
    seconds, steps = (min(row[x] for row in last.values()) for x in ("seconds", "step"))
    equal = {f"after {seconds:,.0f} s": ("seconds", seconds), f"after {steps:,} steps": ("step", steps)}
    table = [_row(name, one, equal) for name, one in made.items()]
    by = {row["run"]: row for row in table}
    panels = [
        figures.Panel(
            f"training ELBO against {what}", what, "nats per image", {n: points(o, x) for n, o in made.items()}
        )
        for what, x in (("decoder steps", "step"), ("seconds", "seconds"))
    ]
    pictures = {
        "inner_updates": figures.lines(panels, title="Free parameters: updates of the rows for one of the decoder"),
        "terms": figures.curves({name: one.fit.history.rows for name, one in made.items()}),
    }
    fewest, most = (by[_named(updates)] for updates in (UPDATES[0], UPDATES[-1]))
    finding = [
        f"Per step: {most['updates']} updates of the rows cost {most['ms_per_step'] / fewest['ms_per_step']:.1f} times "
        f"what {fewest['updates']} does; where both end, the test ELBO is {most['elbo']:.1f} against "
        f"{fewest['elbo']:.1f}, the test KL {most['kl']:.1f} against {fewest['kl']:.1f}, and the KL of the rows in "
        f"training {_training(made, most, 'kl'):.1f} against {_training(made, fewest, 'kl'):.1f}.",
        *(_at_equal(table, name) for name in equal),
        _in_the_end(table),
    ]
    return Answer(table, pictures, finding)


def _named(updates: int) -> str:
    return f"{updates} update{'s' * (updates > 1)}"


def _row(name: str, one: Made, equal: dict[str, tuple[str, float]]) -> dict[str, Any]:
    about = {"run": name, "updates": one.fit.guide.refinement.steps, "batch": one.fit.settings["batch"]}
    training = {what: at(one.fit.history.rows, x, value) for what, (x, value) in equal.items()}
    return about | {"decoder_steps": one.fit.history.step} | final(one) | {"ms_per_step": milliseconds(one)} | training


def _training(made: dict[str, Made], row: dict[str, Any], name: str) -> float:
    return made[row["run"]].fit.history.rows[-1][name]


def _at_equal(table: list[dict[str, Any]], what: str) -> str:
    """Which run was ahead at the same time, or at the same step."""
    found = {row["run"]: row[what] for row in table if row[what] is not None}
    order = sorted(found, key=found.__getitem__, reverse=True)
    said = f"The training ELBO {what} is best with {order[0]}, {found[order[0]]:.1f}"
    return said + (f", and worst with {order[-1]}, {found[order[-1]]:.1f}." if len(order) > 1 else ".")


def _in_the_end(table: list[dict[str, Any]]) -> str:
    """The best test ELBO, and whether the second is behind it at all."""
    first, second = sorted(table, key=lambda row: row["elbo"], reverse=True)[:2]
    behind = first["elbo"] - second["elbo"]
    error = math.hypot(*(row.get("elbo_se", math.nan) for row in (first, second)))
    means = "" if behind > 2 * error else ", which is within what the choice of test images does"
    return (
        f"In the end {first['run']} has the best test ELBO, {first['elbo']:.1f} after {first['seconds']:,.0f} s, and "
        f"{second['run']} is {behind:.1f} ± {error:.1f} behind it after {second['seconds']:,.0f} s{means}."
    )
