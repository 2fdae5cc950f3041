"""Adversarial losses by the names that run folders call them."""

from functools import partial

from ppl_models import UsageError
from ppl_models.adversarial import (
    HINGE,
    LEAST_SQUARES,
    NON_SATURATING,
    SATURATING,
    WASSERSTEIN,
    AdversarialLoss,
    cross_entropy,
)

__all__ = ["LOSSES", "loss_of"]

LOSSES = {
    "gan": NON_SATURATING,
    "saturating": SATURATING,
    "wasserstein": WASSERSTEIN,
    "least-squares": LEAST_SQUARES,
    "hinge": HINGE,
}


def loss_of(name: str, *, fuzz: float = 0.0) -> AdversarialLoss:
    """The loss of a name, with fuzzy labels.

    Raises:
        UsageError: There is no such loss, or it has no labels.
    """
    if name not in LOSSES:
        raise UsageError(f"loss: found {name!r}, expected {', '.join(LOSSES)}")
    loss = LOSSES[name]
    if fuzz and loss.critic is not cross_entropy:
        raise UsageError(f"fuzz: found {fuzz}, but {name} has no labels")
    return loss._replace(critic=partial(cross_entropy, fuzz=fuzz)) if fuzz else loss
