"""One step of variational inference, free or amortized, for the training loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from guides.free import Rows
from guides.iwae import IWAE
from guides.objectives import Objective
from guides.refine import refine
from guides.sites import At, Program
from guides.terms import Terms
from ppl_models import Batch
from runners.loop import processes

__all__ = ["InferenceStep", "evaluating"]


class InferenceStep:
    """One step of variational inference: refine the batch's parameters if the guide wants that, then descend.

    With free parameters these are the two updates of stochastic variational inference; with an encoder there is
    nothing to refine and one optimiser moves both networks; a guide that is semi-amortized has both an encoder and
    refinement. The bound that is returned uses fresh noise in every case. Of several processes each refines its own
    part of the batch, and the networks' gradients are averaged.
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
        self.refinement = getattr(guide, "refinement", None)
        self.joint = self.refinement is not None and self.refinement.joint
        self.exact = getattr(guide, "exact", False)
        # A second derivative has to pass through what IWAE's other estimators detach.
        plain = self.exact and isinstance(objective, IWAE)
        self.inner = replace(objective, gradient="plain") if plain else objective
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
        if hasattr(self.objective, "means"):
            processes.average(self.objective.means())
        if hasattr(self.objective, "after_step"):
            self.objective.after_step()
        logged = {"elbo": parts.elbo, "log_likelihood": parts.log_likelihood, "kl": parts.kl}
        if len(parts.site_kl) > 1:
            logged |= {f"kl_{name}": kl for name, kl in parts.site_kl.items()}
        more = self.objective.logged() if hasattr(self.objective, "logged") else {}
        return {"loss": loss, **{name: values.mean() for name, values in logged.items()}, **more}

    def _alternating(self, batch: Batch) -> tuple[Tensor, Terms]:
        """The batch's own parameters first, where they are refined; then the networks."""
        guide = self.guide if self.refinement is None else self.refined(batch)
        with torch.set_grad_enabled(bool(self.trained)):
            loss, parts = self.objective(self.model, guide, batch)
        self._descend(loss, [])
        return loss, parts

    def refined(self, batch: Batch) -> At:
        """The guide at its parameters for this batch after the gradient steps, which a guide with rows then keeps."""
        guide, params = self.guide, self.guide.start(batch)
        refined, memory = refine(
            self.model,
            guide,
            self.inner,
            batch,
            params,
            refinement=self.refinement,
            memory=guide.memory(batch) if self.rows else None,
            exact=self.exact,
        )
        if self.rows:
            guide.store(batch, refined, memory)
        elif not self.exact:
            # To first order the steps are a shift: the encoder gets the gradient at where they end.
            refined = {name: value + (refined[name] - value).detach() for name, value in params.items()}
        return At(guide, refined)

    def _joint(self, batch: Batch) -> tuple[Tensor, Terms]:
        """One optimiser instead of two: the batch's parameters and the rest move by one backward pass."""
        guide, rule = self.guide, self.refinement.rule
        memory = guide.memory(batch)
        visits = memory.pop("visits", None)
        params = {name: value.requires_grad_() for name, value in guide.start(batch).items()}
        loss, parts = self.objective(self.model, At(guide, params), batch)
        self._descend(loss, list(params.values()))
        with torch.no_grad():
            grads = {name: value.grad * len(batch.index) for name, value in params.items()}
            size = self.refinement.size(0, visits)
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
            processes.average_gradients(self.trained)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.trained, self.clip)
            self.optimizer.step()


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
