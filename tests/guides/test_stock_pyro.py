import math
from collections.abc import Callable, Iterator

import pyro
import pytest
import small
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn
from toys import batch_of, general_ppca, sampled

from guides import ELBO, Amortized, Diagonal, Free
from guides.sites import WeightLatents
from guides.stock_svi import for_svi
from ppl_models import VAE, Batch, MLPEncoder, UsageError


@pytest.fixture(autouse=True)
def _own_parameter_store() -> Iterator[None]:
    """Empty at the start, put back at the end: autoguides and `for_svi` leave their parameters there."""
    with pyro.get_param_store().scope():
        assert not len(pyro.get_param_store())
        yield


@pytest.fixture
def batch() -> Batch:
    return small.images(6).gather(torch.arange(6))


def image_pair() -> tuple[nn.Module, nn.Module, Batch]:
    """A small VAE and an encoder in float64, with bars."""
    batch = small.images(6).gather(torch.arange(6))
    return small.model().double(), small.amortized().double(), batch._replace(x=batch.x.double())


def linear_pair() -> tuple[nn.Module, nn.Module, Batch]:
    """PPCA and an encoder in float64, with data from the model."""
    model = general_ppca()
    guide = Amortized(encoder=MLPEncoder(shape=(6,), hidden=(4,)), family=Diagonal(2)).double()
    return model, guide, batch_of(sampled(model, 5))


def particles(count: int, elbo: type = Trace_ELBO) -> Trace_ELBO:
    return elbo(num_particles=count, vectorize_particles=True, max_plate_nesting=1)


def fitted(kind: type[AutoGuide], model: nn.Module, batch: Batch, *also: nn.Module, steps: int) -> AutoGuide:
    """An autoguide trained by `torch.optim` alone, with a rate that falls to zero."""
    guide = kind(model)
    guide(batch)  # it has no parameters before it has seen the model run
    trained = [parameter for module in (guide, *also) for parameter in module.parameters()]
    optimizer = torch.optim.Adam(trained, lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        particles(16).differentiable_loss(model, guide, batch).backward()
        optimizer.step()
        schedule.step()
    return guide


def bound(model: nn.Module, guide: nn.Module, batch: Batch) -> tuple[float, float]:
    """The mean bound per datum by 4000 fresh samples, and its Monte Carlo error from 20 groups of them."""
    with torch.no_grad():
        groups = [-particles(200).loss(model, guide, batch) / len(batch.index) for _ in range(20)]
    values = torch.tensor(groups)
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def quadrature_evidence(model: VAE, batch: Batch) -> Tensor:
    """log p(x) of a model with two latents, by a sum over a grid that covers the prior."""
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = -0.5 * z.square().sum(-1) - math.log(2 * math.pi) + 2 * math.log(axis[1] - axis[0])
    with torch.no_grad():
        log_likelihood = model.decode(z[:, None]).log_prob(batch.x)
    return (log_prior[:, None] + log_likelihood).logsumexp(0)


def moments_agree(draws: Tensor, mean: Tensor, covariance: Tensor, *, effective: float) -> None:
    """Means and covariances of `(draws, n)` within 4 of their errors, those of `effective` independent normal draws."""
    variances = covariance.diagonal()
    assert ((draws.mean(0) - mean).abs() < 4 * (variances / effective).sqrt()).all()
    error = ((variances[:, None] * variances + covariance.square()) / effective).sqrt()
    assert ((torch.cov(draws.mT) - covariance).abs() < 4 * error).all()


@pytest.mark.parametrize(("kind", "joint"), [(AutoMultivariateNormal, True), (AutoNormal, False)])
def test_autoguides_on_ppca_reach_evidence_and_mean_field_gap(kind: type[AutoGuide], joint: bool) -> None:
    model = general_ppca()
    batch = batch_of(sampled(model, 3))
    guide = fitted(kind, model.requires_grad_(False), batch, steps=400)
    reached, error = bound(model, guide, batch)
    gap = 0.0 if joint else float(model.mean_field_gap())
    assert model.mean_field_gap() > 0.05
    assert abs(float(model.evidence(batch.x).mean()) - gap - reached) < 4 * error + 0.005
    means = guide.median()["z"]
    torch.testing.assert_close(means, model.posterior(batch.x).mean, rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", [AutoMultivariateNormal, AutoNormal])
def test_autoguides_train_a_vae_and_stay_below_its_evidence(kind: type[AutoGuide]) -> None:
    model, _, batch = image_pair()
    before, evidence = small.weights(model), quadrature_evidence(model, batch).mean()
    guide = fitted(kind, model, batch, model, steps=150)
    assert small.changed(model, before) == set(dict(model.named_parameters()))
    reached, error = bound(model, guide, batch)
    trained = float(quadrature_evidence(model, batch).mean())
    assert trained > evidence + 20
    assert trained - 1 < reached < trained + 4 * error


def test_nuts_agrees_with_the_exact_posterior() -> None:
    model = general_ppca().requires_grad_(False)
    x = sampled(model, 2)
    mcmc = MCMC(NUTS(model, full_mass=True), num_samples=400, warmup_steps=100, disable_progbar=True)
    mcmc.run(batch_of(x))
    draws, posterior = mcmc.get_samples()["z"], model.posterior(x)
    effective = float(mcmc.diagnostics()["z"]["n_eff"].min())
    assert draws.shape == (400, 2, 2)
    assert effective > 100
    for datum in range(2):
        covariance = posterior.covariance_matrix.expand(2, 2, 2)[datum]
        moments_agree(draws[:, datum], posterior.mean[datum], covariance, effective=effective)


def test_predictive_draws_from_posterior_and_prior(batch: Batch) -> None:
    model, guide = small.model(), small.amortized()
    latents = Predictive(guide, num_samples=4, parallel=True)(batch)
    assert latents["z"].shape == (4, 6, 2)
    unseen = batch._replace(x=None)
    again = Predictive(model, posterior_samples=latents, parallel=True)(unseen)
    assert again["x"].shape == (4, 6, 1, 8, 8)
    assert Predictive(model, num_samples=4)(unseen)["x"].shape == (4, 6, 1, 8, 8)


def test_posterior_predictive_draws_have_the_decoders_mean(batch: Batch) -> None:
    model, z = small.model(), torch.randn(6, 2)
    drawn = Predictive(model, posterior_samples={"z": z.expand(2000, 6, 2)}, parallel=True)(batch._replace(x=None))
    mean = model.decode(z).mean.detach()
    assert ((drawn["x"].mean(0) - mean).abs() < 5 * (mean * (1 - mean) / 2000).sqrt()).all()


def test_parallel_prior_predictive_has_the_exact_marginal_moments() -> None:
    model = general_ppca()
    unseen = Batch(None, None, torch.arange(500))
    drawn = Predictive(model, num_samples=400, parallel=True)(unseen)["x"]
    assert drawn.shape == (400, 500, 6)
    weight, noise = model.weight.detach(), model.log_variance.detach().exp()
    covariance = weight @ weight.mT + noise * torch.eye(6, dtype=torch.float64)
    moments_agree(drawn.detach().flatten(0, 1), model.bias.detach(), covariance, effective=400 * 500)


def test_poutine_traces_and_replays(batch: Batch) -> None:
    model, guide = small.model(), small.amortized()
    traced = poutine.trace(guide).get_trace(batch)
    replayed = poutine.trace(poutine.replay(model, trace=traced)).get_trace(batch)
    assert replayed.nodes["z"]["value"] is traced.nodes["z"]["value"]


def test_stock_svi_leaves_plain_modules_untrained(batch: Batch) -> None:
    """What README warns of: `for_svi` and `svi.fit` are the ways, the latter tested in test_fit.py."""
    model, guide = small.model(), small.amortized()
    before = small.weights(guide)
    stock = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        stock.step(batch)
    assert not small.changed(guide, before)


@pytest.mark.parametrize("pair", [linear_pair, image_pair])
@pytest.mark.parametrize(("theirs", "closed_form"), [(Trace_ELBO, False), (TraceMeanField_ELBO, True)])
def test_gradients_under_a_kl_weight_are_pyros(pair: Callable, theirs: type, closed_form: bool) -> None:
    model, guide, batch = pair()
    scaled = [WeightLatents(0.3)(program) for program in (model, guide)]
    torch.manual_seed(3)
    expected = particles(3, theirs).differentiable_loss(*scaled, batch) / len(batch.index)
    torch.manual_seed(3)
    loss, _ = ELBO(0.3, particles=3, closed_form=closed_form)(model, guide, batch)
    torch.testing.assert_close(loss, expected)
    trained = [*model.parameters(), *guide.parameters()]
    for ours, pyros in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(ours, pyros)


@pytest.mark.parametrize("pair", [linear_pair, image_pair])
@pytest.mark.parametrize(("theirs", "closed_form"), [(Trace_ELBO, False), (TraceMeanField_ELBO, True)])
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_stock_svi_takes_the_steps_of_a_hand_loop(pair: Callable, theirs: type, closed_form: bool, rule: str) -> None:
    model, guide, batch = pair()
    before = small.weights(model), small.weights(guide)
    stock = SVI(*for_svi(model, guide), getattr(pyro.optim, rule)({"lr": 1e-3}), theirs())
    torch.manual_seed(3)
    losses = [stock.step(batch) / len(batch.index) for _ in range(5)]
    stepped = small.weights(model), small.weights(guide)
    for module, start in zip((model, guide), before, strict=True):
        assert small.changed(module, start) == set(dict(module.named_parameters()))
        module.load_state_dict(start)
    optimizer = getattr(torch.optim, rule)([*model.parameters(), *guide.parameters()], lr=1e-3)
    torch.manual_seed(3)
    for theirs_loss in losses:
        optimizer.zero_grad()
        loss, _ = ELBO(closed_form=closed_form)(model, guide, batch)
        (loss * len(batch.index)).backward()
        optimizer.step()
        assert loss.item() == pytest.approx(theirs_loss, rel=1e-9)
    for module, reached in zip((model, guide), stepped, strict=True):
        torch.testing.assert_close(small.weights(module), reached, rtol=1e-7, atol=1e-10)


def test_a_guide_swapped_in_later_trains_under_stock_svi(batch: Batch) -> None:
    model = small.model()
    for guide in (small.amortized(), small.amortized()):
        before = small.weights(model), small.weights(guide)
        stock = SVI(*for_svi(model, guide), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(2):
            stock.step(batch)
        for module, start in zip((model, guide), before, strict=True):
            assert small.changed(module, start) == set(dict(module.named_parameters()))
    names = {name.split(".")[0] for name in pyro.get_param_store()}
    assert len(names) == 2, "each pair has names of its own"


def test_stock_svi_trains_on_after_the_store_is_cleared_and_leaves_frozen_models(batch: Batch) -> None:
    model, guide = small.model().requires_grad_(False).eval(), small.amortized()
    frozen, before = small.weights(model), small.weights(guide)
    stock = SVI(*for_svi(model, guide), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert not len(pyro.get_param_store()), "for_svi itself touches nothing"
    stock.step(batch)
    between = small.weights(guide)
    assert small.changed(guide, before) == set(dict(guide.named_parameters()))
    pyro.clear_param_store()
    stock.step(batch)
    assert small.changed(guide, between) == set(dict(guide.named_parameters()))
    assert not small.changed(model, frozen)


def test_stock_svi_trains_weights_in_channels_last() -> None:
    """As `svi.fit` leaves them; `pyro.module` alone would train copies."""
    model, guide = (module.to(memory_format=torch.channels_last) for module in (VAE(latents=2), Amortized(latents=2)))
    assert not all(parameter.is_contiguous() for parameter in model.parameters())
    before = small.weights(model), small.weights(guide)
    batch = Batch(torch.rand(2, 1, 28, 28), None, torch.arange(2))
    SVI(*for_svi(model, guide), pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(batch)
    for module, start in zip((model, guide), before, strict=True):
        assert small.changed(module, start) == set(dict(module.named_parameters()))


def test_stock_svi_refuses_what_it_would_not_train() -> None:
    model = small.model()
    for guide, message in (
        (Free(6, latents=2), "cannot train the rows of Free"),
        (lambda batch: None, "the guide is a function, expected an nn.Module"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            for_svi(model, guide)
        assert "\n" not in str(caught.value)
