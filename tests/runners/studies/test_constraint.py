"""The study of constraints: a higher target costs more KL; the price is a slope; λ follows violations."""

from itertools import pairwise
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor
from toy_study import answered

from guides import Constrained
from runners import svi
from runners.studies import constraint


def test_a_higher_target_costs_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "QUICK_TARGETS", (-25.0, -35.0))
    answer = answered("constraint", tmp_path, monkeypatch, steps=250, lr=5e-3, multiplier_lr=1e-2)
    low, high = answer.table
    assert (low["target"], high["target"]) == ("-35", "-25")  # in the order of the targets
    assert high["training_log_likelihood"] > low["training_log_likelihood"]
    assert high["kl"] > low["kl"]
    assert high["last_multiplier"] > low["last_multiplier"]
    for row in answer.table:
        short = float(row["target"]) - row["training_log_likelihood"]
        assert row["target_is"] == ("met" if abs(short) < 0.01 * 30 else "missed" if short > 0 else "passed")


def test_the_multiplier_grows_exactly_while_the_constraint_is_violated() -> None:
    fit = svi.fit(
        small.model(), small.amortized(), small.data_set(), Constrained(-42.0, lr=0.1), steps=80, batch=20, every=1
    )
    signs = {
        (now["lagrange_multiplier"] > before["lagrange_multiplier"], now["violation"] > 0)
        for before, now in pairwise(fit.history.rows)
    }
    assert signs == {(True, True), (False, False)}


def optimum(multiplier: Tensor, *, x: float = 1.3, variance: float = 0.4) -> tuple[Tensor, Tensor]:
    """Log-likelihood and KL of the best posterior for x ~ N(z, v), z ~ N(0, 1), whose precision is 1 + λ/v."""
    precision = 1 + multiplier / variance
    mean, spread = multiplier / variance * x / precision, 1 / precision
    log_likelihood = -0.5 * (torch.tensor(2 * torch.pi * variance).log() + ((x - mean) ** 2 + spread) / variance)
    return log_likelihood, 0.5 * (spread + mean**2 - 1 + precision.log())


def test_the_multiplier_is_the_price_of_a_nat() -> None:
    multiplier = torch.tensor([0.3, 0.9, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    log_likelihood, kl = optimum(multiplier)
    (rise,) = torch.autograd.grad(log_likelihood.sum(), multiplier, retain_graph=True)
    (cost,) = torch.autograd.grad(kl.sum(), multiplier)
    torch.testing.assert_close(cost / rise, multiplier.detach())
    optima = list(zip(log_likelihood.tolist(), kl.tolist(), multiplier.tolist(), strict=True))
    found = constraint.prices(optima)
    assert all(price.between for price in found)
    far = [(a, b, 10 * m) for a, b, m in optima]
    assert not any(price.between for price in constraint.prices(far))
    assert constraint.prices(optima[::-1]) == [None] * 3  # no price where nothing is bought
