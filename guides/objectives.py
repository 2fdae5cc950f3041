"""What inference minimises: values `objective(model, guide, batch) → (loss, Terms)`, in nats, a mean over data.

An objective may also have `before_step(step, steps, device)`, called on the host before each training step,
`after_step()`, called after the optimiser's, `means()`, the tensors that the latter reads, which several processes
average over their parts of the batch before it, `logged()`, scalars for the history, and `remark(rows)`, a line about a
history or `None`. What changes from step to step is filled into tensors in place: a step that was recorded as a CUDA
graph sees neither new Python numbers nor new tensors. One with state of its own is an `nn.Module`, so that checkpoints
hold it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guides.sites import Program
from guides.terms import Terms, terms
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["ELBO", "Objective", "Schedule"]

Schedule = Callable[[int, int], float]
"""A number as a function of the step n and of the number of steps N."""

Objective = Callable[[Program, Program, Batch], tuple[Tensor, Terms]]


@dataclass
class ELBO:
    r"""The evidence lower bound, :math:`E_q \log p(x \mid z) - \beta\, KL(q(z \mid x) \| p(z))`.

    Kingma and Welling 2014, arXiv:1312.6114; with :math:`\beta \ne 1` Higgins et al. 2017, beta-VAE; with a schedule
    KL annealing, Bowman et al. 2016, arXiv:1511.06349. The weight acts as Pyro's scale on the latent sites.

    Free bits (Kingma et al. 2016, arXiv:1606.04934, eq. 15, each site one group) put
    :math:`\max(\lambda, \mathrm{mean}_x KL)` in place of a site's mean KL, so that the first λ nats cost nothing.

    Args:
        kl_weight: β, a number, or a function of step n and steps N, filled in by `before_step`.
        particles: Samples of the latents per datum.
        closed_form: Whether known KL divergences replace sampled ones.
        free_bits: λ, nats per latent site and datum, in spite of the name.
    """

    kl_weight: float | Schedule = 1.0
    particles: int = 1
    closed_form: bool = True
    free_bits: float = 0.0
    _scheduled: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    __repr__ = fields_repr

    def before_step(self, step: int, steps: int, device: torch.device) -> None:
        """Put the schedule's value for this step where the device finds it: the step itself reads no host numbers."""
        if callable(self.kl_weight):
            if self._scheduled is None or self._scheduled.device != device:
                self._scheduled = torch.zeros((), device=device)
            self._scheduled.fill_(self.kl_weight(step, steps))

    def logged(self) -> dict[str, Tensor]:
        """The KL weight, where it has a schedule."""
        return {"kl_weight": self._scheduled} if callable(self.kl_weight) else {}

    def __call__(self, model: Program, guide: Program, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss (the negative weighted bound, mean over particles and data) and its parts."""
        weight = self.kl_weight
        if callable(weight):
            if self._scheduled is None:
                raise UsageError("the KL weight is a schedule: call before_step(step, steps, device) first")
            weight = self._scheduled
        parts = terms(model, guide, batch, particles=self.particles, weight=weight, closed_form=self.closed_form)
        loss = (parts.scaled_kl - parts.scaled_log_likelihood).mean()
        if self.free_bits:
            # max(λ, k) = k + relu(λ - k): below λ the two gradients cancel.
            for kl in parts.site_kl.values():
                loss = loss + weight * torch.relu(self.free_bits - kl.mean())
        return loss, parts
