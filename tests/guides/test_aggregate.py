"""Active units and the split of the bound, against PPCA's closed forms and pair by pair against every posterior."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from toys import VectorEncoder, always, at_start, batch_of, general_ppca, sampled

from guides import Amortized, AmortizedLadder, Diagonal, Echo, Flow, FullRank, LowRank, aggregate, terms
from guides.aggregate import ActiveUnits, Split, active_units, collapse, elbo_split
from guides.evidence import bounds
from guides.sites import Program
from ppl_models import PPCA, Batch, Ladder, UsageError

F64 = {"dtype": torch.float64}


def batches(x: Tensor, size: int) -> list[Batch]:
    """A table in order."""
    return [
        Batch(part, None, index) for part, index in zip(x.split(size), torch.arange(len(x)).split(size), strict=True)
    ]


def quiet_ppca() -> PPCA:
    """A correlated posterior that says little."""
    model = general_ppca()
    return PPCA(0.4 * model.weight.detach(), bias=model.bias.detach(), variance=0.5)


def with_idle_unit() -> PPCA:
    """The middle latent does not reach the data."""
    weight = torch.randn(6, 3, **F64)
    weight[:, 1] = 0
    return PPCA(weight, variance=0.5)


class Vectors(VectorEncoder):
    """An encoder whose answers differ more."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def encoded(family: nn.Module) -> Amortized:
    """A guide whose networks are nothing in particular."""
    guide = Amortized(encoder=Vectors(), family=family).double()
    for p in guide.family.parameters():
        nn.init.normal_(p, std=0.3)
    return guide


class Drawn:
    """A posterior that keeps what it draws, batch by batch: what runs first, before those at given values."""

    def __init__(self, posterior: Callable[[Batch], Program], *, sites: tuple[str, ...] = ("z",)) -> None:
        self.posterior, self.sites = posterior, sites
        self.values: list[dict[str, Tensor]] = []

    def __call__(self, batch: Batch) -> Program:
        program, first = self.posterior(batch), True

        def run(batch: Batch) -> object:
            nonlocal first
            with pyro.poutine.trace() as tape:
                out = program(batch)
            if first:
                self.values.append({name: tape.trace.nodes[name]["value"] for name in self.sites})
            first = False
            return out

        return run

    def codes(self, particles: int, site: str = "z", *, event: int = 1) -> Tensor:
        """What was drawn, `(particles, data, *event)`, of so many event dimensions."""
        drawn = [values[site] for values in self.values]
        return torch.cat([z.reshape(particles, -1, *z.shape[z.dim() - event :]) for z in drawn], 1)


def by_pairs(codes: Tensor, density: Callable[[Tensor, int], Tensor], count: int) -> Tensor:
    """log q(z given its datum) - log q(z), means over particles, one posterior at a time by its datum's number."""
    log_q = torch.stack([density(codes, m) for m in range(count)])
    own = torch.stack([log_q[n, :, n] for n in range(count)], -1)
    return (own - log_q.exp().mean(0).log()).mean(0)


# Active units.


def test_units_of_ppca_are_as_active_as_the_law_of_total_variance_says() -> None:
    model = with_idle_unit()
    units = active_units(always(model.exact_guide), batches(sampled(model, 4000), 1000))
    # The prior's variance 1 is that of the mean and the mean of that: of the posterior, which is σ² M⁻¹ everywhere.
    weight = model.weight.detach()
    precision = weight.T @ weight / 0.5 + torch.eye(3, **F64)
    expected = 1 - torch.linalg.inv(precision).diagonal()
    assert ((units.variance["z"] - expected).abs() < 4 * units.error["z"]).all()
    assert units.error["z"].max() < 0.04
    assert expected[1] == 0
    assert units.active["z"].tolist() == [True, False, True]
    assert units.number == {"z": 2}


def test_noise_of_two_samples_is_subtracted() -> None:
    model = quiet_ppca()
    data = batches(sampled(model, 40), 16)
    exact = model.posterior(torch.cat([batch.x for batch in data])).loc.var(0)
    found = torch.stack(
        [active_units(always(model.exact_guide), data, particles=2, seed=s).variance["z"] for s in range(400)]
    )
    error = found.std(0) / 400**0.5
    noise = model.posterior(data[0].x).variance[0] / 2
    assert (noise > 20 * error).all()  # not to be missed, were it left in
    assert ((found.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("particles", [2, 20])
def test_error_of_the_variance_is_its_spread(particles: int) -> None:
    model = quiet_ppca()
    found = [
        active_units(always(model.exact_guide), [batch_of(sampled(model, 150))], particles=particles, seed=s)
        for s in range(300)
    ]
    spread = torch.stack([units.variance["z"] for units in found]).std(0)
    stated = torch.stack([units.error["z"] for units in found]).mean(0)
    torch.testing.assert_close(stated, spread, rtol=0.15, atol=0)


def test_posteriors_without_samples_or_density_will_do() -> None:
    def point(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Delta(batch.x, event_dim=1))

    x = torch.randn(30, 6, **F64)
    units = active_units(always(point), batches(x, 8))
    torch.testing.assert_close(units.variance["z"], x.var(0))


def test_units_of_echo_move_with_the_codes() -> None:
    guide, x = Amortized(encoder=Vectors(), family=Echo(3, depth=20)).double().eval(), torch.randn(400, 6, **F64)
    guide.family.remember(guide.start(batch_of(x)), torch.arange(400))
    units = active_units(at_start(guide), batches(x, 100))
    # The mean of the noise is the same for all, but that each leaves itself out.
    q = guide.family.distribution(guide.start(batch_of(x)), torch.arange(400))
    noise = q.expand((400, 400)).rsample().mean(0) - q.code
    exact = (q.code + noise).var(0)
    assert ((units.variance["z"] - exact).abs() < 4 * units.error["z"]).all()
    assert units.number == {"z": 3}


# The split.


def test_split_of_ppca_is_that_of_a_gaussian_channel() -> None:
    model, count = quiet_ppca(), 4000
    split = elbo_split(model, always(model.exact_guide), batches(sampled(model, count), 1000), particles=2)
    weight = model.weight.detach()
    expected = 0.5 * torch.logdet(torch.eye(2, **F64) + weight.T @ weight / 0.5)
    # The prior's entropy less the posterior's, which is another way to it.
    posterior = model.posterior(torch.zeros(1, 6, **F64)).covariance_matrix[0].detach()
    torch.testing.assert_close(expected, -0.5 * torch.logdet(posterior))
    information, error = split.mutual_information.mean(), split.mutual_information.std() / count**0.5
    assert error < 0.02
    assert 0.4 < expected < 2
    assert abs(information - expected) < 4 * error
    kl, error = split.marginal_kl.mean(), split.marginal_kl.std() / count**0.5
    assert error < 0.02
    assert abs(kl) < 4 * error
    assert split.limit == math.log(count)
    assert not split.stated


def test_kl_of_the_marginal_is_that_of_two_gaussians() -> None:
    """Data of the model, posteriors of a twice too wide spread: q(z) is normal, and not the prior."""
    weight = torch.tensor([[1.2], [0.5]], **F64)
    model = PPCA(weight, variance=0.8)
    variance = 0.8 / (float((weight**2).sum()) + 0.8)

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(1.0 + model.posterior(batch.x).loc, (4 * variance) ** 0.5).to_event(1))

    split = elbo_split(model, always(guide), batches(sampled(model, 3000), 1500))
    whole = 1 - variance + 4 * variance
    for found, expected in (
        (split.mutual_information, 0.5 * math.log(whole / (4 * variance))),
        (split.marginal_kl, 0.5 * (whole + 1.0 - 1 - math.log(whole))),
    ):
        error = float(found.std()) / 3000**0.5
        assert float(found.mean()) == pytest.approx(expected, abs=4 * error)
        assert error < 0.04 < expected / 2


@pytest.mark.parametrize("particles", [1, 3])
def test_parts_add_up_to_the_bound_on_the_same_samples(particles: int) -> None:
    model, guide = general_ppca(), encoded(FullRank(2))
    data = batches(sampled(model, 25), 10)
    split = elbo_split(model, at_start(guide), data, particles=particles, seed=7)
    assert all(part.shape == (25,) for part in (*split[:3], split.elbo))
    torch.testing.assert_close(
        split.log_likelihood,
        bounds(model, at_start(guide), data, particles=particles, seed=7).log_likelihood,
        rtol=0,
        atol=0,
    )
    seeds, expected = torch.Generator().manual_seed(7), []
    for batch in data:
        torch.manual_seed(torch.randint(2**62, (2,), generator=seeds)[1].item())
        expected.append(terms(model, guide, batch, particles=particles, closed_form=False).elbo.mean(0).detach())
    torch.testing.assert_close(split.elbo, torch.cat(expected))
    again = elbo_split(model, at_start(guide), data, particles=particles, seed=7)
    torch.testing.assert_close(again.mutual_information, split.mutual_information, rtol=0, atol=0)
    assert not torch.equal(elbo_split(model, at_start(guide), data, particles=particles).elbo, split.elbo)


FAMILIES = {
    "diagonal": lambda: Diagonal(2),
    "full rank": lambda: FullRank(2),
    "low rank": lambda: LowRank(2, rank=1),
    "flow": lambda: Flow(2, hidden=(6,), context=3),
}


@pytest.mark.parametrize("at_once", [1, 30, 1_000_000])
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_information_is_that_of_all_pairs(
    name: str, particles: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregate, "AT_ONCE", at_once)
    guide, x = encoded(FAMILIES[name]()), torch.randn(11, 6, **F64)
    drawn = Drawn(at_start(guide))
    split = elbo_split(general_ppca(), drawn, batches(x, 4), particles=particles)
    params = guide.start(batch_of(x))

    def density(codes: Tensor, m: int) -> Tensor:
        one = guide.family.distribution({name: value[m].detach() for name, value in params.items()})
        # One code at a time: a flow's datum has one context.
        return torch.stack([one.log_prob(z) for z in codes.reshape(-1, 2)]).view(codes.shape[:-1])

    expected = by_pairs(drawn.codes(particles), density, 11).detach()
    torch.testing.assert_close(split.mutual_information, expected)
    assert expected.std() > 0.05


def test_runs_hold_no_more_numbers_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "AT_ONCE", 30)
    model, sizes = general_ppca(), []

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            sizes.append(pyro.sample("z", dist.Normal(batch.x[:, :2], 1.0).to_event(1)).numel())

    elbo_split(model, always(guide), batches(sampled(model, 10), 5), particles=2)
    assert sizes[:2] == [20, 20]
    assert len(sizes) == 2 + 2 * 2 * 4  # for each pair of batches 10 codes, 3 at once
    assert max(sizes) == 30


def test_ladder_says_what_its_lower_layer_says() -> None:
    """With q(z2 given z1) free of the datum, z2 adds nothing; the marginal KL is over both."""
    model = Ladder(latents=(3, 2), hidden=(4,), decoder=Linear(3, 6), likelihood=Noise()).double()
    guide = AmortizedLadder(latents=(3, 2), hidden=(4,), encoder=Vectors()).double()
    x = torch.randn(9, 6, **F64)
    drawn = Drawn(at_start(guide), sites=("z1", "z2"))
    split = elbo_split(model, drawn, batches(x, 4), particles=2)
    params = {name: value.detach() for name, value in guide.start(batch_of(x)).items()}

    def density(codes: Tensor, m: int) -> Tensor:
        return dist.Normal(params["loc"][m], params["log"][m].exp()).log_prob(codes).sum(-1)

    expected = by_pairs(drawn.codes(2, "z1"), density, 9)
    torch.testing.assert_close(split.mutual_information, expected)
    z = {name: drawn.codes(2, name) for name in ("z1", "z2")}
    with torch.no_grad():
        loc, log_scale = model.net(z["z2"]).chunk(2, -1)
        prior = dist.Normal(loc, log_scale.exp()).log_prob(z["z1"]).sum(-1) + dist.Normal(0, 1).log_prob(z["z2"]).sum(
            -1
        )
        loc, log_scale = guide.net(z["z1"]).chunk(2, -1)
        upper = dist.Normal(loc, log_scale.exp()).log_prob(z["z2"]).sum(-1)
        lower = torch.stack([density(z["z1"][:, n], n) for n in range(9)], -1)
    torch.testing.assert_close(split.marginal_kl, (upper + lower - prior).mean(0) - expected)
    assert active_units(at_start(guide), batches(x, 4)).variance["z2"].shape == (2,)


class Linear(nn.Linear):
    """A decoder to vectors."""

    latents = 3


class Noise(nn.Module):
    """Gaussian vectors around a decoder's outputs."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Normal(outputs, 0.5).to_event(1)


@pytest.mark.parametrize("particles", [1, 2])
@pytest.mark.parametrize("at_once", [1, 1_000_000])
def test_a_guide_of_ones_own_whose_second_latent_reads_datum_and_first(
    particles: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregate, "AT_ONCE", at_once)

    def model(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2, **F64), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(torch.zeros((), **F64), 1.0))
            pyro.sample(
                "x", dist.Normal((a.sum(-1) + b).unsqueeze(-1).expand(*b.shape, 3), 1.0).to_event(1), obs=batch.x
            )

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            a = pyro.sample("a", dist.Normal(batch.x[:, :2], 0.7).to_event(1))
            both = torch.cat([a, batch.x[:, 2:].expand(*a.shape[:-1], 1)], -1)
            pyro.sample("b", dist.Normal(both.prod(-1).tanh(), 0.5))

    x = torch.randn(7, 3, **F64)
    drawn = Drawn(always(guide), sites=("a", "b"))
    split = elbo_split(model, drawn, batches(x, 3), particles=particles)
    a, b = drawn.codes(particles, "a"), drawn.codes(particles, "b", event=0)
    codes = torch.cat([a, b.unsqueeze(-1)], -1)

    def density(codes: Tensor, m: int) -> Tensor:
        a, b = codes[..., :2], codes[..., 2]
        second = dist.Normal((a.prod(-1) * x[m, 2]).tanh(), 0.5).log_prob(b)
        return dist.Normal(x[m, :2], 0.7).log_prob(a).sum(-1) + second

    torch.testing.assert_close(split.mutual_information, by_pairs(codes, density, 7))
    assert active_units(always(guide), batches(x, 3)).variance["b"].shape == ()


def test_posteriors_that_ignore_the_datum_say_nothing() -> None:
    model = general_ppca()

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(torch.tensor([0.3, -1.0], **F64), 0.7).to_event(1))

    data = batches(sampled(model, 50), 16)
    split, units = elbo_split(model, always(guide), data, particles=3), active_units(always(guide), data)
    torch.testing.assert_close(split.mutual_information, torch.zeros(50, **F64), rtol=0, atol=1e-14)
    assert (units.variance["z"].abs() < 5 * units.error["z"]).all()
    assert split.marginal_kl.mean() > 0.3
    remark = collapse(units._replace(threshold=0.1), split)
    assert remark.startswith("the latents say nothing about the data: mutual information 0.00 nats, 0 of 2 units")
    assert "\n" not in remark


@pytest.mark.parametrize("size", [4, 50])
def test_posteriors_apart_say_which_datum_it_is_and_no_more(size: int) -> None:
    model = general_ppca()

    def guide(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Normal(100.0 * batch.index.double().unsqueeze(-1).expand(-1, 2), 0.1).to_event(1))

    split = elbo_split(model, always(guide), batches(sampled(model, 50), size), particles=2)
    torch.testing.assert_close(split.mutual_information, torch.full((50,), math.log(50), **F64), rtol=0, atol=1e-14)
    assert split.limit == math.log(50)


def test_information_of_one_datum_is_nothing() -> None:
    model = general_ppca()
    split = elbo_split(model, always(model.exact_guide), [batch_of(sampled(model, 1))])
    assert split.mutual_information.item() == split.limit == 0


def test_echo_states_its_information() -> None:
    model, guide = general_ppca(), Amortized(encoder=Vectors(), family=Echo(2, depth=20)).double().eval()
    x = sampled(model, 100)
    guide.family.remember(guide.start(batch_of(x)), torch.arange(100))
    data = batches(x, 30)
    split = elbo_split(model, at_start(guide), data, particles=2, seed=4)
    rate = guide.family.distribution(guide.start(batch_of(x))).rate.detach()
    torch.testing.assert_close(split.mutual_information, rate)
    assert not split.marginal_kl.any()
    assert split.stated
    assert split.limit == math.inf
    torch.testing.assert_close(split.elbo, bounds(model, at_start(guide), data, particles=2, seed=4).elbo)


def test_no_gradient_is_kept_and_the_encoder_runs_once_for_each_batch() -> None:
    model, guide = general_ppca(), encoded(Diagonal(2))
    calls: list[int] = []
    guide.encoder.register_forward_hook(lambda *_: calls.append(1))
    split = elbo_split(model, at_start(guide), batches(sampled(model, 12), 3))
    assert len(calls) == 4
    assert not any(part.requires_grad for part in split[:3])
    assert not active_units(at_start(guide), batches(sampled(model, 12), 3)).variance["z"].requires_grad


# Bad input.


def test_bad_input_is_refused_in_one_line() -> None:
    model = general_ppca()
    data = batches(sampled(model, 6), 3)

    def point(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            pyro.sample("z", dist.Delta(batch.x[:, :2], event_dim=1))

    def one_of_two(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            a = pyro.sample("a", dist.Normal(batch.x[:, 0], 1.0))
            pyro.sample("b", dist.Delta(a), infer={"rate": torch.ones(3)})

    def two(batch: Batch) -> None:
        with pyro.plate("data", len(batch.index)):
            a = pyro.sample("a", dist.Normal(torch.zeros((), **F64), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros((), **F64), 1.0))
            pyro.sample("x", dist.Normal((a + b).unsqueeze(-1).expand(3, 6), 1.0).to_event(1), obs=batch.x)

    exact = always(model.exact_guide)
    cases = [
        (lambda: elbo_split(model, always(point), data), "samples a Delta, which has no density"),
        (lambda: elbo_split(two, always(one_of_two), data), "some latents have a density and some a rate"),
        (lambda: elbo_split(model, exact, []), "found no data"),
        (lambda: elbo_split(model, model.exact_guide, data), "is a Tensor, expected a guide: pass fit.posterior"),
        (lambda: active_units(exact, data, particles=1), "1 samples, expected 2 or more"),
        (lambda: active_units(exact, []), "found no data"),
        (lambda: active_units(exact, batches(sampled(model, 1), 1)), "found 1 data"),
    ]
    for call, message in cases:
        with pytest.raises(UsageError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


# Collapse.


def made(information: float, *variances: list[float]) -> tuple[ActiveUnits, Split]:
    found = {f"z{site}": torch.tensor(values) for site, values in enumerate(variances, 1)}
    part = torch.tensor([information - 1, information + 1])
    errors = {name: torch.zeros_like(values) for name, values in found.items()}
    return ActiveUnits(found, errors, 0.01), Split(part, part, part, math.log(2), False)


def test_remarks_on_collapse() -> None:
    on, off = 0.5, 0.001
    assert collapse(*made(3.0, [on, on, on])) is None
    assert collapse(*made(3.0, [on, off])) is None
    assert collapse(*made(0.11, [on])) is None
    assert collapse(*made(0.09, [on, off])).endswith(
        "0.09 nats, 1 of 2 units active; anneal the KL weight, or use free bits"
    )
    assert collapse(*made(3.0, [on, off, off, off])) is None
    remark = collapse(*made(3.0, [on, off, off, off, off], [on, on], [off, off, off, off]))
    assert remark == "few units are active (their means vary by more than 0.01): 1 of 5 in 'z1', 0 of 4 in 'z3'"
