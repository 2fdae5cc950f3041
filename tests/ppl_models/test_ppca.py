import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence
from toys import batch_of, general_ppca, orthogonal_ppca, sampled

from guides import terms
from ppl_models import PPCA


def test_evidence_is_the_integral_over_the_latent() -> None:
    model = PPCA(torch.tensor([[0.7], [-1.2]], dtype=torch.float64), variance=0.4)
    x = torch.tensor([[0.3, -0.5], [2.0, 1.0]], dtype=torch.float64)
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    joint = model.decode(z[:, None, None]).log_prob(x) + dist.Normal(0.0, 1.0).log_prob(z)[:, None]
    numerical = torch.logsumexp(joint, 0) + math.log(24 / 20000)
    torch.testing.assert_close(model.evidence(x), numerical, rtol=0, atol=1e-9)


@pytest.mark.parametrize("made", [orthogonal_ppca, general_ppca])
def test_posterior_is_joint_over_evidence(made: object) -> None:
    model = made()
    x, z = sampled(model, 5), torch.randn(5, 2, dtype=torch.float64)
    prior = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    joint = prior.log_prob(z) + model.decode(z).log_prob(x)
    torch.testing.assert_close(model.posterior(x).log_prob(z), joint - model.evidence(x))


def test_mean_field_gap_is_the_divergence_of_the_mean_field_optimum() -> None:
    model = general_ppca()
    x = sampled(model, 3)
    optimum = model.mean_field(x)
    dense = dist.MultivariateNormal(optimum.mean, torch.diag_embed(optimum.variance))
    divergence = kl_divergence(dense, model.posterior(x))
    torch.testing.assert_close(model.mean_field_gap().expand(3), divergence)
    assert divergence.min() > 0.01


def test_no_diagonal_gaussian_comes_closer_than_the_mean_field_optimum() -> None:
    model = general_ppca()
    x = sampled(model, 1)
    optimum = model.mean_field(x)
    for _ in range(50):
        scale = optimum.stddev * (0.1 * torch.randn(1, 2).double()).exp()
        other = dist.MultivariateNormal(optimum.mean + 0.1 * torch.randn(1, 2).double(), torch.diag_embed(scale**2))
        assert kl_divergence(other, model.posterior(x)) > model.mean_field_gap()


@pytest.mark.parametrize("made", [orthogonal_ppca, general_ppca])
def test_bound_of_the_exact_guide_is_the_evidence_whatever_the_noise(made: object) -> None:
    model = made()
    x = sampled(model, 4)
    elbo = terms(model, model.exact_guide, batch_of(x), particles=3, closed_form=False).elbo
    torch.testing.assert_close(elbo, model.evidence(x).expand(3, 4))
