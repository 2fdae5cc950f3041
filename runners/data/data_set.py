"""The splits of a data set, and the ways of making grey pixels binary."""

from dataclasses import dataclass, replace

import torch

from ppl_models.batch import UsageError
from runners.data.images import Images
from runners.data.text import Text

__all__ = ["BINARISATIONS", "DataSet", "binarized"]

BINARISATIONS = ("none", "threshold", "stochastic", "static")


@dataclass(frozen=True, eq=False, repr=False)
class DataSet:
    """A named data set, of images or a text.

    Attributes:
        name: What results call it.
        train: What to fit.
        valid: What to choose by, or `None`.
        test: What to report on.
        binarize: Of images, one of `BINARISATIONS`, or "fixed" where the files themselves are binary.
    """

    name: str
    train: Images | Text
    valid: Images | Text | None
    test: Images | Text
    binarize: str = "none"

    def __repr__(self) -> str:
        valid = "" if self.valid is None else f" + {len(self.valid):,} valid"
        counts = f"{len(self.train):,} train{valid} + {len(self.test):,} test"
        binary = "" if self.binarize == "none" else f", binarize {self.binarize}"
        return f"DataSet({self.name}: {counts} {self.train.kind}{binary}, on {self.train.device})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.train.shape

    def to(self, device: torch.device | str) -> "DataSet":
        """Return this data set with every split on `device`."""
        valid = None if self.valid is None else self.valid.to(device)
        return replace(self, train=self.train.to(device), valid=valid, test=self.test.to(device))


def binarized(data: DataSet, how: str, *, seed: int) -> DataSet:
    """Return the data set with binary pixels, or as it is where `how` is "none".

    "threshold" is 1 above one half. "static" draws every pixel once, from `seed`, its grey value the probability.
    "stochastic" is static on what is measured (valid and test) but drawn anew for each batch of the training split.

    Raises:
        UsageError: `how` is none of `BINARISATIONS`.
    """
    if how not in BINARISATIONS:
        raise UsageError(f"--binarize: found {how!r}, expected one of {', '.join(BINARISATIONS)}")
    splits = {name: getattr(data, name) for name in ("train", "valid", "test")}
    # A generator for each split: the test images stay the same whatever is kept for training.
    for part, (name, images) in enumerate(splits.items()):
        if images is None or how == "none":
            continue
        if how == "stochastic" and name == "train":
            splits[name] = replace(images, fresh=True)
        elif how == "threshold":
            splits[name] = replace(images, pixels=(images.pixels > 127).to(torch.uint8) * 255)
        else:
            splits[name] = images.drawn_once(seed=3 * seed + part)
    return replace(data, **splits, binarize=how)
