import copy
import math

import pytest
import torch
from torch import Tensor, nn
from toys import VectorEncoder, batch_of, general_ppca, sampled

from guides import ELBO, Amortized, Echo, Free, terms
from guides.echo import EchoNoise, echo, largest_scale
from guides.sites import run_program
from ppl_models import Batch, UsageError


def random_params(count: int, latents: int = 3) -> dict[str, Tensor]:
    """Codes that use most of [-1, 1] and scales that differ, in float64."""
    code, noise = 8 * torch.randn(count, latents), 1 + torch.randn(count, latents)
    return {"code": code.double(), "noise": noise.double()}


def remembered(depth: int = 15, count: int = 400) -> tuple[Echo, dict[str, Tensor]]:
    """A family in eval mode with a bank, whose data have the indices 1000, 1003, … in a mixed order."""
    family, params = Echo(3, depth=depth).double(), random_params(count)
    family.remember(params, 1000 + 3 * torch.randperm(count))
    return family.eval(), params


def kolmogorov_smirnov(a: Tensor, b: Tensor) -> float:
    """The two-sample statistic, as a multiple of its 1 % critical value."""
    both = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(values.sort().values, both, right=True) / len(values) for values in (a, b)]
    critical = 1.628 * math.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return float((below[0] - below[1]).abs().max()) / critical


@pytest.mark.parametrize("repeats", [False, True])
def test_with_a_constant_scale_everything_is_known(repeats: bool) -> None:
    """Normal codes and s = c: z ~ N(0, 1 / (1 - c²)), z given x ~ N(f, c² / (1 - c²)), rate -log c."""
    count, c = 2000, 0.5
    code = torch.randn(count, 1, dtype=torch.float64)
    # Standardised, so that the data's own moments are exact and only those of the noise are estimated.
    code = (code - code.mean()) / code.std(correction=0)
    bank = (code, torch.full_like(code, math.log(c)))
    q = EchoNoise(*bank, depth=40, bank=bank, own=torch.arange(count), repeats=repeats)
    torch.testing.assert_close(q.rate, torch.full((count,), 0.693147, dtype=torch.float64), rtol=0, atol=1e-6)
    z = torch.cat([q.rsample() for _ in range(10)])
    noise = z - code.repeat(10, 1)
    spread, given = 1 / (1 - c**2), c**2 / (1 - c**2)
    assert abs(z.mean()) < 4 * math.sqrt(spread / len(z))
    assert abs(noise.mean()) < 4 * math.sqrt(given / len(z))
    assert z.var() == pytest.approx(spread, rel=4 * math.sqrt(2 / len(z)))
    assert noise.var() == pytest.approx(given, rel=4 * math.sqrt(2 / len(z)))
    # The noise of a datum says nothing of the datum: the channel's information is then that of two Gaussians.
    correlation = torch.corrcoef(torch.stack([z[:, 0], code.repeat(10, 1)[:, 0]]))[0, 1]
    assert -0.5 * math.log(1 - correlation**2) == pytest.approx(-math.log(c), abs=0.03)


def test_noise_and_latents_have_the_same_law() -> None:
    family, params = remembered(depth=99)
    count = 6000
    rows = torch.randint(400, (count,))
    z = family.distribution({name: value[rows] for name, value in params.items()}).rsample()
    noise = family.marginal(count)
    for j in range(3):
        assert kolmogorov_smirnov(z[:, j], noise[:, j]) < 1, j
    # The joint law, by the energy distance against its law under permutations.
    pooled = torch.cat([z[:500], noise[:500]])
    distance = torch.cdist(pooled, pooled)

    def energy(order: Tensor) -> Tensor:
        first, second = order[:500], order[500:]
        within = distance[first][:, first].mean() + distance[second][:, second].mean()
        return 2 * distance[first][:, second].mean() - within

    found = energy(torch.arange(1000))
    null = torch.stack([energy(torch.randperm(1000)) for _ in range(99)])
    assert (null >= found).double().mean() > 0.02
    # The test sees what it should: codes without their noise are not distributed like z.
    assert kolmogorov_smirnov(family._channel(params)[0].repeat(15, 1)[:, 0], noise[:, 0]) > 1


@pytest.mark.parametrize(("depth", "expected"), [(99, 0.8359), (15, 0.3362), (100, 0.8373), (63, 0.7591), (31, 0.5814)])
def test_largest_scale_is_the_root(depth: int, expected: float) -> None:
    r = largest_scale(depth)
    assert r == pytest.approx(expected, abs=5e-5)
    assert r**depth / (1 - r) == pytest.approx(2.0**-23, rel=1e-9)
    assert largest_scale(99, bound=10.0) == pytest.approx(0.8175, abs=5e-5)


@pytest.mark.parametrize("depth", [15, 99])
def test_what_a_chain_leaves_out_is_below_a_millionth(depth: int) -> None:
    r, length = largest_scale(depth), 600
    code = 2 * torch.randint(0, 2, (length, 2), dtype=torch.float64) - 1
    code[:, 0] = 1.0  # the worst case
    log_scale = torch.full_like(code, math.log(r))
    whole, part = (echo(code, log_scale, torch.arange(end)) for end in (length, depth))
    assert (whole - part).abs().max() < 1e-6
    assert (whole - part)[0] > 1e-7
    torch.testing.assert_close(part[0], torch.tensor((1 - r**depth) / (1 - r), dtype=torch.float64))


def test_echo_is_the_nested_channel() -> None:
    code, scale = torch.randn(9, 2, dtype=torch.float64), torch.rand(9, 2, dtype=torch.float64)
    chain = torch.randint(9, (4, 3, 6))
    nested = torch.zeros(4, 3, 2, dtype=torch.float64)
    for step in range(5, -1, -1):
        nested = code[chain[..., step]] + scale[chain[..., step]] * nested
    torch.testing.assert_close(echo(code, scale.log(), chain), nested)


def test_chains_never_hold_the_datum_itself() -> None:
    family = Echo(3, depth=9)
    q = family.distribution({name: value.float() for name, value in random_params(10).items()})
    chains = q.expand((50, 10)).chains((50, 10))
    assert chains.shape == (50, 10, 9)
    others = [sorted(set(range(10)) - {own}) for own in range(10)]
    assert torch.equal(chains.sort(-1).values, torch.tensor(others).expand(50, 10, 9))
    # Every place of the order is equally likely to hold each of the others.
    many = q.expand((4000, 10)).chains((4000, 10))[:, 0]
    counts = torch.stack([(many == other).sum(0) for other in range(1, 10)]) / 4000
    assert (counts - 1 / 9).abs().max() < 4.5 * math.sqrt((1 / 9) * (8 / 9) / 4000)


def test_chains_from_the_bank_leave_out_what_the_index_names() -> None:
    family, params = remembered(depth=15, count=20)
    index = family.bank_index
    some = {name: value[:4] for name, value in params.items()}
    asked = torch.tensor([int(index[3]), int(index[19]), 1001, 5000])
    q = family.distribution(some, asked)
    assert q.own.tolist() == [3, 19, 20, 20]
    chains = q.chains((500, 4))
    seen = [set(chains[:, row].flatten().tolist()) for row in range(4)]
    everything = set(range(20))
    assert seen == [everything - {3}, everything - {19}, everything, everything]
    free = family.distribution(some)
    assert set(free.chains((500, 4))[:, 0].flatten().tolist()) == everything


def test_the_bank_keeps_codes_beside_their_index() -> None:
    family, params = Echo(3, depth=2).double(), random_params(5)
    family.remember(params, torch.tensor([40, 10, 30, 20, 50]))
    order = torch.tensor([1, 3, 2, 0, 4])
    assert family.bank_index.tolist() == [10, 20, 30, 40, 50]
    torch.testing.assert_close(family.bank_code, 16 * (params["code"][order] / 16).tanh())
    expected = math.log(largest_scale(2, bound=16)) - torch.nn.functional.softplus(-params["noise"][order])
    torch.testing.assert_close(family.bank_log_scale, expected)
    assert not family.state_dict()
    family.remember({name: value[:3] for name, value in params.items()}, torch.tensor([1, 2, 3]))
    assert len(family.bank_code) == 3


def test_in_eval_mode_a_datum_does_not_see_the_others_of_its_batch() -> None:
    family, _ = remembered()
    params, index = random_params(6), torch.arange(6)
    other = {name: torch.cat([value[:2], torch.randn_like(value[2:])]) for name, value in params.items()}
    results = []
    for given in (params, other):
        torch.manual_seed(5)
        results.append(family.distribution(given, index).expand((3, 6)).rsample())
    torch.testing.assert_close(results[0][:, :2], results[1][:, :2], rtol=0, atol=0)
    assert (results[0][:, 2:] - results[1][:, 2:]).abs().min() > 0
    family.train()
    torch.manual_seed(5)
    with pytest.raises(UsageError, match="chains of 15 other data, but there are 6 in all, expected 16"):
        family.distribution(params, index)


def test_in_training_mode_gradients_reach_the_neighbours() -> None:
    family, params = Echo(3, depth=5).double(), random_params(8)
    for value in params.values():
        value.requires_grad_()
    z = family.distribution(params).rsample()
    for value in torch.autograd.grad(z[0].sum(), params.values()):
        reached = value.abs().sum(-1) > 0
        assert reached[0]
        # Depth 5 of 7 others: the last of a chain lends its code alone.
        assert reached.sum() in (5, 6)


def test_particles_have_orders_of_their_own() -> None:
    family, params = Echo(3, depth=5).double(), random_params(8)
    z = family.distribution(params).expand((6, 8)).rsample()
    assert z.shape == (6, 8, 3)
    assert torch.pdist(z.flatten(1)).min() > 1e-3
    assert family.distribution(params).expand((6, 8)).rate.shape == (6, 8)


def pair(*, depth: int = 5) -> tuple[nn.Module, Amortized, Batch]:
    model = general_ppca(latents=3)
    guide = Amortized(encoder=VectorEncoder(), family=Echo(3, depth=depth)).double()
    return model, guide, batch_of(sampled(model, 12))


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("particles", [1, 4])
def test_terms_take_the_stated_rate_under_the_sites_scale(closed_form: bool, particles: int) -> None:
    model, guide, batch = pair()
    rate = -(math.log(largest_scale(5, bound=16)) + guide.start(batch)["noise"].sigmoid().log()).sum(-1)
    parts = terms(model, guide, batch, particles=particles, weight=0.25, closed_form=closed_form)
    assert parts.elbo.shape == (particles, 12)
    torch.testing.assert_close(parts.kl, rate.expand(particles, 12))
    torch.testing.assert_close(parts.scaled_kl.expand_as(parts.kl), 0.25 * parts.kl)
    assert rate.min() > -3 * math.log(largest_scale(5, bound=16))


def test_other_families_state_no_rate() -> None:
    batch = batch_of(torch.randn(12, 6, dtype=torch.float64))
    assert run_program(Amortized(encoder=VectorEncoder()).double(), batch)["z"].rate is None
    assert run_program(pair()[1], batch)["z"].rate.shape == (12,)


def test_training_lowers_the_loss_and_the_bound_stays_below_the_evidence_of_new_data() -> None:
    """Distortion and rate are together at least the data's entropy, here that of PPCA."""
    model, guide, _ = pair(depth=31)
    truth, x = copy.deepcopy(model), sampled(model, 400)
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=0.05)
    losses = []
    for _ in range(120):
        rows = torch.randperm(400)[:40]
        loss, _ = ELBO()(model, guide, Batch(x[rows], None, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < sum(losses[:20])
    batch, new = batch_of(x), Batch(sampled(truth, 400), None, torch.arange(400, 800))
    guide.eval().family.remember(guide.start(batch), batch.index)
    with torch.no_grad():
        gap = truth.evidence(new.x) - terms(model, guide, new, particles=20).elbo.mean(0)
    assert gap.mean() > 0
    assert gap.mean() < 3


def test_what_echo_cannot_do_is_said_in_one_line() -> None:
    family, params = Echo(3, depth=5).double(), random_params(8)
    q = family.distribution(params)
    cases = [
        (lambda: q.log_prob(q.rsample()), "Echo has no density"),
        (lambda: Free(10, family=family), "Free: Echo has no density"),
        (
            lambda: family.remember({n: v[:5] for n, v in params.items()}, torch.arange(5)),
            "5 data, expected at least 6",
        ),
        (lambda: family.eval().distribution(params), "call family.remember"),
        (lambda: family.eval().marginal(3), "call family.remember"),
        (lambda: Echo(3, depth=0), "chains of 0 other data"),
    ]
    for wrong, message in cases:
        with pytest.raises(UsageError, match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_no_host_reads_in_training_or_from_the_bank() -> None:
    family = Echo(3, depth=5).double()
    params, index = random_params(8), torch.arange(8)
    family.remember(params, index)
    family, params = family.to("meta"), {name: value.to("meta") for name, value in params.items()}
    for mode in (True, False):
        q = family.train(mode).distribution(params, index.to("meta")).expand((2, 8))
        assert q.rsample().shape == (2, 8, 3)
