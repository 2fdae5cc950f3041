"""Character models side by side: how much the same text surprises each, character by character."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from runners import figures
from runners.comparisons.base import Comparison, rows_of, with_error
from runners.text_fit import TextFit

__all__ = ["SurpriseComparison", "compare_surprise", "mean_and_block_error"]

BLOCKS = 50
"""Stretches of a text by whose means errors are estimated, at most."""

SHORTEST = 100
"""Characters of such a stretch."""


@dataclass(frozen=True, repr=False)
class SurpriseComparison(Comparison):
    """Nats of each character of the same text, and their differences from the first fit's.

    Attributes:
        nats: By the fit's name, `(characters,)`.
        seconds: For each character.
        data: The text's name.
    """

    nats: dict[str, Tensor]
    seconds: dict[str, float]
    data: str

    def difference(self, name: str) -> tuple[float, float]:
        """The mean of a fit's nats minus the first one's, character by character, and its standard error by blocks."""
        return mean_and_block_error(self.nats[name] - next(iter(self.nats.values())))

    def lines(self) -> list[str]:
        """A table."""
        first, *others = self.nats
        characters = len(self.nats[first])
        cells = [["", "nats", "bits", "µs each", f"minus {first}" if others else ""]]
        for name, values in self.nats.items():
            mean, error = mean_and_block_error(values)
            beside = "" if name == first else with_error(*self.difference(name), digits=4, sign="+")
            bits = f"{mean / math.log(2):.4f}"
            cells.append([name, with_error(mean, error, digits=4), bits, f"{1e6 * self.seconds[name]:.1f}", beside])
        blocks = _blocks(characters)
        how = (
            f"± standard errors over {blocks} blocks of {characters // blocks:,} characters, since those near each "
            "other are not independent"
            if blocks > 1
            else f"too few characters for standard errors, which need {2 * SHORTEST}"
        )
        said = f"{characters:,} characters of {self.data}'s test text, state carried, models as they are after training"
        return [f"{said}; per character", *rows_of(cells), how]

    def show(self) -> Figure:
        """Paired differences from the first fit, beside the surprise of each along the text."""
        first, *others = self.nats
        labels = {name: f"{name}\n{float(nats.mean()):.3f}" for name, nats in self.nats.items()}
        differences = {labels[name]: {"surprise": self.difference(name)} for name in others}
        blocks = max(_blocks(len(self.nats[first])), 1)
        along = {
            name: torch.stack([block.mean() for block in nats.tensor_split(blocks)]) for name, nats in self.nats.items()
        }
        return figures.surprise_along(
            {labels[first]: {}, **differences},
            along,
            unit=f"nats per character, minus {first}'s: lower is better",
            characters=len(self.nats[first]),
        )


def compare_surprise(fits: Mapping[str, TextFit]) -> SurpriseComparison:
    """Read the test text with each fit's model as it is, by name; the best one seen was chosen by that text."""
    nats, seconds = {}, {}
    for name, fit in fits.items():
        started = time.monotonic()
        nats[name] = fit.surprise(which="last").flatten().double().cpu()
        seconds[name] = (time.monotonic() - started) / len(nats[name])
    return SurpriseComparison(nats, seconds, next(iter(fits.values())).data.name)


def mean_and_block_error(values: Tensor) -> tuple[float, float]:
    r"""The mean of a series `(n,)` and its standard error by the means of blocks, not a number where there is one.

    Characters near each other depend on each other, so that :math:`s / \sqrt n` would be too small; means over
    stretches much longer than that dependence are nearly independent, and :math:`s_\text{blocks} / \sqrt B` is right
    (the batch means of simulations; for blocks Carlstein 1986, doi:10.1214/aos/1176350057).
    """
    blocks = _blocks(len(values))
    if blocks < 2:
        return float(values.mean()), float("nan")
    means = torch.stack([block.mean() for block in values.double().tensor_split(blocks)])
    return float(values.double().mean()), float(means.std() / blocks**0.5)


def _blocks(characters: int) -> int:
    return max(min(BLOCKS, characters // SHORTEST), 1)
