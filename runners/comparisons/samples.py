"""Generators side by side, GANs and models with a guide: samples measured by the same classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from runners import figures
from runners.comparisons.base import Comparison
from runners.data import head
from runners.fit import Fit, settled
from runners.gan_fit import GanFit
from runners.metrics.measures import table
from runners.sample_quality import reporting, sample_quality, several

__all__ = ["SampleComparison", "compare_samples"]

IMAGES = 10_000
"""Samples of each, if nothing else is said and there are as many images."""

SHOWN = 10
"""Of these in the picture."""


@dataclass(frozen=True, repr=False)
class SampleComparison(Comparison):
    """Measures of several fits' samples beside those of real images; its repr is a Markdown table.

    Attributes:
        figures: By the fit's name, what `runners.metrics.measures.measure` says of its samples.
        samples: A few of them, `(N, C, H, W)`, after as many test images.
    """

    figures: dict[str, dict[str, Any]]
    samples: dict[str, Tensor]

    def lines(self) -> list[str]:
        """A table."""
        return table(several(list(self.figures.items())))

    def show(self) -> Figure:
        """Samples of each fit in a row, below test images."""
        return figures.reconstruction_rows(self.samples)


def compare_samples(
    fits: Mapping[str, Fit | GanFit], *, images: int | None = None, classifiers: Path | None = None
) -> SampleComparison:
    """Measure samples of fits, by name, in the features of one classifier, trained on the first fit's data.

    Args:
        fits: The fits, on data with the same test images.
        images: Samples of each, and real images, by default 10 000 or as many as there are.
        classifiers: Where the classifier is kept; by default it is trained anew.
    """
    first = next(iter(fits.values()))
    test = first.data.test
    count = min(images or IMAGES, len(test), *(len(fit.data.train) for fit in fits.values()))
    trained = reporting(first, classifiers=classifiers)
    shown = head(settled(test), SHOWN).x
    found, samples = {}, {"test images": shown.cpu()}
    for name, fit in fits.items():
        found[name] = sample_quality(fit, images=count, trained=trained)
        samples[name] = fit.samples(len(shown)).cpu()
    return SampleComparison(found, samples)
