import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_models import (
    VAE,
    Batch,
    Bernoulli,
    ConvDecoder,
    ConvEncoder,
    Gaussian,
    MLPDecoder,
    MLPEncoder,
    glorot_,
    variance_preserving,
)


def test_nets_have_the_courses_shapes() -> None:
    encoder, decoder = ConvEncoder(), ConvDecoder(latents=10)
    assert encoder.features == 32 * 7 * 7
    assert [tuple(p.shape) for p in encoder.parameters()][::2] == [(8, 1, 5, 5), (16, 8, 5, 5), (32, 16, 5, 5)]
    assert [tuple(p.shape) for p in decoder.parameters()][::2] == [(3136, 10), (64, 32, 5, 5), (32, 1, 5, 5)]
    assert sum(p.numel() for p in MLPDecoder(latents=40, hidden=(500, 500)).parameters()) == 40 * 500 + 500 + (
        500 * 500 + 500 + 500 * 784 + 784
    )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 20)])
@pytest.mark.parametrize(("encoder", "decoder"), [(ConvEncoder, ConvDecoder), (MLPEncoder, MLPDecoder)])
def test_nets_broadcast_over_particles(encoder: type, decoder: type, shape: tuple[int, int, int]) -> None:
    encode, decode = encoder(shape=shape), decoder(latents=4, shape=shape)
    z = torch.randn(3, 5, 4)
    images = decode(z)
    assert images.shape == (3, 5, *shape)
    torch.testing.assert_close(images[1], decode(z[1]), rtol=1e-4, atol=1e-5)
    features = encode(images)
    assert features.shape == (3, 5, encode.features)
    torch.testing.assert_close(features[2], encode(images[2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian(variance=0.04), Gaussian(variance=0.04, learned=True)])
def test_vae_samples_images_where_none_are_given(likelihood: nn.Module) -> None:
    model = VAE(latents=3, likelihood=likelihood)
    assert model(Batch(None, None, torch.arange(7))).shape == (7, 1, 28, 28)
    mean = model.decode(torch.randn(2, 7, 3)).mean
    assert mean.shape == (2, 7, 1, 28, 28)
    assert mean.min() >= 0
    assert mean.max() <= 1


def test_bernoulli_log_probability_of_grey_values() -> None:
    logits, x = torch.randn(2, 1, 3, 3), torch.rand(2, 1, 3, 3)
    p = logits.sigmoid()
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli()(logits).log_prob(x), expected)


def test_gaussian_log_probability_and_learned_variance() -> None:
    outputs, x = torch.randn(2, 1, 3, 3), torch.rand(2, 1, 3, 3)
    likelihood = Gaussian(variance=0.09, learned=True)
    squares = ((x - outputs.sigmoid()) ** 2).sum((1, 2, 3)) / 0.09
    expected = -0.5 * (squares + 9 * torch.log(torch.tensor(2 * torch.pi * 0.09)))
    torch.testing.assert_close(likelihood(outputs).log_prob(x), expected)
    likelihood(outputs).log_prob(x).sum().backward()
    torch.testing.assert_close(likelihood.tenth.grad, 10 * 0.5 * (squares.sum() - 18))


def test_best_learned_variance_is_the_mean_squared_residual() -> None:
    outputs, x = torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.rand(4, 1, 3, 3, dtype=torch.float64)
    likelihood = Gaussian(variance=0.5, learned=True).double()
    # Newton's method on the log-variance, from the likelihood's own derivatives.
    for _ in range(30):
        total = likelihood(outputs).log_prob(x).sum()
        (slope,) = torch.autograd.grad(total, likelihood.tenth, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, likelihood.tenth)
        with torch.no_grad():
            likelihood.tenth -= (slope / curvature).clamp(-0.1, 0.1)
    torch.testing.assert_close(likelihood.log_variance.exp(), ((x - outputs.sigmoid()) ** 2).mean())


def test_variance_preserving_path() -> None:
    start, end = torch.randn(20000, 2, dtype=torch.float64), torch.randn(20000, 2, dtype=torch.float64)
    weights = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    path = variance_preserving(start, end, weights)
    assert path.shape == (20000, 3, 2)
    torch.testing.assert_close(path[:, 0], end)
    torch.testing.assert_close(path[:, 2], start)
    torch.testing.assert_close(path.var(0), torch.ones(3, 2).double(), rtol=0.04, atol=0)


def test_glorot_start() -> None:
    encoder = glorot_(ConvEncoder())
    for layer in (module for module in encoder.modules() if isinstance(module, nn.Conv2d)):
        out_channels, in_channels = layer.weight.shape[:2]
        bound = (6 / (25 * (in_channels + out_channels))) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_bernoulli_images_are_pyros() -> None:
    """Value, gradient and second derivative, at logits that are large, and at 0 where pieces meet."""
    logits = (30 * torch.randn(4, 3, 1, 5, 5, dtype=torch.float64)).requires_grad_()
    with torch.no_grad():
        logits[0, 0] = 0.0
    x = torch.rand(3, 1, 5, 5, dtype=torch.float64)
    ours = Bernoulli()(logits)
    theirs = dist.Bernoulli(logits=logits, validate_args=False).to_event(3)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    found = []
    for likelihood in (ours, theirs):
        (first,) = torch.autograd.grad(likelihood.log_prob(x).sum(), logits, create_graph=True)
        found.append((first, *torch.autograd.grad((first * logits.detach()).sum(), logits)))
    torch.testing.assert_close(*found)
    assert ours.expand([2, 4, 3]).log_prob(x).shape == (2, 4, 3)
    assert torch.equal(ours.mean, theirs.mean)


def test_bernoulli_images_are_exact_enough_in_single_precision() -> None:
    logits = torch.linspace(-120, 120, 784).view(1, 1, 28, 28)
    x = (torch.rand(1, 1, 28, 28) < 0.5).float()
    exact = Bernoulli()(logits.double()).log_prob(x.double())
    torch.testing.assert_close(Bernoulli()(logits).log_prob(x).double(), exact, rtol=1e-6, atol=1e-4)
