"""Gradient steps on the variational parameters of one batch: the inner loop of SVI, with everything else frozen."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guides.objectives import Objective
from guides.rules import Adam, RowRule
from guides.sites import At, Params, Program
from ppl_models.batch import Batch, UsageError

__all__ = ["Refinement", "refine"]


@dataclass(frozen=True)
class Refinement:
    """How the variational parameters of a batch are refined at each visit.

    The defaults trained free parameters best on MNIST of those that were tried: a row's moments wait for its next
    visit, so that its steps have the right size at once, and step sizes fall to a tenth within a visit, which averages
    its noise away.

    Args:
        steps: Gradient steps per visit.
        rule: The optimiser, `Adam(...)` or `SGD(...)`.
        final: The fraction of the step size that is left at the last of the steps.
        decay: Step sizes are divided by (1 + earlier visits) to this power.
        keep_moments: Whether a datum's moments wait for its next visit; else each visit starts without.
        joint: One optimiser instead of two: a single step, taken from the same backward pass as the model's.
    """

    steps: int = 10
    rule: RowRule = Adam()
    final: float = 0.1
    decay: float = 0.7
    keep_moments: bool = True
    joint: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.joint and self.steps != 1):
            raise UsageError(f"Refinement: {self.steps} steps, expected 1 or more, and 1 with joint=True")

    def size(self, step: int, visits: Tensor | None) -> Tensor | float:
        """The factor on the rule's step size, `(batch,)` where visits are counted."""
        within = 1 - (1 - self.final) * step / max(self.steps - 1, 1)
        return within if visits is None or not self.decay else within * (1 + visits) ** -self.decay


def refine(
    model: Program,
    guide: Any,
    objective: Objective,
    batch: Batch,
    params: Params,
    *,
    refinement: Refinement,
    memory: Params | None = None,
    exact: bool = False,
) -> tuple[Params, Params]:
    """Take gradient steps on `params`, everything else frozen.

    Args:
        model: The Pyro model.
        guide: A guide with `sample(batch, params)`.
        objective: What is minimised; its loss is a mean over the batch, its gradient here a datum's own.
        batch: The batch.
        params: Where to start, one row per datum; what is no floating-point number, such as a label, stays as it is.
        refinement: How many steps, by which rule.
        memory: What an earlier visit left: `visits`, and moments where they are kept.
        exact: Whether the result can be differentiated with respect to the start and the model, through the steps;
            else it is detached.

    Returns:
        The refined parameters and the memory for the next visit.
    """
    fixed = {name: value for name, value in params.items() if not value.is_floating_point()}
    params = {name: value for name, value in params.items() if name not in fixed}
    memory = dict(memory or {})
    visits = memory.pop("visits", None)
    moments = memory or refinement.rule.start(params)
    with torch.enable_grad():
        for step in range(refinement.steps):
            params = {
                name: value if exact and value.requires_grad else value.detach().requires_grad_()
                for name, value in params.items()
            }
            loss, _ = objective(model, At(guide, params | fixed), batch)
            # The gradient of the batch's SUM: a datum's step must not depend on how many others are beside it.
            grads = torch.autograd.grad(
                loss * len(batch.index), list(params.values()), create_graph=exact, materialize_grads=True
            )
            with torch.set_grad_enabled(exact):
                params, moments = refinement.rule.update(
                    params, dict(zip(params, grads, strict=True)), moments, refinement.size(step, visits)
                )
    memory = dict(moments) if refinement.keep_moments else {}
    if visits is not None:
        memory["visits"] = visits + 1
    return params | fixed, memory
