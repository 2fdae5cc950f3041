"""How do samples of a VAE and of GANs compare, on the same data and by the same measures?"""

import math
from typing import Any

import torch
from torch import Tensor

from runners import figures
from runners.metrics import measure
from runners.sample_quality import reporting
from runners.studies.adversaries import STEADY
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan, of_svi
from runners.table import title

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 38)

KEPT = 100
"""One in so many samples of the mixture is the VAE's, the others are noise."""

REAL, MEANS, PIXELS, NOISE = "real images", "VAE means", "VAE pixels", "VAE in 99 % noise"

MEASURES = (
    "frechet_distance",
    "kernel_distance",
    "kernel_distance_se",
    "precision",
    "recall",
    "coverage",
    "two_sample_accuracy",
    "reverse_kl",
    "memorisation",
    "sliced_wasserstein",
)

SHOWN = 14


def runs(*, quick: bool) -> dict[str, Point]:
    """A VAE, a GAN and a Wasserstein GAN, each with the networks that it has by default; quick with small ones."""
    steps = (500, 500, 200) if quick else (10_000, 6500, 2200)
    shared = {"pictures": 0, "selection": 0} | (STEADY if quick else {})
    return {
        "VAE": of_svi(guide="amortized", steps=steps[0], **({"model": "mlp"} if quick else {})),
        "GAN": of_gan(steps=steps[1], **shared),
        "WGAN-GP": of_gan(loss="wgan-gp", steps=steps[2], **shared),
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The measures of samples of each, beside real images, and of what a likelihood does not see."""
    fit = made["VAE"].fit
    count = min(600 if quick else 10_000, len(fit.data.test))
    drawn = _drawn(fit.samples(count)) | {name: made[name].fit.samples(count) for name in ("GAN", "WGAN-GP")}
    trained = reporting(fit, classifiers=fit.folder.path.parent / "classifiers")
    found = {name: measure(images, fit.data, trained) for name, images in drawn.items()}
    found = {REAL: next(iter(found.values()))["real"]} | found
    test = made["VAE"].result["test"]
    bounds = {PIXELS: test, NOISE: test | {"elbo": test["elbo"] - math.log(KEPT)}}
    table = [
        {"samples": name}
        | {of: bounds.get(name, {}).get(of) for of in ("elbo", "elbo_se")}
        | {of: figures_of[of] for of in MEASURES if figures_of.get(of) is not None}
        | {"seconds": made[name.split(" ")[0]].result["seconds"] if name != REAL else None}
        for name, figures_of in found.items()
    ]
    real = fit.data.test.gather(torch.arange(min(SHOWN, count), device=fit.device)).x
    rows = {REAL: real} | {name: images[: len(real)] for name, images in drawn.items()}
    points = {row["samples"]: (row["recall"], row["precision"]) for row in table}
    pictures = {"samples": figures.reconstruction_rows(rows), "precision_recall": figures.precision_recall(points)}
    return Answer(table, pictures, _finding({row["samples"]: row for row in table}))


def _drawn(means: Tensor) -> dict[str, Tensor]:
    """What a VAE's samples may be: means of p(x given z), pixels drawn from it, and a mixture of these with noise."""
    generator = torch.Generator(means.device).manual_seed(1)
    pixels = torch.bernoulli(means, generator=generator)
    noise = torch.rand(means.shape, generator=generator, device=means.device)
    kept = torch.arange(len(means), device=means.device) % KEPT == 0
    return {MEANS: means, PIXELS: pixels, NOISE: torch.where(kept[:, None, None, None], pixels, noise)}


def _finding(rows: dict[str, dict[str, Any]]) -> list[str]:
    distance = "frechet_distance" if "frechet_distance" in rows[REAL] else "kernel_distance"
    called = title(distance)
    models = [row for name, row in rows.items() if name not in (REAL, NOISE)]
    order = ", ".join(f"{row['samples']} {row[distance]:.3g}" for row in sorted(models, key=lambda row: row[distance]))
    sharp, broad = (max(models, key=lambda row: row[of]) for of in ("precision", "recall"))
    pixels, noise = rows[PIXELS], rows[NOISE]
    return [
        f"The {called} from the test images: {order}; training images in their place have {rows[REAL][distance]:.3g}.",
        f"Precision is highest for {sharp['samples']} ({sharp['precision']:.2f}) and recall for {broad['samples']} "
        f"({broad['recall']:.2f}); real images have {rows[REAL]['precision']:.2f} and {rows[REAL]['recall']:.2f}.",
        f"The VAE's ELBO is {pixels['elbo']:.1f} nats; with noise in the place of 99 % of its samples the bound is at "
        f"least {noise['elbo']:.1f}, while their {called} goes from {pixels[distance]:.3g} to {noise[distance]:.3g}. "
        f"Precision gives that noise {noise['precision']:.2f} and coverage {noise['coverage']:.2f}.",
    ]
