import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from toys import VectorEncoder, batch_of, general_ppca, sampled

from guides import ELBO, Amortized, Diagonal, terms
from guides.sites import WeightLatents
from ppl_models import VAE, Batch, UsageError


def linear_pair() -> tuple[nn.Module, nn.Module, Batch]:
    model = general_ppca()
    return model, Amortized(encoder=VectorEncoder(), family=Diagonal(2)).double(), batch_of(sampled(model, 7))


def image_pair() -> tuple[nn.Module, nn.Module, Batch]:
    batch = Batch(torch.rand(4, 1, 28, 28, dtype=torch.float64), None, torch.arange(4))
    return VAE(latents=3).double(), Amortized(latents=3).double(), batch


def gradients(loss: Tensor, *modules: nn.Module) -> list[Tensor]:
    return torch.autograd.grad(loss, [p for module in modules for p in module.parameters()], retain_graph=True)


@pytest.mark.parametrize("pair", [linear_pair, image_pair])
@pytest.mark.parametrize(("theirs", "closed_form"), [(Trace_ELBO, False), (TraceMeanField_ELBO, True)])
@pytest.mark.parametrize("particles", [1, 3])
def test_equals_pyros_elbo_and_its_gradients(pair: object, theirs: type, closed_form: bool, particles: int) -> None:
    model, guide, batch = pair()
    elbo = theirs(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(3)
    expected = elbo.differentiable_loss(model, guide, batch) / len(batch.index)
    torch.manual_seed(3)
    loss, parts = ELBO(particles=particles, closed_form=closed_form)(model, guide, batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(-parts.elbo.mean(), expected)
    assert parts.elbo.shape == (particles, len(batch.index))
    for ours, pyros in zip(gradients(loss, model, guide), gradients(expected, model, guide), strict=True):
        torch.testing.assert_close(ours, pyros)


@pytest.mark.parametrize("weight", [0.3, 2.0, torch.tensor(0.3, dtype=torch.float64)])
@pytest.mark.parametrize(("theirs", "closed_form"), [(Trace_ELBO, False), (TraceMeanField_ELBO, True)])
def test_kl_weight_is_a_scale_on_latent_sites(weight: float | Tensor, theirs: type, closed_form: bool) -> None:
    model, guide, batch = linear_pair()
    scaled = [WeightLatents(weight)(program) for program in (model, guide)]
    torch.manual_seed(3)
    expected = theirs(max_plate_nesting=1).differentiable_loss(*scaled, batch) / len(batch.index)
    torch.manual_seed(3)
    loss, parts = ELBO(weight, closed_form=closed_form)(model, guide, batch)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(loss, (weight * parts.kl - parts.log_likelihood).mean())


def test_weight_zero_leaves_the_likelihood_alone_even_where_a_density_is_infinite() -> None:
    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0, validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=batch.x)

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(torch.full((3,), 5.0), 0.1))

    batch = batch_of(torch.zeros(3))
    loss, parts = ELBO(0)(model, guide, batch)
    assert parts.kl.isinf().all()
    torch.testing.assert_close(loss, -parts.log_likelihood.mean())


def test_schedule_is_a_function_of_step_and_steps() -> None:
    model, guide, batch = linear_pair()
    objective = ELBO(lambda step, steps: step / steps)
    with pytest.raises(UsageError, match="before_step"):
        objective(model, guide, batch)
    for step, weight in ((0, 0.0), (5, 0.25), (20, 1.0)):
        objective.before_step(step, 20, batch.index.device)
        loss, parts = objective(model, guide, batch)
        torch.testing.assert_close(loss, (weight * parts.kl - parts.log_likelihood).mean())


def test_scales_and_masks_of_the_users_own_sites() -> None:
    weights, mask = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True])

    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.scale(scale=weights), poutine.mask(mask=mask):
                pyro.sample("x", dist.Normal(z, 1.0), obs=batch.x)

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(batch.x, 0.5))

    batch = batch_of(torch.randn(3))
    torch.manual_seed(3)
    expected = TraceMeanField_ELBO(max_plate_nesting=1).differentiable_loss(model, guide, batch) / 3
    torch.manual_seed(3)
    loss, parts = ELBO()(model, guide, batch)
    torch.testing.assert_close(loss, expected)
    assert parts.log_likelihood[0, 1] == 0
    assert not torch.allclose(parts.elbo.mean(), -loss)


def test_closed_form_and_sampled_terms_agree_in_expectation() -> None:
    model, guide, batch = linear_pair()
    closed = terms(model, guide, batch, particles=4000).elbo
    drawn = terms(model, guide, batch, particles=4000, closed_form=False).elbo
    error = (closed.var(0) / 4000 + drawn.var(0) / 4000).sqrt()
    assert ((closed.mean(0) - drawn.mean(0)).abs() < 4 * error).all()


def latent(batch: Batch, fn: dist.TorchDistribution, name: str = "z") -> Tensor:
    with pyro.plate("data", len(batch.index)):
        return pyro.sample(name, fn)


def standard_guide(batch: Batch) -> Tensor:
    return latent(batch, dist.Normal(torch.zeros(2), 1.0).to_event(1))


def scalar_x(batch: Batch) -> None:
    with pyro.plate("data", len(batch.index)):
        pyro.sample("x", dist.Normal(torch.zeros(6), 1.0).to_event(1), obs=batch.x)


def event_forgotten(batch: Batch) -> None:
    standard_guide(batch)
    pyro.sample("x", dist.Normal(torch.zeros(6), 1.0).expand([5, 6]), obs=batch.x)


def global_latent(batch: Batch) -> None:
    pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
    standard_guide(batch)
    scalar_x(batch)


def other_name(batch: Batch) -> None:
    latent(batch, dist.Normal(torch.zeros(2), 1.0).to_event(1), "u")
    scalar_x(batch)


def nothing_observed(batch: Batch) -> None:
    standard_guide(batch)


def summed_away(batch: Batch) -> None:
    standard_guide(batch)
    pyro.sample("x", dist.Normal(torch.zeros(5, 6), 1.0).to_event(2), obs=batch.x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (event_forgotten, r"site 'x'.*shape \(5, 6\).*expected \(5,\)"),
        (summed_away, r"site 'x'.*shape \(\).*expected \(5,\)"),
        (global_latent, "site 'w' is a latent outside the data plate"),
        (other_name, r"latent sites are \['u'\], the guide's are \['z'\]"),
        (nothing_observed, "observes nothing"),
    ],
)
def test_wrong_models_are_named(model: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        terms(model, standard_guide, batch_of(torch.randn(5, 6)))
    assert "\n" not in str(caught.value)


def test_a_delta_has_no_kl_divergence() -> None:
    def model(batch: Batch) -> None:
        standard_guide(batch)
        scalar_x(batch)

    def guide(batch: Batch) -> None:
        latent(batch, dist.Delta(torch.zeros(5, 2)).to_event(1))

    with pytest.raises(UsageError, match="Delta"):
        terms(model, guide, batch_of(torch.randn(5, 6)))


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_free_bits_cost_nothing_until_they_are_spent(weight: float) -> None:
    model, guide, batch = linear_pair()
    _, parts = ELBO()(model, guide, batch)
    kl = float(parts.kl.detach().mean())
    torch.manual_seed(1)
    plain, _ = ELBO(weight)(model, guide, batch)
    torch.manual_seed(1)
    few, _ = ELBO(weight, free_bits=0.5 * kl)(model, guide, batch)
    torch.testing.assert_close(few, plain)
    torch.manual_seed(1)
    many, parts = ELBO(weight, free_bits=2.0 * kl)(model, guide, batch)
    torch.testing.assert_close(many, weight * 2.0 * kl - parts.log_likelihood.mean())
    for ours, alone in zip(gradients(many, guide), gradients(-parts.log_likelihood.mean(), guide), strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-9, atol=1e-9)
