"""One optimiser or two, for rows and decoder, for GANs; and is a GAN's step size more delicate than a VAE's?"""

import math
from collections.abc import Sequence
from typing import Any

from runners import figures
from runners.gan_options import DEFAULTS, OTHERWISE
from runners.metrics.classifiers import Trained
from runners.metrics.measures import measure
from runners.presets import DEFAULTS as VAE_DEFAULTS
from runners.sample_quality import reporting
from runners.studies.adversaries import QUICKER
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan, of_svi
from runners.studies.rows import final, listed

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.7, 38)

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
QUICK_FACTORS = (0.1, 1.0, 10.0)

IMAGES, QUICK_IMAGES = 5000, 500
"""Samples, and real images that they are compared with."""

VAE, GAN = "VAE (S2)", "GAN (S12)"
TWO_ROWS, ONE_ROWS = "S1, two Adams", "S1, one Adam"
ONE_CRITIC, ONE_GENERATOR = f"{GAN}, one Adam, the discriminator's", f"{GAN}, one Adam, the generator's"

TWICE = 2.0
"""How many times the least distance a step size may give that is still as good as any."""


def _named(kind: str, factor: float) -> str:
    return f"{kind}, × {factor:g}"


def runs(*, quick: bool) -> dict[str, Point]:
    """S1 and S12 by one optimiser and by two; S2 and S12 with all step sizes scaled alike; quick: small networks."""
    steps, images = (300, 100) if quick else (2000, 500)
    small = {"model": "mlp"} if quick else {}
    rows = {"guide": "free", "steps": steps // 4 if quick else steps, "images": images} | small
    gan = {"steps": steps, "pictures": 0, "selection": 0} | (QUICKER if quick else {})
    critic = {"lr": DEFAULTS["critic_lr"], "betas": DEFAULTS["critic_betas"]}
    generator = {"lr": OTHERWISE["generator_lr"], "betas": OTHERWISE["generator_betas"]}
    made = {
        TWO_ROWS: of_svi(**rows),
        ONE_ROWS: of_svi(joint=True, **rows),
        ONE_CRITIC: of_gan(**_both(critic), **gan),
        ONE_GENERATOR: of_gan(**_both(generator), **gan),
    }
    factors = QUICK_FACTORS if quick else FACTORS
    vae = {"guide": "amortized", "steps": steps, "images": images} | small
    for factor in factors:
        made[_named(VAE, factor)] = of_svi(lr=factor * VAE_DEFAULTS["lr"], **vae)
    for factor in factors:
        rates = {"critic_lr": factor * critic["lr"], "generator_lr": factor * generator["lr"]}
        made[_named(GAN, factor)] = of_gan(**rates, **gan)
    return made


MAY_DIVERGE = tuple(_named(kind, factor) for kind in (VAE, GAN) for factor in FACTORS if factor > 1)
"""Runs without which there still is an answer: that they left the finite numbers."""


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The samples of all by one measure, the bounds of those that have them."""
    first = made[TWO_ROWS].fit
    images = min(QUICK_IMAGES if quick else IMAGES, len(first.data.test))
    trained = reporting(first, classifiers=first.folder.path.parent / "classifiers")
    table = [_row(name, one, trained, images=images) for name, one in made.items()]
    by = {row["run"]: row for row in table}
    swept = {
        kind: [(factor, by[_named(kind, factor)]) for factor in FACTORS if _named(kind, factor) in by]
        for kind in (VAE, GAN)
    }
    distances = {kind: [(factor, row["frechet_distance"]) for factor, row in rows] for kind, rows in swept.items()}
    lost = [name for name in MAY_DIVERGE if name in runs(quick=quick) and name not in made]
    panels = [
        figures.Panel(
            "Fréchet distance of the samples",
            "step sizes, as multiples of the system's own",
            "in a classifier's features",
            distances,
            log="xy",
            levels={"real images": table[0]["real_images"]},
        ),
        figures.Panel(
            "test ELBO",
            "step sizes, as multiples of the system's own",
            "nats per image",
            {VAE: [(factor, row["elbo"]) for factor, row in swept[VAE]]},
            log="x",
        ),
    ]
    histories = {name: one.fit.history.rows for name, one in made.items() if name in (TWO_ROWS, ONE_ROWS)}
    pictures = {
        "optimisers": figures.lines(panels, title="Step sizes of a VAE and of a GAN"),
        "rows": figures.curves(histories, title="Free parameters: one optimiser or two"),
    }
    (two, of_two), (one, of_one) = ((by[name], made[name].fit.history.rows[-1]) for name in (TWO_ROWS, ONE_ROWS))
    finding = [
        f"S1 by one Adam ends at a training ELBO of {of_one['elbo']:.1f} and a KL of {of_one['kl']:.2g}, by two at "
        f"{of_two['elbo']:.1f} and {of_two['kl']:.3g}, after as many steps, which take {one['seconds']:,.0f} s and "
        f"{two['seconds']:,.0f} s; with rows refined anew on each decoder the test ELBO is {one['elbo']:.1f} ± "
        f"{one.get('elbo_se', math.nan):.1f} and {two['elbo']:.1f} ± {two.get('elbo_se', math.nan):.1f}.",
        f"S12 by one Adam has a Fréchet distance of {by[ONE_CRITIC]['frechet_distance']:.3g} with the discriminator's "
        f"settings and {by[ONE_GENERATOR]['frechet_distance']:.3g} with the generator's, by two "
        f"{by[_named(GAN, 1.0)]['frechet_distance']:.3g}; real images {table[0]['real_images']:.2g}. Only the settings "
        "differ: Adam moves each weight by itself.",
        *([f"Left the finite numbers: {listed(lost)}."] if lost else []),
        _sensitivity(distances),
    ]
    return Answer(table, pictures, finding)


def _both(adam: dict[str, Any]) -> dict[str, Any]:
    """One Adam over both networks: two with the same settings, as no weight's step depends on another's."""
    return {f"{network}_{name}": value for network in ("critic", "generator") for name, value in adam.items()}


def _row(name: str, one: Made, trained: Trained, *, images: int) -> dict[str, Any]:
    found = measure(one.fit.samples(images), one.fit.data, trained)
    measures = {column: found[column] for column in ("frechet_distance", "precision", "recall")}
    bounds = final(one) if "test" in one.result else {"seconds": one.result["seconds"]}
    return {"run": name} | measures | {"real_images": found["real"]["frechet_distance"]} | bounds


def _sensitivity(distances: dict[str, Sequence[tuple[float, float]]]) -> str:
    """How far step sizes may be from the best, and what the worst of them does."""
    said = []
    for kind, points in distances.items():
        least = min(distance for _, distance in points)
        good = [factor for factor, distance in points if distance <= TWICE * least]
        worst = max(distance for _, distance in points) / least
        which = f"at × {good[0]:g} alone" if len(good) == 1 else f"at × {', '.join(f'{each:g}' for each in good)}"
        said.append(
            f"the {kind}'s distance is within twice its least, {least:.3g}, {which}, and at most {worst:.1f} times that"
        )
    factors = sorted({factor for points in distances.values() for factor, _ in points})
    return (
        f"With all step sizes scaled from × {factors[0]:g} to × {factors[-1]:g}, one seed each, {said[0]}; {said[1]}."
    )
