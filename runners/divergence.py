"""What to say of a fit whose numbers have left the finite ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from guides.free import Rows
from guides.sites import FiniteSites
from ppl_models import UsageError
from runners.loop.history import Diverged, History

__all__ = ["check_finite", "is_divergence", "replay"]


def check_finite(*pieces: Any, step: int) -> None:
    """Refuse parameters that are not finite, so that no checkpoint holds them.

    Raises:
        Diverged: There is one.
    """
    for piece in pieces:
        # Parameters, and the tables of free rows; a user's buffers may hold infinities for a reason.
        trained = dict(piece.named_parameters()) if isinstance(piece, nn.Module) else {}
        if isinstance(piece, Rows):
            trained |= piece.state_dict()
        for name, value in trained.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise Diverged(step, name)


def is_divergence(error: Exception) -> bool:
    """Whether a step raised because a covariance is none any more, or a parameter that torch checks is not finite."""
    if isinstance(error, UsageError):
        return False
    return isinstance(error, torch.linalg.LinAlgError) or str(error).startswith("Expected parameter")


def replay(once: Callable[[], None], history: History, *, until: int) -> str:
    """Make steps again up to the one that diverged, and say at which site the first number was not finite."""
    try:
        while history.step <= until:
            with FiniteSites():
                once()
    except FloatingPointError as error:
        return f"first in {error} at step {history.step}"
    return "though every site is finite: an update"
