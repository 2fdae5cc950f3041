"""Sets of vectors, as measures of generated data take them."""

import torch
from torch import Tensor

from ppl_models import UsageError

__all__ = ["AT_ONCE", "equal_counts", "vectors"]

AT_ONCE = 1_000_000
"""Numbers at a time: no more are faster, since these stay in the caches."""


def vectors(name: str, *sets: Tensor, dtype: torch.dtype | None = torch.float64) -> list[Tensor]:
    """The sets as `(N, d)` in one dtype, by default float64, once they are seen to be finite vectors of one length.

    With `dtype=None` the sets stay as they are, in no less than float32.
    """
    for x in sets:
        if x.dim() < 2 or not x.is_floating_point() or not x.numel():
            raise UsageError(f"{name}: found {x.dtype} {tuple(x.shape)}, expected floating-point numbers (N, …)")
        if x[0].numel() != sets[0][0].numel():
            raise UsageError(f"{name}: found data of {x[0].numel()} and of {sets[0][0].numel()} numbers, expected one")
        if not torch.stack(x.aminmax()).isfinite().all():  # which hand on NaN
            raise UsageError(f"{name}: found numbers that are not finite")
    if dtype is None:
        dtype = torch.float32
        for x in sets:
            dtype = torch.promote_types(dtype, x.dtype)
    return [x.detach().flatten(1).to(dtype) for x in sets]


def equal_counts(name: str, a: Tensor, b: Tensor) -> int:
    """How many data each of two sets has, refused where that differs."""
    if len(a) != len(b):
        raise UsageError(f"{name}: found {len(a)} and {len(b)} data, expected as many of each")
    return len(a)
