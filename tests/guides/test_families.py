import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence
from toys import VectorEncoder, batch_of, general_ppca, orthogonal_ppca, sampled

from guides import Amortized, Diagonal, Echo, Flow, Free, FullRank, LowRank, terms
from guides.families import gaussian_kl, sample_family
from guides.sites import run_program
from ppl_models import PPCA, Batch, UsageError
from runners.blueprint import describe, rebuild

FAMILIES = {
    "diagonal": lambda: Diagonal(3),
    "softplus": lambda: Diagonal(3, scale="softplus"),
    "full": lambda: FullRank(3),
    "low": lambda: LowRank(3, rank=2),
    "flow": lambda: Flow(3, hidden=(8,), context=4),
    "echo": lambda: Echo(3, depth=4),
}
DENSITIES = [name for name in FAMILIES if name != "echo"]


def random_params(family: nn.Module, *batch: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: 0.5 * torch.randn(*batch, len(value), dtype=dtype) for name, value in family.initial().items()}


def exact_full_rank(model: PPCA, x: Tensor) -> dict[str, Tensor]:
    """The posterior in the family's parameters, entry by entry from the documented order."""
    posterior, k = model.posterior(x), model.latents
    tril, entries = posterior.scale_tril.detach(), []
    for row in range(k):
        for column in range(row + 1):
            entry = tril[..., row, column]
            entries.append(entry.log() if row == column else entry)
    return {"loc": posterior.loc.detach(), "tril": torch.stack(entries, -1).expand(len(x), -1)}


def low_rank_ppca() -> tuple[PPCA, Tensor, Tensor]:
    """PPCA of five latents with a posterior covariance diag(d) + F F^T, which asks for W^T W = s^2 (C^-1 - I)."""
    diagonal = torch.tensor([0.2, 0.3, 0.25, 0.4, 0.35], dtype=torch.float64)
    factor = 0.25 * torch.randn(5, 2, dtype=torch.float64)
    covariance = diagonal.diag() + factor @ factor.mT
    gram = 0.5 * (covariance.inverse() - torch.eye(5, dtype=torch.float64))
    basis = torch.linalg.qr(torch.randn(7, 5, dtype=torch.float64)).Q
    model = PPCA(basis @ torch.linalg.cholesky(gram).mT, bias=torch.randn(7, dtype=torch.float64), variance=0.5)
    return model, diagonal, factor


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_names_dtypes_and_rebuilding(name: str) -> None:
    family = FAMILIES[name]().double()
    params, index = random_params(family, 6), torch.arange(6)
    q = family.distribution(params, index)
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((6,), (3,), True)
    z = q.expand((4, 6)).rsample()
    assert (z.shape, z.dtype) == ((4, 6, 3), torch.float64)
    assert (z[0] - z[1]).abs().min() > 0
    assert all(value.dim() == 1 for value in family.initial().values())
    again = rebuild(describe(family))
    assert describe(again) == describe(family)
    assert {name: len(value) for name, value in again.initial().items()} == {
        name: len(value) for name, value in family.initial().items()
    }
    if name in DENSITIES:
        assert q.expand((4, 6)).log_prob(z).shape == (4, 6)
        one = family.distribution({name: value[2] for name, value in params.items()})
        torch.testing.assert_close(one.log_prob(z[:, 2]), q.log_prob(z)[:, 2])


@pytest.mark.parametrize("name", DENSITIES)
def test_initial_parameters_are_near_the_prior(name: str) -> None:
    family = FAMILIES[name]()
    q, prior = family.distribution(family.initial()), dist.Normal(torch.zeros(3), 1.0).to_event(1)
    z = prior.sample((200,))
    torch.testing.assert_close(q.log_prob(z), prior.log_prob(z), rtol=0, atol=0.1 if name == "low" else 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_gradient_with_an_encoder(name: str) -> None:
    model = general_ppca(latents=3)
    guide = Amortized(encoder=VectorEncoder(), family=FAMILIES[name]()).double()
    for particles in (1, 3):
        parts = terms(model, guide, batch_of(sampled(model, 6)), particles=particles)
        assert parts.elbo.shape == (particles, 6)
        guide.zero_grad()
        parts.elbo.mean().neg().backward()
        assert all(parameter.grad is not None for parameter in guide.parameters())
        assert all(head.weight.grad.abs().max() > 0 for key, head in guide.heads.items() if key != "context")


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("make", ["free", "amortized"])
def test_sampled_terms_equal_stock_pyros(name: str, make: str) -> None:
    model, family = general_ppca(latents=3), FAMILIES[name]()
    guide = (Free(6, family=family) if make == "free" else Amortized(encoder=VectorEncoder(), family=family)).double()
    batch = batch_of(sampled(model, 6))
    torch.manual_seed(3)
    expected = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, batch)
    torch.manual_seed(3)
    found = terms(model, guide, batch, particles=2, closed_form=False).elbo.mean(0).sum()
    assert found.item() == pytest.approx(-expected, rel=1e-10)


def expected_log_likelihood(model: PPCA, x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """E_q log p(x given z), which for a linear decoder needs only the first two moments of q."""
    spread = torch.einsum("fk,...kl,fl->...", model.weight, covariance, model.weight)
    return model.decode(mean).log_prob(x) - 0.5 * spread / model.log_variance.exp()


def check_exact(model: PPCA, x: Tensor, family: nn.Module, params: dict[str, Tensor]) -> None:
    guide, batch, evidence = Free(len(x), family=family).double(), batch_of(x), model.evidence(x)
    q = family.distribution(params)

    def posterior(again: Batch) -> Tensor:
        return guide.sample(again, params)

    drawn = terms(model, posterior, batch, particles=7, closed_form=False)
    torch.testing.assert_close(drawn.elbo, evidence.expand(7, len(x)), rtol=0, atol=1e-9)
    closed = terms(model, posterior, batch, particles=7)
    expected = expected_log_likelihood(model, x, q.mean, q.covariance_matrix) - evidence
    torch.testing.assert_close(closed.kl.expand(7, len(x)), expected.expand(7, len(x)), rtol=0, atol=1e-9)


def test_bound_of_the_exact_full_rank_posterior_is_the_evidence_for_every_sample() -> None:
    model = general_ppca(latents=3)
    x = sampled(model, 5)
    check_exact(model, x, FullRank(3).double(), exact_full_rank(model, x))


def test_bound_of_an_exact_low_rank_posterior_is_the_evidence_for_every_sample() -> None:
    model, diagonal, factor = low_rank_ppca()
    x = sampled(model, 5)
    posterior = model.posterior(x)
    covariance = diagonal.diag() + factor @ factor.mT
    torch.testing.assert_close(posterior.covariance_matrix, covariance.expand(5, 5, 5))
    params = {
        "loc": posterior.loc.detach(),
        "log": 0.5 * diagonal.log().expand(5, 5),
        "factor": factor.flatten().expand(5, 10),
    }
    check_exact(model, x, LowRank(5, rank=2).double(), params)


def minimised(model: PPCA, x: Tensor, family: nn.Module) -> Tensor:
    """Evidence minus the bound, per datum, after LBFGS on the bound in closed form."""
    params = {name: value.double().expand(len(x), -1).clone() for name, value in family.initial().items()}
    for value in params.values():
        value.requires_grad_()
    prior = dist.Normal(torch.zeros(model.latents, dtype=x.dtype), 1.0).to_event(1)
    optimizer = torch.optim.LBFGS(
        params.values(), max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def bound() -> Tensor:
        q = family.distribution(params)
        kl = gaussian_kl(q, prior)
        covariance = q.variance.diag_embed() if kl is None else q.covariance_matrix
        kl = kl_divergence(q, prior) if kl is None else kl
        return expected_log_likelihood(model, x, q.mean, covariance) - kl

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -bound().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (model.evidence(x) - bound()).detach()


def test_optimisation_reaches_the_evidence_with_full_rank_and_stops_at_the_mean_field_gap_without() -> None:
    model = general_ppca()
    model.requires_grad_(False)
    x = sampled(model, 4)
    gap = model.mean_field_gap().expand(4)
    assert gap[0] > 0.05
    assert minimised(model, x, FullRank(2).double()).abs().max() < 1e-6
    torch.testing.assert_close(minimised(model, x, Diagonal(2)), gap, rtol=0, atol=1e-6)


def test_optimisation_of_low_rank_leaves_its_start_and_reaches_a_low_rank_posterior() -> None:
    model, _, _ = low_rank_ppca()
    model.requires_grad_(False)
    x = sampled(model, 3)
    assert minimised(model, x, LowRank(5, rank=2)).abs().max() < 1e-6
    assert model.mean_field_gap() > 0.01


def test_low_rank_starts_off_the_saddle_and_the_same_each_time() -> None:
    family = LowRank(4, rank=4)
    factor = family.initial()["factor"].view(4, 4)
    torch.testing.assert_close(factor.mT @ factor, 0.01 * torch.eye(4))
    assert torch.equal(factor.flatten(), LowRank(4, rank=4).initial()["factor"])


def normals(*batch: int) -> dist.TorchDistribution:
    loc, scale = torch.randn(*batch, 3, dtype=torch.float64), torch.rand(*batch, 3, dtype=torch.float64) + 0.5
    return dist.Normal(loc, scale).to_event(1)


@pytest.mark.parametrize("family", [FullRank(3), LowRank(3, rank=2)])
@pytest.mark.parametrize("prior", [(), (5,), (4, 5)])
def test_gaussian_kl_equals_torchs_for_dense_gaussians(family: nn.Module, prior: tuple[int, ...]) -> None:
    q, p = family.double().distribution(random_params(family, 5)), normals(*prior)
    dense_q = torch.distributions.MultivariateNormal(q.mean, q.covariance_matrix)
    dense_p = torch.distributions.MultivariateNormal(p.mean, p.variance.diag_embed())
    expected = kl_divergence(dense_q, dense_p)
    torch.testing.assert_close(gaussian_kl(q, p), expected)
    torch.testing.assert_close(gaussian_kl(q.expand((4, 5)), p), expected.expand(4, 5))


def test_gaussian_kl_of_a_diagonal_covariance_equals_torchs_for_independent_normals() -> None:
    p, independent = normals(5), normals(5)
    dense = dist.MultivariateNormal(independent.mean, scale_tril=independent.stddev.diag_embed())
    torch.testing.assert_close(gaussian_kl(dense, p), kl_divergence(independent, p))


def test_gaussian_kl_leaves_other_pairs_alone() -> None:
    q = FullRank(3).distribution(FullRank(3).initial())
    others = [
        dist.Laplace(torch.zeros(3), 1.0).to_event(1),
        dist.Normal(torch.zeros(3), 1.0),
        dist.Normal(torch.zeros(2, 3), 1.0).to_event(2),
        q,
    ]
    assert all(gaussian_kl(q, other) is None for other in others)
    assert gaussian_kl(others[0], others[1].to_event(1)) is None


@pytest.mark.parametrize("name", DENSITIES)
def test_under_autocast_samples_and_densities_keep_float32(name: str) -> None:
    family = FAMILIES[name]()
    for network in getattr(family, "networks", []):
        nn.init.normal_(network.layers[-1].weight, std=0.1)  # they start at zero
    params, batch = random_params(family, 6, dtype=torch.float32), Batch(None, None, torch.arange(6))

    def guide(b: Batch) -> Tensor:
        return sample_family("z", family, b, params)

    values = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            site = run_program(guide, batch)["z"]
            again = site._replace(value=site.value.view_as(site.value))
            values.append((site.value, site.log_prob((1, 6)), again.log_prob((1, 6))))
    for exact, under in zip(*values, strict=True):
        assert under.dtype == torch.float32
        torch.testing.assert_close(under, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 4])
def test_impossible_ranks_are_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=f"rank {rank}, expected 1 to 3"):
        LowRank(3, rank=rank)


def test_families_get_the_index_of_the_batch() -> None:
    class Shifted(Diagonal):
        def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> dist.TorchDistribution:
            return dist.Normal(params["loc"] + 100 * index.unsqueeze(-1), 0.1).to_event(1)

    batch = Batch(torch.randn(3, 6), None, torch.tensor([2, 0, 1]))
    for guide in (Free(3, family=Shifted(2)), Amortized(encoder=VectorEncoder(), family=Shifted(2))):
        torch.testing.assert_close(guide(batch).div(100).round(), batch.index.unsqueeze(-1).expand(3, 2).float())


def test_orthogonal_posteriors_need_no_more_than_the_diagonal() -> None:
    model = orthogonal_ppca()
    model.requires_grad_(False)
    x = sampled(model, 3)
    for family in (Diagonal(2), FullRank(2).double(), LowRank(2, rank=1)):
        assert minimised(model, x, family).abs().max() < 1e-6
