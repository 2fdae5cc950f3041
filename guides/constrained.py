"""Constrained optimisation: the least KL that reaches a reconstruction target, by a Lagrange multiplier."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn
from torch.nn.functional import softplus

from guides.sites import Program
from guides.terms import Terms, run_pair, terms_of
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import arguments_repr

__all__ = ["Constrained"]

CLIP = 0.005
"""The largest step of log λ by the moving average: one of exp(± 0.1) in 20 steps."""


class Constrained(nn.Module):
    r"""Least KL under a constraint: minimise :math:`KL + \lambda\, v` while :math:`\lambda \ge 0` maximises it.

    The violation v is :math:`t - E_q \log p(x \mid z)`, or with squared errors :math:`E_q \|x - \hat x\|^2 - t`. The
    multiplier moves after each optimiser step, by the violation of the same forward pass:

    - `"softplus"`: :math:`\lambda = \mathrm{softplus}(a)`, gradient ascent on a with step size `lr`;
    - `"moving_average"`: :math:`\log \lambda \mathrel{+}= \mathrm{clip}(\mathrm{lr} \cdot \bar v, \pm 0.005)`, with
      :math:`\bar v` the moving average of the violation (Rezende and Viola 2018, arXiv:1810.00597; the clip keeps a
      bad start from carrying λ away).

    Args:
        target: t, in nats per datum, or in squared units per datum.
        constraint: What is constrained.
        rule: How the multiplier moves.
        lr: Its step size, by default 1e-3, the course's, or 3e-4 for the moving average.
        initial: Where it starts.
        decay: Of the moving average.
        particles: Samples of the latents per datum.
    """

    def __init__(
        self,
        target: float = -90.0,
        *,
        constraint: Literal["log_likelihood", "squared_error"] = "log_likelihood",
        rule: Literal["softplus", "moving_average"] = "softplus",
        lr: float | None = None,
        initial: float = 1.0,
        decay: float = 0.99,
        particles: int = 1,
    ) -> None:
        super().__init__()
        if constraint not in ("log_likelihood", "squared_error") or rule not in ("softplus", "moving_average"):
            raise UsageError(
                f"Constrained: found {constraint!r} and {rule!r}, expected log_likelihood or squared_error, and "
                "softplus or moving_average"
            )
        if not (initial > 0 and 0 <= decay < 1) or (constraint == "squared_error" and target < 0):
            raise UsageError(
                f"Constrained: found target {target:g}, initial {initial:g} and decay {decay:g}, expected a squared "
                "error from 0 on, a multiplier above 0 and a decay from 0 to below 1"
            )
        self.target, self.constraint, self.rule = target, constraint, rule
        self.lr, self.initial, self.decay, self.particles = lr, initial, decay, particles
        self.step_size = lr if lr is not None else 1e-3 if rule == "softplus" else 3e-4
        raw = math.log(math.expm1(initial)) if rule == "softplus" else math.log(initial)
        self.register_buffer("raw", torch.tensor(raw))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("violation", torch.zeros(()), persistent=False)
        self.register_buffer("updates", torch.zeros(()))

    extra_repr = arguments_repr

    def multiplier(self) -> Tensor:
        """λ, a scalar."""
        return softplus(self.raw) if self.rule == "softplus" else self.raw.exp()

    def forward(self, model: Program, guide: Program, batch: Batch) -> tuple[Tensor, Terms]:
        """The Lagrangian, mean over the batch, and the parts of the bound."""
        inferred, generated = run_pair(model, guide, batch, particles=self.particles)
        parts = terms_of(inferred, generated, shape=(self.particles, len(batch.index)))
        if self.constraint == "log_likelihood":
            violation = self.target - parts.scaled_log_likelihood.mean()
        else:
            observed = [site for site in generated.values() if site.is_observed]
            errors = [sum_rightmost((site.value - site.fn.mean).square(), site.fn.event_dim) for site in observed]
            violation = sum(error.mean() for error in errors) - self.target
        self.violation = violation.detach().to(self.raw.dtype)
        return parts.scaled_kl.mean() + self.multiplier() * violation, parts

    def means(self) -> list[Tensor]:
        """What the last forward pass found of its batch, and the multiplier is to move by: the violation."""
        return [self.violation]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the multiplier by the violation that the last forward pass found."""
        self.updates += 1
        self.average.lerp_(self.violation, 1 - self.decay)
        if self.rule == "softplus":
            # The ascent step on a: the derivative of softplus is the logistic function.
            self.raw += self.step_size * self.violation * self.raw.sigmoid()
        else:
            self.raw += (self.step_size * self._average()).clamp(-CLIP, CLIP)

    def logged(self) -> dict[str, Tensor]:
        """The multiplier as it stands, the violation that moved it, and its average where the rule has one."""
        found = {"lagrange_multiplier": self.multiplier(), "violation": self.violation}
        return found if self.rule == "softplus" else found | {"violation_average": self._average()}

    def _average(self) -> Tensor:
        return self.average / (1 - self.decay**self.updates)

    def remark(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """One line where the multiplier runs away because the target is out of reach, judging by logged rows.

        So it seems where the violation, more than 1 % of the target, has shrunk by less than what is left of it since
        half of the steps ago, while the multiplier has risen, to more than ten times where it started.
        """
        if len(rows) < 20:
            return None
        tenth, half = len(rows) // 10, len(rows) // 2
        now, then = _means(rows[-tenth:]), _means(rows[half - tenth : half])
        left = now["violation"]
        running = now["lagrange_multiplier"] > max(then["lagrange_multiplier"], 10 * self.initial)
        if not running or left < 0.01 * abs(self.target) or then["violation"] - left > left:
            return None
        best = min(row["violation"] for row in rows)
        if self.constraint == "log_likelihood":
            left, best = self.target - left, self.target - best
        else:
            left, best = self.target + left, self.target + best
        what = self.constraint.replace("_", " ")
        return (
            f"the target {self.target:g} seems out of reach: {what} {left:.2f} at step {rows[-1]['step']:,.0f}, best "
            f"{best:.2f}, while the multiplier runs away, now {now['lagrange_multiplier']:.1f}"
        )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in ("violation", "lagrange_multiplier")}
