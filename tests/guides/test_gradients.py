"""Estimators of the ELBO's gradient against closed forms for a Gaussian q and a quadratic log p, and against Pyro's."""

from functools import partial

import pyro
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from toys import batch_of, general_ppca, sampled

from guides import Amortized, Diagonal
from guides.gradients import ESTIMATORS, elbo_gradient, moments
from ppl_models import PPCA, Batch, MLPEncoder, UsageError

DRAWS = 200_000
OFF, LOG = 0.7, 0.4
"""How far q = N(μ, s²) is from the posterior N(m, v): d = μ - m, and log s² / v over two."""


class Same(nn.Module):
    """A diagonal guide with parameters of its own, alike, for each datum: the rows of its gradient are draws."""

    def __init__(self, loc: Tensor, log: Tensor, count: int) -> None:
        super().__init__()
        self.family = Diagonal(1)
        self.loc, self.log = (nn.Parameter(value.expand(count, 1).clone()) for value in (loc, log))

    def start(self, batch: Batch) -> dict[str, Tensor]:
        return {"loc": self.loc, "log": self.log}

    def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
        with pyro.plate("data", len(batch.index)):
            return pyro.sample("z", self.family.distribution(params))

    def forward(self, batch: Batch) -> Tensor:
        return self.sample(batch, self.start(batch))


@pytest.fixture(scope="module")
def pair() -> dict[str, object]:
    """A model of one latent and one feature, many times the same datum, and a guide off its posterior."""
    model = PPCA(torch.tensor([[1.3]], dtype=torch.float64), variance=0.5)
    x = torch.full((DRAWS, 1), 0.9, dtype=torch.float64)
    posterior = model.posterior(x[:1])
    v = float(posterior.covariance_matrix.detach())
    loc, log = posterior.mean.detach() + OFF, posterior.stddev.log().detach() + LOG
    evidence = float(model.evidence(x[:1]).detach())
    return {"model": model, "guide": Same(loc, log, DRAWS), "batch": batch_of(x), "v": v, "evidence": evidence}


def drawn(pair: dict[str, object], **settings: object) -> dict[str, Tensor]:
    """Many draws of the gradient of one datum, by parameter."""
    torch.manual_seed(0)
    found = elbo_gradient(pair["model"], pair["guide"], pair["batch"], **settings)
    return {name: DRAWS * value.squeeze(-1) for name, value in found.items()}


def close(draws: Tensor, mean: float, variance: float) -> None:
    """The draws' mean and variance are those, within five standard errors, estimated from the draws."""
    squares = (draws - mean).square()
    assert abs(draws.mean() - mean) <= 5 * draws.std() / len(draws) ** 0.5 + 1e-9
    assert abs(squares.mean() - variance) <= 5 * squares.std() / len(draws) ** 0.5 + 1e-9


def test_pathwise_moments_are_those_of_the_closed_form(pair: dict[str, object]) -> None:
    """With z = μ + sε: -(d + sε) / v for μ, and 1 - (d + sε) sε / v for log s."""
    v, d, s2 = pair["v"], OFF, pair["v"] * torch.tensor(2 * LOG).double().exp().item()
    for estimator in ("pathwise", "stl", "closed-form"):
        found = drawn(pair, estimator=estimator)
        noise = {"pathwise": s2 / v**2, "stl": (1 / s2**0.5 - s2**0.5 / v) ** 2}
        if estimator in noise:
            close(found["loc"], -d / v, noise[estimator])
        assert found["loc"].mean().item() == pytest.approx(-d / v, rel=0.02)
        assert found["log"].mean().item() == pytest.approx(1 - s2 / v, rel=0.02)
    pathwise = drawn(pair, estimator="pathwise")
    close(pathwise["log"], 1 - s2 / v, (d**2 * s2 + 2 * s2**2) / v**2)


@pytest.mark.parametrize("shift", [None, 0.0, -5.0, "best"])
def test_score_moments_are_those_of_the_closed_form(pair: dict[str, object], shift: float | str | None) -> None:
    """For μ (A + Bε + Dε²) ε / s with A = log p(x) - log(√v / s) - d² / 2v - b, B = -ds / v, D = 1/2 - s² / 2v."""
    v, d, s2 = pair["v"], OFF, pair["v"] * torch.tensor(2 * LOG).double().exp().item()
    a, b, c = pair["evidence"] + LOG - d**2 / (2 * v), -d * s2**0.5 / v, 0.5 - s2 / (2 * v)
    baseline = a + 3 * c if shift == "best" else shift
    a -= baseline or 0.0
    variance = (a**2 + 2 * b**2 + 15 * c**2 + 6 * a * c) / s2
    given = None if baseline is None else torch.full((DRAWS,), baseline, dtype=torch.float64)
    found = drawn(pair, estimator="score", baseline=given)
    close(found["loc"], -d / v, variance)
    assert abs(found["log"].mean() - (1 - s2 / v)) < 5 * found["log"].std() / DRAWS**0.5


def test_baselines_cost_no_bias_and_particles_average(pair: dict[str, object]) -> None:
    alone, others = (
        drawn(pair, estimator="score", particles=4),
        drawn(pair, estimator="score", particles=4, baseline="others"),
    )
    single = drawn(pair, estimator="score")
    assert single["loc"].var() / alone["loc"].var() == pytest.approx(4, rel=0.05)
    assert abs(others["loc"].mean() + OFF / pair["v"]) < 5 * others["loc"].std() / DRAWS**0.5
    assert others["loc"].var() < alone["loc"].var()


def test_without_noise_at_the_posterior_only_if_the_score_is_left_out() -> None:
    model = PPCA(torch.tensor([[1.3]], dtype=torch.float64), variance=0.5)
    x = torch.tensor([[0.9]], dtype=torch.float64)
    posterior = model.posterior(x)
    guide = Same(posterior.mean.detach(), posterior.stddev.log().detach(), 1)
    found = {name: elbo_gradient(model, guide, batch_of(x), estimator=name)["loc"].abs().item() for name in ESTIMATORS}
    assert found["stl"] < 1e-12
    assert min(found["pathwise"], found["score"]) > 1e-3


def test_score_is_pyros_where_nothing_is_reparameterised() -> None:
    """The same noise gives the same gradient; Pyro's losses are sums over the data."""
    model = general_ppca()
    batch = batch_of(sampled(model, 5))

    class Fake(Amortized):
        def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
            with pyro.plate("data", len(batch.index)):
                return pyro.sample("z", NonreparameterizedNormal(params["loc"], params["log"].exp()).to_event(1))

    guide = Fake(encoder=MLPEncoder(shape=(6,), hidden=(4,)), family=Diagonal(2)).double()
    torch.manual_seed(3)
    ours = elbo_gradient(model, guide, batch, estimator="score", particles=7)
    torch.manual_seed(3)
    theirs = Trace_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=1)
    theirs.differentiable_loss(model, guide, batch).backward()
    for name, parameter in guide.named_parameters():
        torch.testing.assert_close(ours[name], -parameter.grad / 5)


def test_an_encoders_estimates_agree() -> None:
    """Along the pathwise mean, the score's mean is as long, within its error."""
    model = general_ppca()
    batch = batch_of(sampled(model, 5))
    guide = Amortized(encoder=MLPEncoder(shape=(6,), hidden=(4,)), family=Diagonal(2)).double()
    true = moments(partial(elbo_gradient, model, guide, batch, particles=200), draws=50).mean
    found = moments(
        partial(elbo_gradient, model, guide, batch, estimator="score", particles=200), draws=50, direction=true
    )
    assert abs(found.along.mean() - true.norm()) < 4 * found.along.std() / 50**0.5
    assert found.trace == pytest.approx(float(found.variance.sum()))


def test_moments_are_those_of_the_draws() -> None:
    draws = torch.randn(9, 3, dtype=torch.float64)
    rows = iter(draws)
    found = moments(lambda: {"one": (row := next(rows))[:1], "two": row[1:]}, draws=9, direction=torch.ones(3).double())
    torch.testing.assert_close(found.mean, draws.mean(0))
    torch.testing.assert_close(found.variance, draws.var(0))
    torch.testing.assert_close(found.along, draws.sum(1) / 3**0.5)
    torch.testing.assert_close(found.signal, draws.mean(0).square().sum() - draws.var(0).sum() / 9)


def test_refuses_what_changes_nothing() -> None:
    model, x = general_ppca(), torch.zeros(2, 6, dtype=torch.float64)
    guide = Amortized(encoder=MLPEncoder(shape=(6,), hidden=(4,)), family=Diagonal(2)).double()
    for settings in ({"estimator": "none"}, {"baseline": "others"}, {"estimator": "score", "baseline": "others"}):
        with pytest.raises(UsageError, match="expected|only for score"):
            elbo_gradient(model, guide, batch_of(x), **settings)
    with pytest.raises(UsageError, match="2 or more"):
        moments(lambda: {}, draws=1)
