"""Fits of a model and a guide side by side: bounds of the same images on the same noise."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from guides.echo import echo_of
from guides.free import Rows
from runners import figures
from runners.comparisons.base import Comparison, rows_of, with_error
from runners.data import head
from runners.fit import Fit, settled
from runners.pictures import reconstructions
from runners.summary import mean_and_error

__all__ = ["BoundComparison", "compare_bounds"]

IMAGES = 1000
"""Test images, if nothing else is said."""

SHOWN = 10
"""Of these in the picture."""


@dataclass(frozen=True, repr=False)
class BoundComparison(Comparison):
    """Bounds of several fits on the same images, and their differences from the first, in nats per image.

    Attributes:
        elbo: The bound of each image by the fit's name, `(images,)`.
        log_likelihood: Its reconstruction term, E_q log p(x given z), likewise.
        kl: Its KL term likewise.
        seconds: What inference and the bound took for each image.
        echo: Those whose bound is about the marginal of their own codes as the prior.
        reconstructions: Of the first images, `(N, C, H, W)` by the fit's name, after the images themselves; none where
            they cannot be drawn.
    """

    elbo: dict[str, Tensor]
    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]
    seconds: dict[str, float]
    echo: tuple[str, ...] = ()
    reconstructions: dict[str, Tensor] = field(default_factory=dict)

    def difference(self, name: str) -> tuple[float, float]:
        """The mean of a fit's bound minus the first one's, image by image, and its standard error."""
        return _difference(self.elbo, name)

    def lines(self) -> list[str]:
        """A table."""
        first, *others = self.elbo
        cells = [["", "ELBO", "log p(x|z)", "KL", "ms/image", f"minus {first}" if others else ""]]
        for name in self.elbo:
            parts = [with_error(*mean_and_error(self.elbo[name]))]
            parts += [f"{float(values[name].mean()):.2f}" for values in (self.log_likelihood, self.kl)]
            beside = "" if name == first else with_error(*self.difference(name), sign="+")
            cells.append([name, *parts, f"{1e3 * self.seconds[name]:.2f}", beside])
        said = [f"{len(self.elbo[first]):,} images, nats per image", *rows_of(cells)]
        return said + [
            f"{name}: Echo's bound has the marginal of its codes as prior, not the model's" for name in self.echo
        ]

    def show(self) -> Figure:
        """Paired differences from the first fit, with those of both terms, beside the reconstructions of each."""
        first, *others = self.elbo
        minus_kl = {name: -kl for name, kl in self.kl.items()}
        terms = {"ELBO": self.elbo, "log p(x given z)": self.log_likelihood, "−KL": minus_kl}
        differences = {name: {term: _difference(values, name) for term, values in terms.items()} for name in others}
        labels = {name: f"{name}\n{float(elbo.mean()):.2f}" for name, elbo in self.elbo.items()}
        images = {labels.get(name, name): x for name, x in self.reconstructions.items()}
        if images and not others:
            return figures.reconstruction_rows(images)
        return figures.differences(
            {labels[first]: {}, **{labels[name]: found for name, found in differences.items()}},
            unit=f"nats per image, minus {first}'s: higher is better",
            images=images,
        )


def compare_bounds(
    fits: Mapping[str, Fit], *, images: int | None = None, updates: int | None = None
) -> BoundComparison:
    """Evaluate fits, by name, on the first test images with the same noise.

    Args:
        fits: The fits; free parameters start from the prior and are refined, on noise that is not used again.
        images: How many test images, by default 1000.
        updates: Gradient steps for free parameters, by default 200; semi-amortized guides have their own.
    """
    test = next(iter(fits.values())).data.test
    chosen = test.first(min(images or IMAGES, len(test)))
    found, seconds = {}, {}
    for name, fit in fits.items():
        started = time.monotonic()
        parts = fit.bounds(chosen, updates=_updates(fit, updates))
        found[name] = [values.double().cpu() for values in (parts.elbo, parts.log_likelihood, parts.kl)]  # waits
        seconds[name] = (time.monotonic() - started) / len(chosen)
    echo = tuple(name for name, fit in fits.items() if echo_of(fit.guide) is not None)
    elbo, log_likelihood, kl = ({name: parts[i] for name, parts in found.items()} for i in range(3))
    return BoundComparison(elbo, log_likelihood, kl, seconds, echo, _reconstructions(fits, chosen, updates))


def _updates(fit: Fit, updates: int | None) -> int | None:
    return updates if isinstance(fit.guide, Rows) else None


def _reconstructions(fits: Mapping[str, Fit], images: Any, updates: int | None) -> dict[str, Tensor]:
    """The first images, and what each fit makes of them."""
    batch = head(settled(images), SHOWN)
    drawable = batch.x.dim() == 4 and batch.x.shape[1] in (1, 3)
    if not drawable or not all(hasattr(fit.model, "decode") for fit in fits.values()):
        return {}
    found = {"test images": batch.x.cpu()}
    return found | {
        name: reconstructions(fit, batch, updates=_updates(fit, updates)).cpu() for name, fit in fits.items()
    }


def _difference(values: Mapping[str, Tensor], name: str) -> tuple[float, float]:
    return mean_and_error(values[name] - next(iter(values.values())))
