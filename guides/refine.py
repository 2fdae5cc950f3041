"""Gradient steps on the variational parameters of one batch: the inner loop of SVI, with everything else frozen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from guides.objectives import Objective
from guides.sites import Program
from ppl_models.batch import Batch, UsageError

__all__ = ["SGD", "Adam", "At", "Params", "Refinement", "RowRule", "Rows", "refine", "stopped"]

Params = dict[str, Tensor]
"""Variational parameters, or what an optimiser keeps for them, by name; one row per datum, `(batch, *)`."""


@runtime_checkable
class Rows(Protocol):
    """A guide that keeps parameters of its own for each datum, as `Free` does."""

    refinement: "Refinement"

    def check_rows(self, index: Tensor, *, batch: int) -> None:
        """Refuse data without a row; called once, on the host, before training."""

    def start(self, batch: Batch) -> "Params":
        """The rows of a batch, where training left them."""

    def fresh(self, batch: Batch) -> "Params":
        """Rows for data that have none."""

    def memory(self, batch: Batch) -> "Params":
        """What earlier visits to these rows left: visits and moments."""

    def store(self, batch: Batch, params: "Params", memory: "Params") -> None:
        """Put refined rows and their memory back."""


@dataclass(frozen=True, eq=False)
class At:
    """A guide at given parameters: the program `guide.sample(batch, params)`."""

    guide: Any
    params: Params

    def __call__(self, batch: Batch) -> Any:
        return self.guide.sample(batch, self.params)


@contextmanager
def stopped(program: Program) -> Iterator[Program]:
    """A guide whose densities, computed inside, take gradients to the sampled values but to nothing of its own.

    Detaching its variational parameters would not do: a flow's weights are in its density as well.

    Raises:
        UsageError: It is neither a module nor a module at given parameters.
    """
    guide = program.guide if isinstance(program, At) else program
    if not isinstance(guide, nn.Module):
        raise UsageError(
            f"the guide is {type(guide).__name__}, not a module: its own parameters cannot be told from its samples, "
            "as this gradient estimator needs"
        )
    own = [parameter for parameter in guide.parameters() if parameter.requires_grad]
    for parameter in own:
        parameter.requires_grad_(False)
    try:
        yield At(guide, {k: v.detach() for k, v in program.params.items()}) if isinstance(program, At) else program
    finally:
        for parameter in own:
            parameter.requires_grad_()


class RowRule(Protocol):
    """An optimiser whose state and step size belong to single rows, so that a datum's steps touch only its own."""

    def start(self, params: Params) -> Params:
        """The moments before the first step."""

    def update(self, params: Params, grads: Params, moments: Params, size: Tensor | float) -> tuple[Params, Params]:
        """Parameters and moments after one descent step; `size`, `(batch,)` or a number, scales the rule's `lr`."""


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum; `lr` is per datum (a step on the batch mean of B data has lr / B).

    With `clip`, a datum's gradient, of all its parameters together, is at most that long.
    """

    lr: float = 1e-3
    momentum: float = 0.0
    clip: float | None = None

    def start(self, params: Params) -> Params:
        if not self.momentum:
            return {}
        return {f"{name}_momentum": torch.zeros_like(value) for name, value in params.items()}

    def update(self, params: Params, grads: Params, moments: Params, size: Tensor | float) -> tuple[Params, Params]:
        if self.clip is not None:
            squares = sum(grad.flatten(1).square().sum(1) for grad in grads.values())
            # Inside the root, so that a gradient of 0 has a derivative.
            shorter = (self.clip / (squares + 1e-12).sqrt()).clamp(max=1.0)
            grads = {name: _by_row(shorter, grad) * grad for name, grad in grads.items()}
        if self.momentum:
            grads = {name: self.momentum * moments[f"{name}_momentum"] + grad for name, grad in grads.items()}
            moments = {f"{name}_momentum": grad for name, grad in grads.items()}
        return {name: value - self.lr * _by_row(size, value) * grads[name] for name, value in params.items()}, moments


@dataclass(frozen=True)
class Adam:
    """Adam with a count of steps per row (Kingma and Ba 2015, arXiv:1412.6980).

    A table under a dense Adam would keep moving rows that are not in the batch, by their momentum.
    """

    lr: float = 0.5
    betas: tuple[float, float] = (0.7, 0.99)
    eps: float = 1e-8

    def start(self, params: Params) -> Params:
        rows = next(iter(params.values()))
        moments = {"count": rows.new_zeros(len(rows))}
        for name, value in params.items():
            moments[f"{name}_first"] = torch.zeros_like(value)
            moments[f"{name}_second"] = torch.zeros_like(value)
        return moments

    def update(self, params: Params, grads: Params, moments: Params, size: Tensor | float) -> tuple[Params, Params]:
        beta1, beta2 = self.betas
        count = moments["count"] + 1
        step, root = self.lr * size / (1 - beta1**count), (1 - beta2**count).sqrt()
        updated, kept = {}, {"count": count}
        for name, value in params.items():
            first = torch.lerp(grads[name], moments[f"{name}_first"], beta1)
            second = torch.lerp(grads[name].square(), moments[f"{name}_second"], beta2)
            step_size, scale = _by_row(step, value), _by_row(root, value)
            updated[name] = value - step_size * first / (second.sqrt() / scale + self.eps)
            kept[f"{name}_first"], kept[f"{name}_second"] = first, second
        return updated, kept


def _by_row(size: Tensor | float, values: Tensor) -> Tensor | float:
    """A number per row, `(batch,)`, made to multiply `values`, `(batch, *)`."""
    return size.view(-1, *[1] * (values.dim() - 1)) if isinstance(size, Tensor) else size


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
        params: Where to start, one row per datum.
        refinement: How many steps, by which rule.
        memory: What an earlier visit left: `visits`, and moments where they are kept.
        exact: Whether the result can be differentiated with respect to the start and the model, through the steps;
            else it is detached.

    Returns:
        The refined parameters and the memory for the next visit.
    """
    memory = dict(memory or {})
    visits = memory.pop("visits", None)
    moments = memory or refinement.rule.start(params)
    with torch.enable_grad():
        for step in range(refinement.steps):
            params = {
                name: value if exact and value.requires_grad else value.detach().requires_grad_()
                for name, value in params.items()
            }
            loss, _ = objective(model, At(guide, params), batch)
            # The gradient of the batch's SUM: a datum's step must not depend on how many others are beside it.
            grads = torch.autograd.grad(loss * len(batch.index), list(params.values()), create_graph=exact)
            with torch.set_grad_enabled(exact):
                params, moments = refinement.rule.update(
                    params, dict(zip(params, grads, strict=True)), moments, refinement.size(step, visits)
                )
    memory = dict(moments) if refinement.keep_moments else {}
    if visits is not None:
        memory["visits"] = visits + 1
    return params, memory
