"""Annealed importance sampling, against models whose evidence is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import small
import torch
from torch import Tensor, nn
from toys import batch_of, general_ppca, sampled

from guides import Amortized, Echo
from guides.ais import ais, bdmc
from guides.annealing import Annealing, StepSizes, anneal, tune
from guides.hmc import Path, transition
from guides.sites import Program, WeightLatents, run_program
from ppl_models import PPCA, VAE, Batch, MLPDecoder, MLPEncoder, UsageError

FEW = Annealing(temperatures=5, chains=3, leapfrog=3)


@pytest.fixture
def _briefly_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not ask how well."""
    monkeypatch.setattr("guides.annealing.WARM_UP", 10)
    monkeypatch.setattr("guides.annealing.TUNING", 40)


def path_of(model: Program, batch: Batch, chains: int, posterior: Program | None = None) -> Path:
    """The path of a model of one vector, z."""
    return Path(model, posterior, batch, chains, {"z": torch.Size([2])})


def tame() -> tuple[PPCA, Batch, Tensor]:
    """A model whose weights of few temperatures have moments, forward and in reverse; data and their evidence."""
    weight = torch.linalg.qr(torch.randn(6, 2).double()).Q * torch.tensor([0.8, 0.6])
    weight[:, 1] += 0.5 * weight[:, 0]
    model = PPCA(weight, variance=1.0)
    x = 0.5 * sampled(model, 3)
    return model, batch_of(x), model.evidence(x).detach()


def recording(model: nn.Module) -> list[Batch]:
    """A list that gets every batch with data that the model is asked for."""
    seen: list[Batch] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]) if args[0].x is not None else None)
    return seen


def spread(parts: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(parts.mean()), float(parts.std() / len(parts) ** 0.5)


def wide(model: PPCA) -> Callable[[Batch], Program]:
    """Guides that are the posterior, but wider and somewhere else."""

    def posterior(batch: Batch) -> Program:
        exact = model.posterior(batch.x)

        def guide(batch: Batch) -> None:
            with pyro.plate("data", len(batch.index)):
                pyro.sample("z", dist.MultivariateNormal(exact.mean + 0.2, 1.5 * exact.covariance_matrix))

        return guide

    return posterior


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_evidence_of_simulated_data_lies_between_the_bounds(start: str) -> None:
    model = general_ppca()
    posterior = None if start == "prior" else wide(model)
    seen = recording(model)
    for temperatures, tolerance in ((10, math.inf), (80, 0.1)):
        seen.clear()
        annealing = Annealing(temperatures=temperatures, leapfrog=3)
        with torch.no_grad():
            found = bdmc(model, [Batch(None, None, torch.arange(100))], posterior=posterior, annealing=annealing)
        assert all(batch.x is seen[0].x for batch in seen)
        exact = model.evidence(seen[0].x).detach()
        for gap in (exact - found.lower.log_evidence, found.upper.log_evidence - exact):
            mean, error = spread(gap)
            assert -3 * error < mean < tolerance + 3 * error
            assert error < 0.3
        torch.testing.assert_close(found.gap, found.upper.log_evidence - found.lower.log_evidence)
        for part in found:
            assert all(values.shape == (100,) and values.dtype == torch.float64 for values in part)
            assert ((part.effective_chains >= 1 - 1e-9) & (part.effective_chains <= 8 + 1e-9)).all()
        assert 0.5 < found.lower.acceptance.mean() < 0.8
        assert 0.5 < found.upper.acceptance.mean() < 0.8


def test_one_temperature_is_importance_sampling_from_the_prior() -> None:
    model, batch, _ = tame()
    path, annealing = path_of(model, batch, 7), Annealing(temperatures=1, chains=7)
    torch.manual_seed(4)
    point = path.start()
    torch.manual_seed(4)
    z = run_program(model, batch, particles=7)["z"].value
    log_weight, acceptance = anneal(path, point, None, annealing)
    torch.testing.assert_close(log_weight, model.decode(z).log_prob(batch.x).detach())
    assert acceptance.tolist() == [1, 1, 1]
    found = ais(model, [batch], annealing=replace(annealing, chains=20_000))
    torch.testing.assert_close(found.log_evidence, model.evidence(batch.x).detach(), rtol=0, atol=0.1)
    prior = run_program(model, batch, particles=20_000)["z"].value
    weight = model.decode(prior).log_prob(batch.x).exp().detach()
    expected = 20_000 * weight.mean(0).square() / weight.square().mean(0)
    torch.testing.assert_close(found.effective_chains, expected, rtol=0.05, atol=0)


@pytest.mark.usefixtures("_briefly_tuned")
def test_bound_rises_with_temperatures() -> None:
    model = general_ppca()
    batch = batch_of(sampled(model, 200))
    before, exact = None, model.evidence(batch.x).detach()
    for temperatures in (1, 8, 50):
        found = ais(model, [batch], annealing=Annealing(temperatures=temperatures, chains=4, leapfrog=2))
        mean, error = spread(exact - found.log_evidence)
        assert mean > -3 * error
        assert before is None or mean < before - 3 * error
        before = mean


@pytest.mark.usefixtures("_briefly_tuned")
@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_weights_are_unbiased_for_the_evidence_and_in_reverse_for_its_inverse(schedule: str, start: str) -> None:
    model, batch, exact = tame()
    posterior = None if start == "prior" else wide(model)(batch)
    annealing = Annealing(temperatures=5, leapfrog=2, schedule=schedule)
    steps = tune(path_of(model, batch, 8, posterior), annealing)
    path = path_of(model, batch, 20_000, posterior)
    forward, acceptance = anneal(path, path.start(), steps, annealing)
    assert acceptance.min() > 0.3
    point = path.at(model.posterior(batch.x).sample((20_000,)))
    reverse, _ = anneal(path, point, steps, annealing, reverse=True)
    for ratio in ((forward - exact).exp(), (reverse + exact).exp()):
        error = ratio.std(0) / 20_000**0.5
        assert error.max() < 0.015
        assert ((ratio.mean(0) - 1).abs() < 4 * error).all()


def test_chains_of_one_datum_are_independent() -> None:
    model, batch, _ = tame()
    path = path_of(model, batch, 20_000)
    point = path.at(model.posterior(batch.x).mean.detach().expand(20_000, -1, -1))
    step = torch.full((3, 2), 0.7).double()
    point, _ = transition(point, path, 1.0, step, leapfrog=3)
    halves = point.z.view(2, 10_000, 3, 2)
    first, second = halves - halves.mean(1, keepdim=True)
    correlation = (first * second).mean(0) / first.std(0) / second.std(0)
    assert correlation.abs().max() < 4 / 10_000**0.5


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_transitions_leave_their_density_invariant(beta: float) -> None:
    model, batch, _ = tame()
    # At β the posterior is that of the same weights under noise of variance 1 / β.
    tempered = PPCA(model.weight, variance=1 / beta).double()
    exact = tempered.posterior(batch.x)
    path = path_of(model, batch, 20_000)
    point = path.at(exact.sample((20_000,)))
    step = 1.2 / (torch.diagonal(exact.precision_matrix[0])).sqrt().expand(3, 2).detach()
    accepted = []
    for _ in range(15):
        start = point.z
        point, acceptance = transition(point, path, beta, step, leapfrog=3)
        accepted.append(acceptance.mean())
    assert 0.4 < torch.stack(accepted).mean() < 0.9
    moved = (point.z != start).any(-1).double().mean()
    assert moved == pytest.approx(float(accepted[-1]), abs=0.02)
    torch.testing.assert_close(point.base, path.at(point.z).base)
    torch.testing.assert_close(point.ratio_gradient, path.at(point.z).ratio_gradient)
    error = exact.stddev / 20_000**0.5
    assert ((point.z.mean(0) - exact.mean).abs() < 4 * error).all()
    centred = (point.z - exact.mean) @ torch.linalg.inv(exact.scale_tril[0]).mT
    second = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = second.std(0) / 20_000**0.5
    assert ((second.mean(0) - torch.eye(2)).abs() < 4 * error).all()


def test_transitions_reach_their_density_from_elsewhere() -> None:
    model, batch, _ = tame()
    exact = model.posterior(batch.x)
    path = path_of(model, batch, 5000)
    point = path.at(torch.full((5000, 3, 2), 2.0).double())
    for _ in range(20):
        point, _ = transition(point, path, 1.0, torch.full((3, 2), 0.4).double(), leapfrog=5)
    assert ((point.z.mean(0) - exact.mean).abs() < 4 * exact.stddev / 5000**0.5).all()
    assert (point.z.std(0) / exact.stddev - 1).abs().max() < 0.05


@pytest.mark.usefixtures("_briefly_tuned")
def test_from_the_exact_posterior_every_chain_has_the_evidence() -> None:
    model = general_ppca()
    batch = batch_of(sampled(model, 6))
    found = ais(model, [batch], posterior=lambda _: model.exact_guide, annealing=FEW)
    torch.testing.assert_close(found.log_evidence, model.evidence(batch.x).detach())
    torch.testing.assert_close(found.effective_chains, torch.full((6,), 3.0).double())
    seen = recording(model)
    both = bdmc(model, [batch], posterior=lambda _: model.exact_guide, annealing=FEW)
    assert not torch.equal(seen[0].x, batch.x)
    for part in both:
        torch.testing.assert_close(part.log_evidence, model.evidence(seen[0].x).detach())


@pytest.mark.usefixtures("_briefly_tuned")
def test_a_posterior_is_asked_for_the_simulated_data() -> None:
    model = general_ppca()
    asked: list[Batch] = []
    batches = [batch_of(sampled(model, 2)), Batch(torch.zeros(3, 6).double(), None, torch.arange(2, 5))]

    def posterior(batch: Batch) -> Program:
        asked.append(batch)
        return model.exact_guide

    seen = recording(model)
    both = bdmc(model, batches, posterior=posterior, annealing=FEW)
    assert both.gap.shape == (5,)
    assert [batch.index.tolist() for batch in asked] == [[0, 1], [2, 3, 4]]
    assert all(any(batch.x is other.x for other in seen) for batch in asked)
    assert not any(torch.equal(one.x, other.x) for one, other in zip(asked, batches, strict=True))


class Pair:
    """z2 of a matrix event, z1 given z2, x given z1, all linear and Gaussian; a guide of both that is somewhat off."""

    def __init__(self) -> None:
        f64 = {"dtype": torch.float64}
        self.upward, self.weight = 0.8 * torch.randn(3, 2, **f64), torch.randn(5, 3, **f64)
        marginal = self.upward @ self.upward.T + 0.25 * torch.eye(3, **f64)
        covariance = self.weight @ marginal @ self.weight.T + 0.36 * torch.eye(5, **f64)
        self.evidence = dist.MultivariateNormal(torch.zeros(5, **f64), covariance)
        gain = torch.cat([marginal, self.upward.T]) @ self.weight.T @ torch.linalg.inv(covariance)
        self.gain = gain

    def __call__(self, batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z2 = pyro.sample("z2", dist.Normal(self.weight.new_zeros(1, 2), 1.0).to_event(2))
            z1 = pyro.sample("z1", dist.Normal(z2.squeeze(-2) @ self.upward.T, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ self.weight.T, 0.6).to_event(1), obs=batch.x)

    def guide(self, batch: Batch) -> None:
        mean = batch.x @ self.gain.T
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z1", dist.Normal(mean[:, :3], 0.5).to_event(1))
            pyro.sample("z2", dist.Normal(mean[:, None, 3:], 0.9).to_event(2))


@pytest.mark.usefixtures("_briefly_tuned")
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_several_latents_of_any_shape(start: str) -> None:
    pair = Pair()
    asked: list[Tensor] = []

    def model(batch: Batch) -> None:
        if batch.x is not None:
            asked.append(batch.x)
        pair(batch)

    posterior = None if start == "prior" else lambda _: pair.guide
    found = bdmc(
        model,
        [Batch(None, None, torch.arange(60))],
        posterior=posterior,
        annealing=Annealing(temperatures=60, chains=4, leapfrog=3),
    )
    exact = pair.evidence.log_prob(asked[0])
    for gap in (exact - found.lower.log_evidence, found.upper.log_evidence - exact):
        mean, error = spread(gap)
        assert -3 * error < mean < 0.3 + 3 * error
        assert error < 0.2


SCALES = torch.tensor([1.0, 1 / 30], dtype=torch.float64)


def unequal(batch: Batch) -> None:
    """Two data, of which one says little of its latent and one says much."""
    with pyro.plate("data", len(batch.index)):
        z = pyro.sample("z", dist.Normal(SCALES.new_zeros(2), 1.0).to_event(1))
        noise = SCALES[batch.index].unsqueeze(-1)
        pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=batch.x)


def test_step_sizes_are_a_datums_own_and_follow_the_temperature() -> None:
    x = torch.tensor([[0.5, -0.3], [0.7, 0.2]]).double()
    annealing = Annealing(temperatures=100, chains=16, leapfrog=4)
    steps = tune(path_of(unequal, batch_of(x), 16), annealing)
    assert steps.log.shape == (20, 2, 2)
    wide, narrow = steps.at(1.0).mean(-1)
    assert 10 < wide / narrow < 40
    wide, narrow = steps.at(0.0).mean(-1)
    assert 0.3 < wide / narrow < 5
    found = ais(unequal, [batch_of(x)], annealing=annealing)
    assert ((found.acceptance > 0.55) & (found.acceptance < 0.8)).all()
    exact = dist.Normal(0.0, (1 + SCALES.square()).sqrt().unsqueeze(-1)).log_prob(x).sum(-1)
    torch.testing.assert_close(found.log_evidence, exact, rtol=0, atol=1.0)


def test_step_sizes_are_a_dimensions_own() -> None:
    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(SCALES.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, SCALES).to_event(1), obs=batch.x)

    steps = tune(path_of(model, batch_of(torch.tensor([[0.5, 0.7]]).double()), 8), Annealing())
    wide, narrow = steps.at(1.0)[0]
    assert 10 < wide / narrow < 40


def test_step_sizes_are_interpolated() -> None:
    steps = StepSizes(torch.tensor([0.0, 1.0, 4.0, 2.0]).double().view(4, 1, 1))
    found = [float(steps.at(u).log()) for u in (0.0, 0.125, 0.25, 0.375, 0.75, 0.875, 1.0)]
    assert found == pytest.approx([0, 0, 0.5, 1, 3, 2, 2])


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_acceptance_is_near_what_is_asked_for_on_a_decoder_with_kinks(start: str) -> None:
    model = VAE(decoder=MLPDecoder(latents=4, shape=(1, 8, 8), hidden=(32,))).double()
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), latents=4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    seen = recording(model)
    annealing = Annealing(temperatures=40, chains=4, leapfrog=3)
    batch = Batch(None, None, torch.arange(10))
    posterior = None if start == "prior" else lambda batch: guide
    found = bdmc(model, [batch], annealing=annealing, posterior=posterior)
    for part in found:
        assert 0.55 < part.acceptance.mean() < 0.75
        assert ((part.acceptance > 0.4) & (part.acceptance < 0.85)).all()
    assert set(seen[0].x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.usefixtures("_briefly_tuned")
def test_densities_that_are_not_finite_are_no_density() -> None:
    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(batch.x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0, validate_args=False), obs=batch.x)

    x = torch.tensor([-1.0, 0.3]).double()
    grid = torch.linspace(0, 12, 200_001, dtype=torch.float64)[1:].unsqueeze(-1)
    density = dist.Normal(0.0, 1.0).log_prob(grid) + dist.Normal(grid.log(), 1.0).log_prob(x)
    exact = (density.logsumexp(0) + math.log(12 / 200_000)).double()
    found = ais(model, [batch_of(x)], annealing=Annealing(temperatures=30, chains=400, leapfrog=5))
    torch.testing.assert_close(found.log_evidence, exact, rtol=0, atol=0.15)
    assert all(values.isfinite().all() for values in found)

    def impossible(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(batch.x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal((-z.square() - 1).log(), 1.0, validate_args=False), obs=batch.x)

    nothing = ais(impossible, [batch_of(x)], annealing=FEW)
    assert nothing.log_evidence.tolist() == [-math.inf] * 2
    assert nothing.effective_chains.tolist() == [0, 0]


@pytest.mark.usefixtures("_briefly_tuned")
def test_the_model_is_left_alone() -> None:
    model, batch, _ = tame()
    model.bias.requires_grad_(False)
    before = small.weights(model)
    ais(model, [batch], annealing=FEW)
    bdmc(model, [batch], posterior=wide(model), annealing=FEW)
    assert not small.changed(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True]


@pytest.mark.usefixtures("_briefly_tuned")
def test_batches_are_joined_and_seeds_repeat() -> None:
    model, batch, _ = tame()
    halves = [batch_of(batch.x[:1]), Batch(batch.x[1:], None, torch.arange(1, 3))]
    runs: list[range] = []

    def progress(steps: range) -> range:
        runs.append(steps)
        return steps

    first = ais(model, halves, annealing=FEW, seed=3, progress=progress)
    assert first.log_evidence.shape == (3,)
    assert [len(steps) for steps in runs] == [50, 5] * 2
    again = ais(model, halves, annealing=FEW, seed=3)
    other = ais(model, halves, annealing=FEW, seed=4)
    assert torch.equal(first.log_evidence, again.log_evidence)
    assert not torch.equal(first.log_evidence, other.log_evidence)
    one = ais(model, halves, annealing=replace(FEW, chains=1))
    assert one.effective_chains.tolist() == [1, 1, 1]
    assert bdmc(model, halves, annealing=replace(FEW, chains=1)).gap.shape == (3,)


@pytest.mark.usefixtures("_briefly_tuned")
def test_labels_are_kept() -> None:
    model = small.conditional()
    seen = recording(model)
    batch = small.images(4).gather(torch.arange(4))
    bdmc(model, [batch], annealing=FEW)
    assert all(torch.equal(other.y, batch.y) and torch.equal(other.index, batch.index) for other in seen)


def test_a_datum_is_not_moved_by_its_neighbours() -> None:
    """A gradient of the batch's mean, or energies of the batch's sum, would shrink steps or tie acceptances."""
    model, batch, _ = tame()
    path = path_of(model, batch, 2)
    z = torch.randn(2, 3, 2).double()
    together = path.at(z)
    for i in range(3):
        alone = path_of(model, batch_of(batch.x[i : i + 1]), 2).at(z[:, i : i + 1])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[:, i : i + 1], other)
    expected = (batch.x - z @ model.weight.mT - model.bias) @ model.weight - z
    torch.testing.assert_close(together.gradient(1.0), expected.detach())


@pytest.mark.usefixtures("_briefly_tuned")
def test_nothing_is_read_on_the_host() -> None:
    model = small.model().to("meta")
    batch = Batch(torch.zeros(4, 1, 8, 8, device="meta"), None, torch.arange(4, device="meta"))
    guide = small.amortized().to("meta")
    for posterior in (None, guide):
        path = path_of(model, batch, 3, posterior)
        with pyro.validation_enabled(False):
            annealing = Annealing(temperatures=2, chains=3, leapfrog=1)
            steps = tune(path, annealing)
            for reverse in (False, True):
                log_weight, _ = anneal(path, path.start(), steps, annealing, reverse=reverse)
                assert log_weight.shape == (3, 4)


def of_latent(distribution: Callable[[], dist.TorchDistribution]) -> Program:
    """A model whose latent has some distribution."""

    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", distribution())
            pyro.sample("x", dist.Normal(z.double(), 1.0), obs=batch.x)

    return model


@pytest.mark.parametrize(
    "distribution",
    [
        lambda: dist.Gamma(torch.ones(()), 1.0),
        lambda: dist.Uniform(torch.zeros(()), 1.0),
        lambda: dist.Bernoulli(torch.full((), 0.5)),
    ],
)
def test_latents_with_bounds_are_refused(distribution: Callable[[], dist.TorchDistribution]) -> None:
    for method in (ais, bdmc):
        with pytest.raises(UsageError, match="site 'z' is a .* any real number"):
            method(of_latent(distribution), [batch_of(torch.ones(3).double())], annealing=FEW)


@pytest.mark.usefixtures("_briefly_tuned")
def test_guides_without_a_density_are_refused() -> None:
    model, batch, _ = tame()

    def delta(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Delta(torch.zeros(2).double(), event_dim=1))

    with pytest.raises(UsageError, match="site 'z': the guide samples a Delta"):
        ais(model, [batch], posterior=lambda _: delta, annealing=FEW)
    encoder = MLPEncoder(shape=(1, 8, 8), hidden=(16,))
    echo = Amortized(encoder=encoder, family=Echo(2, depth=2))
    images = small.images(5).gather(torch.arange(5))
    with pytest.raises(UsageError, match="site 'z': a guide with a rate"):
        ais(small.model(), [images], posterior=lambda _: echo, annealing=FEW)

    def other(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("y", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))

    with pytest.raises(UsageError, match="the guide's are"):
        ais(model, [batch], posterior=lambda _: other, annealing=FEW)


def test_what_cannot_be_annealed_is_refused() -> None:
    model, batch, _ = tame()
    with pytest.raises(UsageError, match="allows no scale"):
        ais(WeightLatents(0.5)(model), [batch], annealing=FEW)
    with pytest.raises(UsageError, match=r"obs=batch\.x"):
        ais(model, [batch._replace(x=None)], annealing=FEW)

    def unnamed(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("pixels", dist.Normal(z, 1.0), obs=batch.x)

    with pytest.raises(UsageError, match=r"site 'x'.*found sites \['z', 'pixels'\]"):
        bdmc(unnamed, [batch], annealing=FEW)
    for wrong, line in (
        ({"temperatures": 0}, "0 temperatures"),
        ({"chains": 0}, "0 chains"),
        ({"leapfrog": 0}, "0 leapfrog"),
        ({"schedule": "cosine"}, "'cosine'"),
        ({"acceptance": 1.0}, r"acceptance 1\.0"),
    ):
        with pytest.raises(UsageError, match=line):
            Annealing(**wrong)


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
def test_schedules_rise_from_0_to_1(schedule: str) -> None:
    beta = Annealing(schedule=schedule).beta
    values = [beta(t / 50) for t in range(51)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values == sorted(set(values))
    assert values[25] == pytest.approx(0.5)
    first, quarter, last = torch.tensor([-4.0, -2.0, 4.0]).sigmoid().tolist()
    low = (quarter - first) / (last - first)
    assert beta(0.25) == pytest.approx(0.25 if schedule == "linear" else low)


class Vain(dist.Normal):
    """Whatever it draws it calls impossible."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - math.inf


def test_simulated_data_that_the_model_calls_impossible_are_refused() -> None:
    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", Vain(z, 1.0).to_event(1), obs=batch.x)

    with pytest.raises(UsageError, match="density at latents and data of its own is not finite"):
        bdmc(model, [Batch(None, None, torch.arange(3))], annealing=replace(FEW, temperatures=1))


@pytest.mark.parametrize("ask", [ais, bdmc])
def test_no_data_are_refused(ask: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="found no data"):
        ask(general_ppca(), [], annealing=FEW)
