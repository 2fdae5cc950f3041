"""The ladder's guide, against the linear-Gaussian ladder, whose evidence and posteriors are known."""

import copy
import json
import math
from dataclasses import dataclass
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import small
import torch
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence
from toys import batch_of

from guides import ELBO, SGD, AmortizedLadder, Refinement, refine, terms
from guides.sites import run_program
from ppl_models import Batch, Ladder, MLPDecoder, MLPEncoder, UsageError
from runners import svi
from runners.blueprint import describe, rebuild
from runners.check import check
from runners.predictive import predictive

VARIANCE = 0.2
"""Of x given z1 in the linear ladder."""


class Identity(nn.Module):
    """An encoder that lets vectors through, so that the guide's parameters are linear in x."""

    features, classes = 6, 0

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x


class Linear(nn.Linear):
    """A decoder to vectors."""

    latents = 3

    def __init__(self) -> None:
        super().__init__(3, 6)


class Noise(nn.Module):
    """Gaussian vectors around a decoder's outputs."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Normal(outputs, math.sqrt(VARIANCE)).to_event(1)


@dataclass(frozen=True)
class LinearLadder:
    """A model z1 = A z2 + a + s ε, x = W z1 + b + noise, its exact posterior as a guide, data and their evidence."""

    model: Ladder
    guide: AmortizedLadder
    batch: Batch
    evidence: Tensor


def linear_ladder() -> LinearLadder:
    """Columns of W are orthogonal and each z2 acts on one z1, so that both posteriors are diagonal Gaussians."""
    f64 = {"dtype": torch.float64}
    upward = torch.tensor([[1.3, 0.0], [0.0, -0.7], [0.0, 0.0]], **f64)
    shift, scale = torch.randn(3, **f64), torch.tensor([0.5, 0.9, 1.4], **f64)
    weight = torch.linalg.qr(torch.randn(6, 3, **f64)).Q * torch.tensor([1.5, 0.8, 1.1], **f64)
    bias = torch.randn(6, **f64)
    model = Ladder(latents=(3, 2), hidden=(), decoder=Linear(), likelihood=Noise()).double()
    guide = AmortizedLadder(latents=(3, 2), hidden=(), encoder=Identity()).double()

    marginal = upward @ upward.T + torch.diag(scale**2)
    precision = (weight**2).sum(0) / VARIANCE + 1 / marginal.diagonal()
    upper = 1 + (upward**2 / scale[:, None] ** 2).sum(0)
    gain = upward.T / scale**2 / upper[:, None]
    with torch.no_grad():
        model.net[0].weight.copy_(torch.cat([upward, torch.zeros(3, 2)]))
        model.net[0].bias.copy_(torch.cat([shift, scale.log()]))
        model.decoder.weight.copy_(weight)
        model.decoder.bias.copy_(bias)
        guide.heads["loc"].weight.copy_(weight.T / VARIANCE / precision[:, None])
        guide.heads["loc"].bias.copy_((shift / marginal.diagonal() - weight.T @ bias / VARIANCE) / precision)
        guide.heads["log"].weight.zero_()
        guide.heads["log"].bias.copy_(-0.5 * precision.log())
        guide.net[0].weight.copy_(torch.cat([gain, torch.zeros(2, 3)]))
        guide.net[0].bias.copy_(torch.cat([-gain @ shift, -0.5 * upper.log()]))
        x = model(Batch(None, None, torch.arange(5)))
    covariance = weight @ marginal @ weight.T + VARIANCE * torch.eye(6, **f64)
    evidence = dist.MultivariateNormal(weight @ shift + bias, covariance).log_prob(x)
    return LinearLadder(model, guide, batch_of(x), evidence)


def spoiled(guide: AmortizedLadder) -> AmortizedLadder:
    """A wider copy of the guide, no longer the posterior but still linear, with scales that ignore z1."""
    guide = copy.deepcopy(guide)
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(0.08 * torch.randn_like(p))
        guide.heads["log"].bias.add_(0.3)
        guide.net[0].bias[2:] += 0.3
        guide.net[0].weight[2:] = 0
    return guide


def joint(guide: AmortizedLadder, x: Tensor) -> dist.MultivariateNormal:
    """The linear guide's q(z1, z2 given x), which is Gaussian."""
    params = guide.start(batch_of(x))
    gain, variance = guide.net[0].weight[:2], (2 * guide.net[0].bias[2:]).exp()
    first = torch.diag_embed((2 * params["log"]).exp())
    cross = gain @ first
    second = cross @ gain.T + torch.diag(variance)
    covariance = torch.cat([torch.cat([first, cross.mT], -1), torch.cat([cross, second], -1)], -2)
    mean = torch.cat([params["loc"], params["loc"] @ gain.T + guide.net[0].bias[:2]], -1)
    return dist.MultivariateNormal(mean, covariance)


def small_model() -> Ladder:
    return Ladder(latents=(4, 3), hidden=(6,), decoder=MLPDecoder(latents=4, shape=(1, 8, 8), hidden=(9,)))


def small_guide(**settings: object) -> AmortizedLadder:
    encoder = MLPEncoder(shape=(1, 8, 8), hidden=(9,), activation="tanh")
    return AmortizedLadder(latents=(4, 3), hidden=(6,), encoder=encoder, **settings)


def images(size: int = 5) -> Batch:
    return small.images(size).gather(torch.arange(size))


def test_bound_of_the_exact_guide_is_the_evidence_whatever_the_noise() -> None:
    linear = linear_ladder()
    elbo = terms(linear.model, linear.guide, linear.batch, particles=3, closed_form=False).elbo
    torch.testing.assert_close(elbo, linear.evidence.expand(3, 5))


@pytest.mark.parametrize("closed_form", [False, True])
def test_bound_of_any_other_guide_is_below_by_the_divergence(closed_form: bool) -> None:
    linear = linear_ladder()
    guide, x = spoiled(linear.guide), linear.batch.x
    divergence = kl_divergence(joint(guide, x), joint(linear.guide, x))
    assert divergence.min() > 0.1
    elbo = terms(linear.model, guide, linear.batch, particles=4000, closed_form=closed_form).elbo
    error = elbo.std(0) / 4000**0.5
    assert error.max() < 0.1
    assert ((linear.evidence - divergence - elbo.mean(0)).abs() < 4 * error).all()


def test_gradient_of_the_bound_is_that_of_the_divergence() -> None:
    linear = linear_ladder()
    guide, x = spoiled(linear.guide), linear.batch.x
    leaves = [guide.heads["loc"].bias, guide.heads["log"].bias, guide.net[0].bias]
    expected = torch.autograd.grad(kl_divergence(joint(guide, x), joint(linear.guide, x)).mean(), leaves)
    objective = ELBO(particles=200, closed_form=False)
    drawn = [torch.autograd.grad(objective(linear.model, guide, linear.batch)[0], leaves) for _ in range(50)]
    for leaf, values in zip(expected, zip(*drawn, strict=True), strict=True):
        values = torch.stack(values)
        assert ((values.mean(0) - leaf).abs() < 4 * values.std(0) / 50**0.5).all()


def test_importance_weighted_bounds_rise_to_the_evidence() -> None:
    linear = linear_ladder()
    guide = spoiled(linear.guide)
    log_weights = terms(linear.model, guide, linear.batch, particles=20_000, closed_form=False).elbo.detach()
    bounds = []
    for samples in (1, 5, 50, 20_000):
        groups = log_weights.view(-1, samples, 5)
        bounds.append((groups.logsumexp(1) - math.log(samples)).mean(0))
    for lower, higher in pairwise(bounds):
        assert (lower < higher).all()
    torch.testing.assert_close(bounds[-1], linear.evidence, rtol=0, atol=0.05)


@pytest.mark.parametrize("particles", [1, 3])
def test_equals_pyros_elbo_and_its_gradients(particles: int) -> None:
    model, guide, batch = small_model().double(), small_guide().double(), images()
    batch = batch._replace(x=batch.x.double())
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(3)
    expected = elbo.differentiable_loss(model, guide, batch) / len(batch.index)
    torch.manual_seed(3)
    loss, _ = ELBO(particles=particles, closed_form=False)(model, guide, batch)
    torch.testing.assert_close(loss, expected)
    both = [*model.parameters(), *guide.parameters()]
    for ours, pyros in zip(torch.autograd.grad(loss, both), torch.autograd.grad(expected, both), strict=True):
        torch.testing.assert_close(ours, pyros)


def test_pyros_mean_field_elbo_warns_of_this_pair() -> None:
    # The order of the guide's sites is against the model's, so that a closed-form KL of z1 would be of another z1.
    elbo = TraceMeanField_ELBO(max_plate_nesting=1)
    with pytest.warns(UserWarning, match="mean field restriction"):
        elbo.differentiable_loss(small_model(), small_guide(), images())


@pytest.mark.parametrize("scale", ["log", "softplus"])
def test_parameters_of_the_lower_layer_start_at_the_encoder_and_those_of_the_upper_follow_the_sample(
    scale: str,
) -> None:
    guide, batch = small_guide(scale=scale), images()
    params = guide.start(batch)
    assert {name: tuple(value.shape) for name, value in params.items()} == {"loc": (5, 4), scale: (5, 4)}
    sites = run_program(guide, batch, particles=3)
    assert list(sites) == ["z1", "z2"]
    assert sites["z1"].value.shape == (3, 5, 4)
    assert sites["z2"].value.shape == (3, 5, 3)
    z1, upper = sites["z1"].value, sites["z2"].fn.base_dist
    hidden = (z1 @ guide.net[0].weight.T + guide.net[0].bias).tanh()
    loc, raw = (hidden @ guide.net[2].weight.T + guide.net[2].bias).split(3, -1)
    torch.testing.assert_close(upper.loc, loc)
    torch.testing.assert_close(upper.scale, raw.exp() if scale == "log" else torch.nn.functional.softplus(raw) + 1e-6)


def test_defaults_are_the_published_networks() -> None:
    guide, batch = AmortizedLadder(), Batch(torch.rand(2, 1, 28, 28), None, torch.arange(2))
    assert guide.latents == Ladder().latents
    assert [tuple(p.shape) for p in guide.net.parameters()][::2] == [(100, 100), (100, 100), (100, 100)]
    assert {type(layer).__name__ for layer in (*guide.net, *guide.encoder.body[0])} == {"Linear", "Tanh"}
    assert terms(Ladder(), guide, batch, particles=2, closed_form=False).elbo.shape == (2, 2)
    assert not hasattr(guide, "refinement")
    with pytest.raises(UsageError, match=r"latents \(5,\), expected two"):
        AmortizedLadder(latents=(5,))


def test_the_pair_passes_the_check_and_trains() -> None:
    data = small.data_set()
    check(small_model(), small_guide(), data)
    fit = svi.fit(small_model(), small_guide(), data, ELBO(), steps=3, batch=20, every=10, progress=False)
    before = small.weights(fit.model) | small.weights(fit.guide)
    fit.run(20)
    assert small.changed(fit.model, before) | small.changed(fit.guide, before) == set(before)


def test_the_lower_layers_parameters_can_be_refined() -> None:
    linear = linear_ladder()
    guide = spoiled(linear.guide)
    objective = ELBO(particles=64, closed_form=False)
    start = {name: value.detach() for name, value in guide.start(linear.batch).items()}
    rule = Refinement(steps=50, rule=SGD(lr=0.02), final=0.1, decay=0.0)
    params, _ = refine(linear.model, guide, objective, linear.batch, start, refinement=rule)
    torch.manual_seed(5)
    _, before = objective(linear.model, guide, linear.batch)
    torch.manual_seed(5)
    _, after = objective(linear.model, lambda b: guide.sample(b, params), linear.batch)
    assert (after.elbo.mean(0) > before.elbo.mean(0)).all()


def test_pictures_and_predictive_read_the_latents_by_site() -> None:
    model, guide, batch = small_model(), small_guide(), images()
    assert predictive(model, guide, batch).mean.shape == (5, 1, 8, 8)
    assert predictive(model, model, batch._replace(x=None)).mean.shape == (5, 1, 8, 8)
    drawn = Predictive(guide, num_samples=4, parallel=True)(batch)
    again = Predictive(model, posterior_samples=drawn, parallel=True)(batch._replace(x=None))
    assert again["x"].shape == (4, 5, 1, 8, 8)


def test_nothing_is_read_on_the_host() -> None:
    pair = [module.to("meta") for module in (small_model(), small_guide())]
    batch = Batch(*(item if item is None else item.to("meta") for item in images()))
    with pyro.validation_enabled(False):
        loss, _ = ELBO(particles=2)(*pair, batch)
    loss.backward()
    assert all(p.grad is not None for module in pair for p in module.parameters())


def test_densities_stay_in_float32_under_autocast() -> None:
    model, guide, batch = small_model(), small_guide(), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inferred = run_program(guide, batch)
        values = {name: site.value for name, site in inferred.items()}
        generated = run_program(model, batch, values=values)
    for site in (inferred["z1"], inferred["z2"], generated["z1"], generated["z2"]):
        assert site.fn.base_dist.loc.dtype == site.fn.base_dist.scale.dtype == torch.float32
        assert site.log_prob((1, 5)).dtype == torch.float32
    assert generated["x"].fn.base_dist.logits.dtype == torch.float32


def test_is_made_again_from_its_description() -> None:
    guide, batch = small_guide(scale="softplus"), images()
    again = rebuild(json.loads(json.dumps(describe(guide))))
    assert type(again) is AmortizedLadder
    assert describe(again) == describe(guide)
    again.load_state_dict(guide.state_dict())
    torch.manual_seed(1)
    expected = guide(batch)
    torch.manual_seed(1)
    torch.testing.assert_close(again(batch), expected, rtol=0, atol=0)
