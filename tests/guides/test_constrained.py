import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from toys import batch_of, general_ppca, orthogonal_ppca, sampled

from guides import Constrained, Diagonal, Free
from guides.sites import At
from ppl_models import Batch, UsageError


def pair(count: int = 6) -> tuple[nn.Module, At, object]:
    model = general_ppca()
    x = sampled(model, count)
    guide = Free(count, family=Diagonal(2)).double()
    batch = batch_of(x)
    params = {name: value.clone().requires_grad_() for name, value in guide.start(batch).items()}
    return model, At(guide, params), batch


def test_the_lagrangian_and_its_multiplier() -> None:
    model, guide, batch = pair()
    objective = Constrained(-4.0)
    assert float(objective.multiplier()) == pytest.approx(1.0)
    loss, parts = objective(model, guide, batch)
    expected = parts.kl.mean() + (-4.0 - parts.log_likelihood.mean())
    torch.testing.assert_close(loss, expected)


def test_the_multiplier_ascends_as_torchs_sgd_would() -> None:
    model, guide, batch = pair()
    objective = Constrained(-4.0, lr=0.01).double()
    raw = nn.Parameter(objective.raw.clone())
    optimizer = torch.optim.SGD([raw], lr=0.01, maximize=True)
    for _ in range(5):
        _, parts = objective(model, guide, batch)
        optimizer.zero_grad()
        (nn.functional.softplus(raw) * (-4.0 - parts.log_likelihood.mean().detach())).backward()
        optimizer.step()
        objective.after_step()
        torch.testing.assert_close(objective.raw, raw.detach())
    assert float(objective.logged()["lagrange_multiplier"]) > 1.0  # the constraint is violated
    torch.testing.assert_close(objective.logged()["violation"], -4.0 - parts.log_likelihood.mean())


def test_squared_error() -> None:
    model, guide, batch = pair()
    objective = Constrained(2.0, constraint="squared_error", particles=3)
    torch.manual_seed(0)
    loss, parts = objective(model, guide, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        z = guide.guide.family.distribution(guide.params).expand((3, 6)).rsample()
    errors = (batch.x - (z @ model.weight.mT + model.bias)).square().sum(-1)
    torch.testing.assert_close(loss, parts.kl.mean() + errors.mean() - 2.0)


def test_the_moving_average_rule_by_hand() -> None:
    model, guide, batch = pair()
    objective = Constrained(-4.0, rule="moving_average", lr=0.002, decay=0.9).double()
    weighted, logarithm = 0.0, 0.0
    for step in range(1, 6):
        _, parts = objective(model, guide, batch)
        objective.after_step()
        weighted = 0.9 * weighted + 0.1 * (-4.0 - float(parts.log_likelihood.detach().mean()))
        logarithm += min(0.005, max(-0.005, 0.002 * weighted / (1 - 0.9**step)))
        assert float(objective.multiplier()) == pytest.approx(math.exp(logarithm), rel=1e-6)
    fast = Constrained(1e6, rule="moving_average", lr=1e-3)
    fast(model, guide, batch)
    fast.after_step()
    assert float(fast.multiplier()) == pytest.approx(math.exp(0.005))


@pytest.mark.parametrize("rule", ["softplus", "moving_average"])
def test_the_solution_is_the_posterior_of_a_tempered_likelihood(rule: str) -> None:
    r"""At the saddle point q minimises KL(q ‖ p) - λ E_q log p(x | z): the Gaussian of precision I + λ WᵀW / σ²."""
    model = orthogonal_ppca()
    x = sampled(model, 1)
    guide, batch = Free(1, family=Diagonal(2)).double(), batch_of(x)
    params = {name: value.clone().requires_grad_() for name, value in guide.start(batch).items()}
    program = At(guide, params)
    with torch.no_grad():
        from guides import terms

        reachable = terms(model, At(guide, {"loc": model.mean_field(x).mean, "log": params["log"] - 3}), batch)
    target = float(reachable.log_likelihood.mean()) - 1.0
    objective = Constrained(
        target, rule=rule, lr=0.02 if rule == "softplus" else 0.015, decay=0.9, particles=64
    ).double()
    optimizer = torch.optim.Adam(params.values(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=1500)
    last = []
    for step in range(1800):
        loss, parts = objective(model, program, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        objective.after_step()
        if step >= 1400:  # averages of the last steps, whose noise is not the point here
            values = (parts.log_likelihood.mean(), objective.multiplier(), params["loc"][0], params["log"][0].exp())
            last.append([value.detach().clone() for value in values])
    likelihood, multiplier, loc, scale = (torch.stack(values).mean(0) for values in zip(*last, strict=True))
    assert likelihood.item() == pytest.approx(target, abs=0.05)
    noise = model.log_variance.detach().exp()
    weight = model.weight.detach()
    precision = 1 + multiplier * weight.square().sum(0) / noise
    mean = multiplier * (x[0] - model.bias.detach()) @ weight / noise / precision
    torch.testing.assert_close(loc, mean, rtol=0, atol=0.03)
    torch.testing.assert_close(scale, precision.rsqrt(), rtol=0.05, atol=0)


def rows(likelihoods: list[float], multipliers: list[float], target: float) -> list[dict[str, float]]:
    pairs = enumerate(zip(likelihoods, multipliers, strict=True), start=1)
    return [{"step": 100 * n, "violation": target - ll, "lagrange_multiplier": m} for n, (ll, m) in pairs]


def test_a_runaway_multiplier_is_recognised_and_a_working_one_is_not() -> None:
    objective = Constrained(-60.0)
    steps = range(1, 101)
    stuck = [-80.0 - 100.0 / n for n in steps]
    line = objective.remark(rows(stuck, [2.0 * n for n in steps], -60.0))
    assert line is not None
    assert "-60" in line
    assert "-81.00" in line  # the best value seen
    reached = [-60.0 - 100.0 * 0.9**n for n in steps]
    assert objective.remark(rows(reached, [40 - 0.3 * n for n in steps], -60.0)) is None
    assert objective.remark(rows(stuck[:10], [2.0 * n for n in range(10)], -60.0)) is None
    # Violated, with a rising multiplier, but closing in.
    assert objective.remark(rows([-160.0 + n for n in steps], [30 + n for n in steps], -60.0)) is None


def test_squared_error_of_scalar_observations_is_per_datum() -> None:
    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(batch.x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(0.0 * z, 1.0), obs=batch.x)

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(batch.x, 1.0))

    batch = batch_of(torch.randn(50))
    objective = Constrained(0.0, constraint="squared_error")
    objective(model, guide, batch)
    torch.testing.assert_close(objective.violation, batch.x.square().mean())


def test_bad_settings_are_refused() -> None:
    for settings in ({"initial": 0.0}, {"decay": 1.0}, {"target": -1.0, "constraint": "squared_error"}):
        with pytest.raises(UsageError, match="expected a squared error"):
            Constrained(**settings)
    with pytest.raises(UsageError, match="squared_error"):
        Constrained(constraint="l2")
