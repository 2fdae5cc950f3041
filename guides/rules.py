"""Optimisers whose state and step size belong to single rows, so that a datum's steps touch only its own."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from guides.sites import Params

__all__ = ["SGD", "Adam", "RowRule"]


class RowRule(Protocol):
    """An optimiser of rows."""

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
