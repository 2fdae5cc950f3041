import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from torch import Tensor, nn
from toys import at_start, batch_of, general_ppca, orthogonal_ppca, sampled

from guides import ELBO, IWAE, Amortized, Diagonal, Free, terms
from guides.evidence import importance_sample
from guides.sites import At, WeightLatents
from ppl_models import PPCA, Batch, UsageError

ESTIMATORS = ("plain", "stl", "dreg")


def at(model: PPCA, x: Tensor, *, loc: float = 0.0, log: float = 0.0) -> tuple[At, dict[str, Tensor]]:
    """The best diagonal guide for some data, or one that is off by some amount, and its parameters as leaves."""
    best = model.mean_field(x)
    params = {"loc": best.mean + loc, "log": best.stddev.log().expand(len(x), 2) + log}
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    return At(Free(len(x), family=Diagonal(2)).double(), params), params


@pytest.mark.parametrize("gradient", ESTIMATORS)
@pytest.mark.parametrize("particles", [1, 7])
def test_bound_is_the_evidence_at_the_exact_posterior(gradient: str, particles: int) -> None:
    model = general_ppca()
    x = sampled(model, 5)
    posterior = nn.Module()
    posterior.forward = model.exact_guide
    loss, parts = IWAE(particles, gradient)(model, posterior, batch_of(x))
    torch.testing.assert_close(-loss, model.evidence(x).mean())
    assert parts.elbo.shape == (particles, 5)


def test_equals_pyros_bound_for_a_datum() -> None:
    """Pyro's own sums its weights over the plate before the logarithm, so one datum at a time."""
    model = general_ppca()
    x = sampled(model, 1)
    guide, _ = at(model, x, loc=0.3)
    torch.manual_seed(2)
    theirs = RenyiELBO(alpha=0, num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    expected = theirs.loss(model, guide, batch_of(x))
    torch.manual_seed(2)
    loss, _ = IWAE(6, "plain")(model, guide, batch_of(x))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_weights_are_a_datums_own() -> None:
    """A batch's bound is the mean of its data's bounds, which it is not where weights are shared."""
    model = general_ppca()
    x = sampled(model, 3)
    guide, _ = at(model, x, loc=0.5)
    torch.manual_seed(0)
    loss, parts = IWAE(4)(model, guide, batch_of(x))
    by_hand = sum(math.log(sum(math.exp(w) for w in column) / 4) for column in parts.elbo.mT.tolist()) / 3
    assert -loss.item() == pytest.approx(by_hand, rel=1e-12)


def test_bound_rises_with_particles_towards_the_evidence() -> None:
    model = general_ppca()
    x = sampled(model, 2000)
    guide, _ = at(model, x, log=0.3)
    evidence, before = model.evidence(x), None
    with torch.no_grad():
        for particles in (1, 5, 30):
            torch.manual_seed(particles)
            bound = terms(model, guide, batch_of(x), particles=particles, closed_form=False).elbo.logsumexp(0)
            gap = evidence - (bound - math.log(particles))
            mean, error = gap.mean(), gap.std() / len(x) ** 0.5
            assert mean > -3 * error
            assert before is None or mean < before - 3 * error
            before = mean
    torch.manual_seed(0)
    found = importance_sample(model, at_start(guide), [batch_of(x)], samples=2000).log_evidence
    assert (evidence - found).mean().abs() < 0.3 * before


@pytest.mark.parametrize("particles", [1, 8])
def test_dreg_and_plain_have_the_same_mean_and_dreg_less_variance(particles: int) -> None:
    model = general_ppca()
    x = sampled(model, 1).expand(4000, -1)  # replicas of one datum: each gives an independent gradient
    means, variances = {}, {}
    for gradient in ("plain", "dreg"):
        guide, params = at(model, x, loc=0.2, log=0.2)
        torch.manual_seed(5)
        loss, _ = IWAE(particles, gradient)(model, guide, batch_of(x))
        grads = torch.cat([g * len(x) for g in torch.autograd.grad(loss, list(params.values()))], dim=1)
        means[gradient], variances[gradient] = grads.mean(0), grads.var(0)
    error = ((variances["plain"] + variances["dreg"]) / len(x)).sqrt()
    assert ((means["plain"] - means["dreg"]).abs() < 4 * error).all()
    assert (variances["dreg"] < variances["plain"]).all()


def test_signal_to_noise_of_dreg_grows_with_particles_and_plains_falls() -> None:
    """As the square root of K: Rainforth et al. 2018, arXiv:1802.04537; Tucker et al. 2019."""
    torch.manual_seed(0)
    model = orthogonal_ppca()
    x = sampled(model, 1).expand(2000, -1)

    def signal_to_noise(particles: int, gradient: str) -> float:
        guide, params = at(model, x, loc=0.2, log=0.3)  # wide, so that the weights have moments
        torch.manual_seed(7)
        loss, _ = IWAE(particles, gradient)(model, guide, batch_of(x))
        (grads,) = torch.autograd.grad(loss * len(x), [params["loc"]])
        return float((grads.mean(0).abs() / grads.std(0)).mean())

    assert signal_to_noise(256, "dreg") / signal_to_noise(16, "dreg") == pytest.approx(4.0, rel=0.15)
    assert signal_to_noise(16, "plain") < 0.3 * signal_to_noise(1, "plain")


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradients_have_no_noise_at_the_posterior(gradient: str) -> None:
    model = orthogonal_ppca()
    x = sampled(model, 6)
    guide, params = at(model, x)
    for particles in (1, 5):
        loss, _ = IWAE(particles, gradient)(model, guide, batch_of(x))
        for grad in torch.autograd.grad(loss, list(params.values())):
            assert grad.abs().max() < 1e-12
    loss, _ = IWAE(5, "plain")(model, guide, batch_of(x))
    assert torch.autograd.grad(loss, [params["loc"]])[0].abs().max() > 1e-3


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_the_models_gradient_is_the_plain_one(gradient: str) -> None:
    model = general_ppca()
    x = sampled(model, 6)
    guide, params = at(model, x, loc=0.3)
    grads = []
    for estimator in ("plain", gradient):
        torch.manual_seed(1)
        loss, _ = IWAE(5, estimator)(model, guide, batch_of(x))
        grads.append(torch.autograd.grad(loss, [*model.parameters(), *params.values()]))
    for plain, other in list(zip(*grads, strict=True))[:3]:
        torch.testing.assert_close(plain, other)
    assert not torch.allclose(grads[0][3], grads[1][3])


class Chain(nn.Module):
    """A guide of two latents, the second sampled from the first, with a parameter in each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.tensor(0.4).double()), nn.Parameter(torch.tensor(0.2).double())

    def forward(self, batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            a = pyro.sample("a", dist.Normal(self.first * batch.x, 0.9))
            pyro.sample("b", dist.Normal(self.second + a, 0.9))


def chain(batch: Batch) -> None:
    with pyro.plate("data", len(batch.index)):
        a = pyro.sample("a", dist.Normal(batch.x.new_zeros(()), 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=batch.x)


def test_dreg_is_unbiased_where_one_latent_depends_on_another() -> None:
    """Weights on the samples themselves would count twice on the way from the second latent to the first."""
    x = torch.full((40_000,), 1.3, dtype=torch.float64)
    found = {}
    for gradient in ("plain", "dreg"):
        guide = Chain()
        torch.manual_seed(3)
        grads = []
        for part in x.split(2000):
            loss, _ = IWAE(6, gradient)(chain, guide, batch_of(part))
            grads.append(torch.stack(torch.autograd.grad(loss, list(guide.parameters()))))
        grads = torch.stack(grads)
        found[gradient] = grads.mean(0), grads.var(0) / len(grads)
    difference = found["plain"][0] - found["dreg"][0]
    assert (difference.abs() < 4 * (found["plain"][1] + found["dreg"][1]).sqrt()).all()
    assert found["dreg"][0].abs().min() > 0.01


def test_what_has_no_importance_weights_is_refused() -> None:
    model = general_ppca()
    batch = batch_of(sampled(model, 3))
    guide, _ = at(model, batch.x)
    with pytest.raises(UsageError, match="scale"):
        IWAE(3, "plain")(WeightLatents(0.5)(model), guide, batch)
    with pytest.raises(UsageError, match="not a module"):
        IWAE(3, "dreg")(model, lambda b: guide(b), batch)
    IWAE(3, "plain")(model, lambda b: guide(b), batch)
    with pytest.raises(UsageError, match="expected 1 or more"):
        IWAE(0)


def test_a_stopped_guide_trains_again_afterwards() -> None:
    guide = Chain()
    IWAE(3)(chain, guide, batch_of(torch.ones(2).double()))
    assert all(parameter.requires_grad for parameter in guide.parameters())
    loss, _ = ELBO()(chain, guide, batch_of(torch.ones(2).double()))
    assert all(grad is not None for grad in torch.autograd.grad(loss, list(guide.parameters())))


def test_an_encoder_that_drops_out_is_weighed_by_what_it_sampled_from() -> None:
    """Another draw of the dropout for the densities would give no bound at all."""
    model = general_ppca()
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5))
    encoder.features = 8
    guide = Amortized(encoder=encoder, family=Diagonal(2)).double()
    batch = batch_of(sampled(model, 3000))
    values = {}
    for gradient in ESTIMATORS:
        torch.manual_seed(4)
        loss, _ = IWAE(5, gradient)(model, guide, batch)
        values[gradient] = -loss.item()
    assert values["dreg"] == pytest.approx(values["plain"], rel=1e-9)
    assert values["stl"] == pytest.approx(values["plain"], rel=1e-9)
