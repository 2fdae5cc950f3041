"""One step of a character model's training, for the training loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import reduce
from operator import add
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from guides.objectives import Schedule
from guides.sites import Program, run_program
from ppl_models import Batch, UsageError
from runners.data.text import TextStream

__all__ = ["TextStep", "log_likelihood"]


def log_likelihood(model: Program, batch: Batch) -> tuple[Tensor, Tensor]:
    """The log-density of what a model without latents observes, `(B,)`, and the state that it returns.

    Raises:
        UsageError: It samples latents, or observes nothing.
    """
    returned = []
    sites = run_program(lambda batch: returned.append(model(batch)), batch)
    latents = [name for name, site in sites.items() if not site.is_observed]
    if latents or not sites:
        raise UsageError(
            f"the model samples {', '.join(latents) or 'nothing'}, expected sites that are observed, obs=batch.x[:, 1:]"
        )
    log_prob = reduce(add, (site.log_prob((1, len(batch.index))) for site in sites.values()))
    return log_prob, returned[0]


class TextStep:
    """Descend on the nats of a batch's characters, and leave the state behind for the next batch.

    No step for a CUDA graph: the stream keeps the state in Python, and step sizes are Python numbers.

    Args:
        model: A Pyro model that observes sequences and returns its state.
        optimizer: Of its parameters.
        schedule: What the optimiser's step size is multiplied by, a function of the step n and the steps N.
        clip: The global norm that gradients are clipped to.
        autocast: Makes the context that networks run in.

    Attributes:
        stream: Where batches come from, which carries the state to the next one.
    """

    batches = 1

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Schedule | None = None,
        clip: float | None = None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.clip, self.autocast = clip, autocast
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.validate = True
        self.stream: TextStream | None = None

    def before(self, step: int, steps: int) -> None:
        """Fill in the step size."""
        if self.schedule is not None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.schedule(step, steps)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        # Pyro's and torch's own checks read tensors on the host: they see the first step only.
        with pyro.validation_enabled(self.validate), self.autocast():
            log_prob, state = log_likelihood(self.model, batch)
        self.validate = False
        # Detached there: backpropagation ends where a batch begins.
        self.stream.carry(state)
        loss = -log_prob.mean() / (batch.x.shape[1] - 1)
        self.optimizer.zero_grad()
        loss.backward()
        logged = {"nats_per_character": loss}
        if self.clip is not None:
            logged["gradient_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return logged
