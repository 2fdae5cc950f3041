"""By which rule should free parameters move: SGD or Adam, by an optimiser of their own or the decoder's?"""

import math
from typing import Any

from guides import ELBO, refine
from guides.sites import Program
from runners import figures
from runners.data import head
from runners.presets import PRESETS
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final, milliseconds, points

__all__ = ["MINUTES", "answer", "moved", "runs"]

MINUTES = (1.5, 30)

MOVING = 5e-3
"""A step size of SGD, per datum, that moves rows; it is stable up to 2 σ² of a posterior's sharpest direction."""

LONGER = 5
"""How many times as long the one optimiser may train for about as many passes through the decoder."""

ADAM, COURSE, SGD, CARRIED, ONE = "Adam", "the course's SGD", f"SGD, {MOVING:g}", "Adam, carried", "one Adam"
SAME_SIZE = "SGD of the course's size"
LONG = f"{ONE}, {LONGER} × the steps"


def runs(*, quick: bool) -> dict[str, Point]:
    """S1 by its own rule, by others, on rows that are carried from batch to batch, and by one optimiser."""
    steps, images = (40, 100) if quick else (2000, 500)
    shared = {"guide": "free", "images": images}
    return {
        ADAM: of_svi(steps=steps, **shared),
        COURSE: of_svi(preset="s1-course", steps=steps, **shared),
        # The course's rule alone, without its carried rows and its networks' start.
        SAME_SIZE: of_svi(local_rule="sgd", local_lr=PRESETS["s1-course"]["local_lr"], steps=steps, **shared),
        SGD: of_svi(local_rule="sgd", local_lr=MOVING, steps=steps, **shared),
        CARRIED: of_svi(carried=True, steps=steps, **shared),
        ONE: of_svi(joint=True, steps=steps, **shared),
        LONG: of_svi(joint=True, steps=LONGER * steps, **shared),
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """How far a visit moves a row by each rule, and what comes of it."""
    table = [_row(name, one, on=made[ADAM]) for name, one in made.items()]
    by = {row["rule"]: row for row in table}
    panels = [
        figures.Panel(title, what, "nats per image", {name: points(one, x, y) for name, one in made.items()})
        for title, what, x, y in (
            ("training ELBO", "steps", "step", "elbo"),
            ("training ELBO", "seconds", "seconds", "elbo"),
            ("training KL", "steps", "step", "kl"),
        )
    ]
    adam, course, sgd, carried, one, long = (by[name] for name in (ADAM, COURSE, SGD, CARRIED, ONE, LONG))
    same = by[SAME_SIZE]
    size = made[COURSE].fit.guide.refinement.rule.lr
    finding = [
        f"The course's setting, {size:.2g} per datum, moves a mean by {course['moves_on_its_own']:.2g} standard "
        f"deviations of the prior in a first visit's ten updates on the decoder that it trained, SGD of {MOVING:g} by "
        f"{sgd['moves_on_its_own']:.2g}, Adam by {adam['moves_on_its_own']:.2g}; all on the decoder that Adam trained, "
        f"{course['moves_on_adams']:.2g}, {sgd['moves_on_adams']:.2g} and {adam['moves_on_adams']:.2g}.",
        f"In training the course's rows, which are carried, end at a KL of {course['training_KL']:.2g} nats and an "
        f"ELBO of {course['training_ELBO']:.1f}, its step size on the table at {same['training_KL']:.2g} and "
        f"{same['training_ELBO']:.1f}, SGD of {MOVING:g} at {sgd['training_KL']:.1f} and "
        f"{sgd['training_ELBO']:.1f}, Adam at {adam['training_KL']:.1f} and {adam['training_ELBO']:.1f}; with Adam, "
        f"but one set of rows carried from batch to batch, {carried['training_KL']:.1f} and "
        f"{carried['training_ELBO']:.1f}.",
        f"One Adam of the decoder's step size for both costs {one['ms_per_step']:.0f} ms a step in place of "
        f"{adam['ms_per_step']:.0f} and ends at a training ELBO of {one['training_ELBO']:.1f}, and at "
        f"{long['training_ELBO']:.1f} after {long['seconds']:,.0f} s, beside {adam['training_ELBO']:.1f} after "
        f"{adam['seconds']:,.0f} s by two.",
        _decoders(table),
    ]
    return Answer(table, {"local_rules": figures.lines(panels, title="Rules for the rows of S1")}, finding)


def moved(one: Made, *, model: Program, images: int = 100) -> float:
    r"""How far the updates of a first visit move the means, from the prior, in standard deviations of the prior.

    The root mean square over images and latents of :math:`\mu_{i,d}` after them, which is 0 before.

    Args:
        one: A run with free parameters, whose rule and updates are used.
        model: What they are refined on.
        images: So many test images, the first ones.
    """
    fit = one.fit
    with fit.aside():
        batch = head(fit.data.test, images)
        params, _ = refine(model, fit.guide, ELBO(), batch, fit.guide.fresh(batch), refinement=fit.guide.refinement)
        return float(params["loc"].square().mean().sqrt())


def _row(name: str, one: Made, *, on: Made) -> dict[str, Any]:
    last = one.fit.history.rows[-1]
    train = {"training_ELBO": last["elbo"], "training_KL": last["kl"]}
    moves = {"moves_on_its_own": moved(one, model=one.fit.model), "moves_on_adams": moved(one, model=on.fit.model)}
    return (
        {"rule": name}
        | moves
        | {"steps": one.fit.history.step}
        | train
        | final(one)
        | {"ms_per_step": milliseconds(one)}
    )


def _decoders(table: list[dict[str, Any]]) -> str:
    """Which decoder is best where fresh rows are refined alike on all of them."""
    best, *others = sorted(table, key=lambda row: row["elbo"], reverse=True)
    last = others[-1]
    error = math.hypot(best.get("elbo_se", math.nan), last.get("elbo_se", math.nan))
    return (
        f"As decoders, with fresh rows refined alike on each, that of {best['rule']} is best, {best['elbo']:.1f}, and "
        f"that of {last['rule']} worst, {best['elbo'] - last['elbo']:.1f} ± {error:.1f} below it."
    )
