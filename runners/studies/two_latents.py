"""What do codes of two dimensions look like beside the prior, with and without the KL term, by either kind of scale?"""

import math
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides.aggregate import elbo_split
from runners import figures
from runners.comparisons import compare_bounds
from runners.fit import Fit
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import in_words
from runners.summary import means

__all__ = ["MINUTES", "answer", "plane", "runs"]

MINUTES = (1, 8)

BETAS = {"with KL": 1.0, "without KL": 0.0}
SCALES = {"log": "log", "direct": "softplus"}
SIDE = 15
SAMPLES = 60


class Codes(NamedTuple):
    """A sample of each image's posterior, its standard deviations, `(N, 2)`, and samples of the first's, `(S, 2)`."""

    codes: Tensor
    scale: Tensor
    samples: Tensor


def runs(*, quick: bool) -> dict[str, Point]:
    """KL weights of 1 and 0 under both kinds of heads; quick with the small networks."""
    steps, networks = (700, {"model": "mlp"}) if quick else (3000, {})
    shared = {"guide": "amortized", "objective": "beta", "latents": 2, "steps": steps} | networks
    return {
        f"{term}, {scale}": of_svi(beta=beta, scale=how, **shared)
        for term, beta in BETAS.items()
        for scale, how in SCALES.items()
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The aggregated posterior of the test images, in figures and in the plane, and the plane decoded."""
    fits = {name: one.fit for name, one in made.items()}
    test = next(iter(fits.values())).data.test
    images = test.first(min(2000 if quick else 10_000, len(test)))
    shown = images.first(min(2000, len(images)))
    found = {name: _codes(fit, shown) for name, fit in fits.items()}
    table = [
        {"run": name} | _row(fit, images) | {"scale": float(found[name].scale.mean())} for name, fit in fits.items()
    ]
    labels = next(shown.in_order(len(shown))).y
    picture = figures.latent_plane(
        {name: one.codes for name, one in found.items()},
        labels=labels,
        samples={name: one.samples for name, one in found.items()},
        image=next(shown.first(1).in_order(1)).x[0],
    )
    pictures = {"two_latents": picture, "two_latents_decoded": _decoded(fits)}
    return Answer(table, pictures, _finding(table, fits, limit=math.log(len(images))))


def plane(side: int) -> Tensor:
    r"""A grid of equally likely codes under the prior, :math:`z = \Phi^{-1}(u)`, `(side², 2)`, in the order of text.

    The u are the middles of `side` equal parts of (0, 1) in each dimension (Kingma and Welling 2014, figure 4).
    """
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([first, second], -1).flatten(0, 1)


def _row(fit: Fit, images: Any) -> dict[str, float]:
    """The bound's parts, with the KL term as information of the codes and KL of the aggregated posterior."""
    with fit.aside():
        split = elbo_split(fit.model, fit.posterior, images.in_order(500))
    kl = split.mutual_information + split.marginal_kl
    parts = means(elbo=split.elbo, kl=kl, information=split.mutual_information, kl_of_all_codes=split.marginal_kl)
    left_out = ("kl_se", "information_se")  # so that the table fits a page
    return {name: value for name, value in parts.items() if name not in left_out}


def _codes(fit: Fit, images: Any) -> Codes:
    with fit.aside():
        batch = next(images.in_order(len(images)))
        posterior = fit.guide.family.distribution(fit.guide.start(batch))
        return Codes(posterior.sample(), posterior.stddev, posterior.sample((SAMPLES,))[:, 0])


def _decoded(fits: dict[str, Fit]) -> Figure:
    """The decoder's images over the plane, with and without the KL term, with log heads."""
    drawn = {}
    for term in BETAS:
        fit = fits[f"{term}, log"]
        with fit.aside():
            drawn[f"{term}: the prior's quantiles, decoded"] = fit.model.decode(plane(SIDE).to(fit.device)).mean
    return figures.panels(drawn, columns=SIDE)


def _finding(table: list[dict[str, Any]], fits: dict[str, Fit], *, limit: float) -> list[str]:
    by = {row["run"]: row for row in table}
    kept, free = by["with KL, log"], by["without KL, log"]
    count = table[0]["images"]
    heads = compare_bounds({how: fits[f"with KL, {how}"] for how in SCALES}, images=count)
    full = [f"“{row['run']}”" for row in table if limit - row["information"] < 0.5]
    said = [
        f"With the KL term all codes together are {kept['kl_of_all_codes']:.2f} nats from the prior, and an image's "
        f"posterior has a standard deviation of {kept['scale']:.3g}; without it {free['kl_of_all_codes']:.2f} nats and "
        f"{free['scale']:.3g}.",
        f"The KL term is {kept['kl']:.1f} nats an image with, {free['kl']:.1f} without; the ELBO of the test images is "
        f"{kept['elbo']:.1f} and {free['elbo']:.1f}.",
        f"With direct scales in place of their logarithms the test ELBO under the KL term is "
        f"{in_words(*heads.difference('direct'))}; without it the scales are "
        f"{by['without KL, direct']['scale']:.3g} in place of {free['scale']:.3g}.",
    ]
    if full:
        said.append(
            f"The information of {count:,} images is at most {limit:.2f} nats, and near that at {' and '.join(full)}: "
            "more images would have some of the KL of all codes as information."
        )
    return said
