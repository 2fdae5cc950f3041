from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import Off, at_start, batch_of, general_ppca, sampled

from guides import Adam, Amortized, Diagonal, Echo, Flow, FullRank, LowRank
from guides.gaps import SEARCH, best_posterior, gaps
from guides.sites import At
from ppl_models import Batch, UsageError


def halves(x: torch.Tensor) -> list[Batch]:
    index = torch.arange(len(x))
    return [Batch(part, None, rows) for part, rows in zip(x.chunk(2), index.chunk(2), strict=True)]


def test_gaps_of_ppca_are_the_closed_forms() -> None:
    """Full and low rank hold the posterior of two latents; the mean field's gap and the guide's are known."""
    model = general_ppca()
    x = sampled(model, 40)
    guide = Off(model, x, wider=0.4)
    families = {"full-rank": FullRank(2), "low-rank": LowRank(2, rank=1)}
    found = gaps(model, at_start(guide), halves(x), families=families, own="diagonal", particles=32)
    torch.testing.assert_close(found.log_evidence, model.evidence(x), rtol=0, atol=0.02)
    for name in families:
        assert abs(found.approximation(name).mean()) < 0.005, name
    mean_field = model.mean_field_gap().detach()
    error = found.approximation().std() / 40**0.5
    assert found.approximation().mean().item() == pytest.approx(mean_field.item(), abs=4 * error.item())
    posterior = model.posterior(x)
    off = guide.family.family.distribution(guide.params)
    expected = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(off.mean, scale_tril=off.stddev.diag_embed()), posterior
    ).mean()
    error = found.amortization.std() / 40**0.5
    assert found.amortization.mean().item() == pytest.approx((expected - mean_field).item(), abs=4 * error.item())
    assert 4 * error < 0.2 * (expected - mean_field)


def test_an_optimal_guide_has_no_gap() -> None:
    model = general_ppca()
    x = sampled(model, 20)
    posterior = model.posterior(x)
    scale_tril = posterior.scale_tril.detach()
    rows, columns = torch.tril_indices(2, 2)
    tril = torch.where(rows == columns, scale_tril[:, rows, columns].log(), scale_tril[:, rows, columns])
    guide = Off(model, x, wider=0.0)
    guide.family.family = FullRank(2)
    guide.params = {"loc": posterior.loc.detach(), "tril": tril}
    found = gaps(model, at_start(guide), [batch_of(x)], particles=32)
    assert found.best.keys() == {"own"}
    for gap in (found.approximation(), found.amortization):
        assert gap.abs().max() < 0.02


def test_the_model_is_left_alone() -> None:
    model = general_ppca()
    x = sampled(model, 6)
    before = [(p.clone(), p.requires_grad) for p in model.parameters()]
    gaps(model, at_start(Off(model, x, wider=0.3)), [batch_of(x)], families={"full-rank": FullRank(2)}, samples=5)
    for (value, trained), parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(value, parameter)
        assert parameter.requires_grad == trained
        assert parameter.grad is None


@pytest.mark.parametrize("family", [Diagonal(3), Diagonal(3, scale="softplus"), FullRank(3), LowRank(3), Flow(3)])
def test_families_around_a_gaussian(family: nn.Module) -> None:
    """Where other searches start; the low rank near it."""
    loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 0.2
    params = family.around(loc, scale)
    assert {name: value.shape[1:] for name, value in params.items()} == {
        name: value.shape for name, value in family.initial().items()
    }
    made = family.distribution(params)
    value = torch.randn(5, 3)
    expected = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1).log_prob(value)
    close = 0.2 if isinstance(family, LowRank) else 1e-4
    torch.testing.assert_close(made.log_prob(value), expected, rtol=close, atol=close)


def test_searches_do_not_depend_on_what_else_is_in_a_batch() -> None:
    """But for the noise: the gradient is a datum's own."""
    model = general_ppca()
    x = sampled(model, 40)
    guide = Off(model, x, wider=0.4)
    best = model.mean_field(x)
    for batch in (batch_of(x), batch_of(x[:2])):
        params = best_posterior(model, At(guide, guide.start(batch)), batch, particles=64).params
        torch.testing.assert_close(params["loc"], best.mean[: len(batch.x)].detach(), rtol=0, atol=0.05)
        expected = best.stddev[: len(batch.x)].log().detach().expand(len(batch.x), 2)
        torch.testing.assert_close(params["log"], expected, rtol=0, atol=0.05)


def test_what_has_no_gaps_is_refused() -> None:
    model = general_ppca()
    x = sampled(model, 12)
    batch = batch_of(x)
    with pytest.raises(UsageError, match="no start"):
        gaps(model, lambda batch: model.exact_guide, [batch])
    encoder = nn.Flatten()
    encoder.features = 6
    echo = Amortized(encoder=encoder, family=Echo(2, depth=5)).double()
    with pytest.raises(UsageError, match="no density"):
        gaps(model, at_start(echo), [batch])
    with pytest.raises(UsageError, match="3 latents"):
        gaps(model, at_start(Off(model, x, wider=0.1)), [batch], families={"wide": FullRank(3)}, samples=5)


def test_all_are_judged_on_the_same_noise() -> None:
    """A search that goes nowhere finds what the guide says, to the last bits of the bound on few samples."""
    model = general_ppca()
    x = sampled(model, 4)
    nowhere = replace(SEARCH, steps=1, rule=Adam(lr=1e-12))
    found = gaps(model, at_start(Off(model, x, wider=0.2)), [batch_of(x)], refinement=nowhere, samples=5)
    assert found.amortization.abs().max() < 1e-9
    assert (found.log_evidence - found.guide.elbo).min() > 1e-3
