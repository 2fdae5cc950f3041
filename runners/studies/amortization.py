"""What do an encoder, free parameters and an encoder whose answers are refined come to, side by side?"""

from typing import Any

from matplotlib.figure import Figure

from runners import figures
from runners.compare import free_on, refined
from runners.comparisons import BoundComparison, compare_bounds
from runners.fit import Fit
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import in_words
from runners.summary import mean_and_error

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 32)

ENCODER, REFINED, FREE = "encoder", "encoder, refined", "free parameters"
GUIDES = {ENCODER: "amortized", REFINED: "semi-amortized", FREE: "free"}

STEPS = {ENCODER: 10_000, REFINED: 1000, FREE: 4000}
"""A step takes 28 times an encoder's where its answers are refined, and 6 times with free parameters: fewer of them."""

QUICK_STEPS = {ENCODER: 1000, REFINED: 100, FREE: 300}

REFINEMENTS, UPDATES = 20, 200


def runs(*, quick: bool) -> dict[str, Point]:
    """Each guide with a decoder of its own (S2, S5, S1); quick with the small networks."""
    networks = {"model": "mlp"} if quick else {}
    steps = QUICK_STEPS if quick else STEPS
    return {name: of_svi(guide=guide, steps=steps[name], **networks) for name, guide in GUIDES.items()}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Each with its own decoder, then all three on the one that the encoder was trained with, frozen."""
    images = 200 if quick else 1000
    own = {name: one.fit for name, one in made.items()}
    frozen = {
        ENCODER: own[ENCODER],
        REFINED: refined(own[ENCODER], REFINEMENTS),
        FREE: free_on(own[ENCODER]),
    }
    compared = {
        decoder: compare_bounds(fits, images=images, updates=UPDATES)
        for decoder, fits in (("its own", own), ("the encoder's", frozen))
    }
    table = [
        {"decoder": decoder, "guide": name, "steps": made[name].fit.history.step if decoder == "its own" else None}
        | _row(comparison, name)
        for decoder, comparison in compared.items()
        for name in comparison.elbo
    ]
    picture = _picture(compared, own)
    return Answer(table, {"amortization": picture}, _finding(compared, made))


def _row(comparison: BoundComparison, name: str) -> dict[str, Any]:
    elbo, error = mean_and_error(comparison.elbo[name])
    row = {
        "elbo": elbo,
        "elbo_se": error,
        "kl": float(comparison.kl[name].mean()),
        "ms_per_image": 1e3 * comparison.seconds[name],
    }
    if name != ENCODER:
        row["minus_the_encoder"], row["minus_the_encoder_se"] = comparison.difference(name)
    return row


def _picture(compared: dict[str, BoundComparison], own: dict[str, Fit]) -> Figure:
    """The same test images by each, on its own decoder and on the encoder's, and samples of each decoder."""
    again, frozen = (comparison.reconstructions for comparison in compared.values())
    shared = {f"encoder's decoder:\n{name}": frozen[name] for name in own}
    samples = {f"samples:\n{name}": fit.samples(len(next(iter(again.values())))) for name, fit in own.items()}
    return figures.filmstrips([again, shared, samples])


def _finding(compared: dict[str, BoundComparison], made: dict[str, Made]) -> list[str]:
    own, frozen = compared.values()
    differences = {name: frozen.difference(name) for name in (REFINED, FREE)}
    milliseconds = {name: 1e3 * seconds for name, seconds in frozen.seconds.items()}
    (part, _), (whole, error) = differences.values()
    if whole < max(part, 0.0):
        reached = ", so that these have not converged: the best of their family is no worse than either of the others"
    else:
        reached = f", of which the first is {part / whole:.0%}" if part > 0 and whole > 2 * error else ""
    steps = ", ".join(f"{name} {one.fit.history.step:,}" for name, one in made.items())
    return [
        f"On the encoder's own frozen decoder its test ELBO is {float(frozen.elbo[ENCODER].mean()):.1f}; that of its "
        f"answers after {REFINEMENTS} updates is {in_words(*differences[REFINED])}, that of free parameters after "
        f"{UPDATES} updates from the prior {in_words(*differences[FREE])}{reached}.",
        f"Inference takes {milliseconds[ENCODER]:.2f}, {milliseconds[REFINED]:.1f} and {milliseconds[FREE]:.1f} ms an "
        "image.",
        f"With decoders of their own, beside the encoder with its own, the refined encoder's is "
        f"{in_words(*own.difference(REFINED))}, that of free parameters {in_words(*own.difference(FREE))}; here the "
        f"numbers of steps ({steps}) have a part in it.",
    ]
