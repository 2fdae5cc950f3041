"""One step of variational inference, free or amortized, for the training loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from guides.objectives import Objective, Terms
from guides.refine import Rows, refine
from guides.sites import Program
from ppl_models import Batch

__all__ = ["InferenceStep", "evaluating"]


class InferenceStep:
    """One step of variational inference: refine the batch's parameters if the guide wants that, then descend.

    With free parameters these are the two updates of stochastic variational inference; with an encoder there is
    nothing to refine and one optimiser moves both networks. The bound that is returned uses fresh noise either way.
    """

    batches = 1

    def __init__(
        self,
        model: Program,
        guide: Program,
        objective: Objective,
        optimizer: torch.optim.Optimizer | None,
        *,
        clip: float | None = None,
        autocast: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
    ) -> None:
        self.model, self.guide, self.objective, self.optimizer = model, guide, objective, optimizer
        self.clip, self.autocast, self.device = clip, autocast, device
        self.trained = [p for group in optimizer.param_groups for p in group["params"]] if optimizer else []
        self.rows = isinstance(guide, Rows)
        self.joint = self.rows and guide.refinement.joint
        self.validate = True

    def before(self, step: int, steps: int) -> None:
        """Fill in the objective's schedule, if it has one."""
        if hasattr(self.objective, "before_step"):
            self.objective.before_step(step, steps, self.device)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        # Pyro's and torch's own checks read tensors on the host: they see the first step only.
        with pyro.validation_enabled(self.validate), self.autocast():
            loss, parts = self._joint(batch) if self.joint else self._alternating(batch)
        self.validate = False
        return {
            "loss": loss,
            "elbo": parts.elbo.mean(),
            "log_likelihood": parts.log_likelihood.mean(),
            "kl": parts.kl.mean(),
        }

    def _alternating(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The batch's own parameters first, with everything else frozen; then the rest."""
        guide = self.guide
        if self.rows:
            params, memory = guide.start(batch), guide.memory(batch)
            params, memory = refine(
                self.model, guide.sample, self.objective, batch, params, refinement=guide.refinement, memory=memory
            )
            guide.store(batch, params, memory)
            guide = partial(_sampled, guide, params)
        with torch.set_grad_enabled(bool(self.trained)):
            loss, parts = self.objective(self.model, guide, batch)
        self._descend(loss, [])
        return loss, parts

    def _joint(self, batch: Batch) -> tuple[Tensor, Terms]:
        """One optimiser instead of two: the batch's parameters and the rest move by one backward pass."""
        guide, rule = self.guide, self.guide.refinement.rule
        memory = guide.memory(batch)
        visits = memory.pop("visits", None)
        params = {name: value.requires_grad_() for name, value in guide.start(batch).items()}
        loss, parts = self.objective(self.model, partial(_sampled, guide, params), batch)
        self._descend(loss, list(params.values()))
        with torch.no_grad():
            grads = {name: value.grad * len(batch.index) for name, value in params.items()}
            size = guide.refinement.size(0, visits)
            params, moments = rule.update(params, grads, memory or rule.start(params), size)
        kept = moments if memory else {}
        guide.store(batch, params, kept if visits is None else kept | {"visits": visits + 1})
        return loss, parts

    def _descend(self, loss: Tensor, leaves: list[Tensor]) -> None:
        if self.trained or leaves:
            for parameter in self.trained:
                parameter.grad = None
            loss.backward(inputs=[*self.trained, *leaves])
        if self.trained:
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.trained, self.clip)
            self.optimizer.step()


def _sampled(guide: Program, params: dict[str, Tensor], batch: Batch) -> Any:
    return guide.sample(batch, params)


@contextmanager
def evaluating(*programs: Program) -> Iterator[None]:
    """Put modules in eval mode for a while, so that neither dropout nor running statistics move."""
    modules = [module for program in programs if isinstance(program, nn.Module) for module in program.modules()]
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
