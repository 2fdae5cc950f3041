"""The one argument of every model and every guide."""

from typing import Any, NamedTuple

from torch import Tensor

from ppl_models.reprs import fields_repr

__all__ = ["Batch", "UsageError"]


class Batch(NamedTuple):
    """What a model or a guide may look at; taking exactly this is what makes them interchangeable.

    Attributes:
        x: Observations, `(B, *event)`; images are `(B, C, H, W)` in [0, 1]. `None` means: sample them.
        y: Labels, `(B,)`, or `None`.
        index: Which data these are, `(B,)`, unique across the splits of a data set; `len(index)` is the plate's size.
        state: What a sequence model carries from batch to batch, or `None`.
    """

    x: Tensor | None
    y: Tensor | None
    index: Tensor
    state: Any = None

    __repr__ = fields_repr


class UsageError(ValueError):
    """Something that a person gave is wrong; the message is one line: what, what was found, what was expected.

    Commands print it and exit with code 2; every other exception is a defect and keeps its traceback.
    """
