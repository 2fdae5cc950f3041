"""Inversion against least squares, and minima, clusters and barriers of generators whose losses are known."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ppl_models import (
    Barriers,
    Generator,
    Minima,
    MLPDecoder,
    UsageError,
    barriers,
    clusters,
    invert,
    minima,
    restarts_needed,
)
from ppl_models import inversion as module
from ppl_models.loss_minima import _least_norm_point

DOUBLE = torch.float64
RATIO = 0.18


class Linear(nn.Module):
    """G(z) = W z + b, images of 2×3."""

    def __init__(self, latents: int = 3) -> None:
        super().__init__()
        self.latents = latents
        self.net = nn.Linear(latents, 6).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).unflatten(-1, (1, 2, 3))


def two_wells(z: Tensor) -> Tensor:
    """For grey targets the loss is ((z² - 1)² + RATIO (z - 1)²) / 50: minima at 1 and -0.9, a maximum at -0.1."""
    return torch.cat([0.5 + 0.2 * (z.square() - 1), 0.5 + 0.2 * math.sqrt(RATIO) * (z - 1)], -1)


def wells_loss(z: float) -> float:
    return ((z * z - 1) ** 2 + RATIO * (z - 1) ** 2) / 50


def kinked(z: Tensor) -> Tensor:
    """For targets of 0 the loss is (1/2 + |z - 1|)² / 4: a minimum with a kink."""
    return (0.5 + (z - 1).abs()) / 2


def ring(z: Tensor) -> Tensor:
    """For grey targets a valley round the origin."""
    return 0.5 + 0.2 * (z.square().sum(-1, keepdim=True) - 1)


def decoder() -> Generator:
    net = Generator(MLPDecoder(latents=3, shape=(1, 4, 4), hidden=(16,)))
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.7)
    return net.double().eval()


GREY = torch.full((1, 2), 0.5, dtype=DOUBLE)


def test_a_linear_generator_is_inverted_by_least_squares() -> None:
    generator, images = Linear().eval(), torch.rand(2, 4, 1, 2, 3, dtype=DOUBLE)
    found = invert(generator, images, restarts=5, steps=20, polish=20)
    assert found.z.shape == (5, 2, 4, 3)
    assert found.loss.shape == found.gradient_norm.shape == found.descended.shape == (5, 2, 4)
    weight, bias = generator.net.weight.detach(), generator.net.bias.detach()
    residual = (images.flatten(2) - bias).flatten(0, 1).T
    exact = torch.linalg.lstsq(weight, residual)
    torch.testing.assert_close(found.z, exact.solution.T.unflatten(0, (2, 4)).expand_as(found.z))
    least = (weight @ exact.solution - residual).square().mean(0)
    torch.testing.assert_close(found.loss, least.view(2, 4).expand(5, 2, 4))
    around = minima(generator, images, found.z)
    hessian = torch.linalg.eigvalsh(2 * weight.T @ weight / 6)
    torch.testing.assert_close(around.eigenvalues, hessian.expand(5, 2, 4, 3))
    scale = found.start_gradient_norm.mean(0)
    assert around.smooth(scale).all()
    assert not around.nonsmooth(scale).any(), "there is no kink"
    assert not around.flat(scale).any()
    assert around.fall.max() < 1e-15
    assert around.jump.max() < 1e-12
    assert (clusters(found.z, 0.1) == 0).all()
    away = minima(generator, images, found.z + 0.5)
    assert not away.smooth(scale).any()
    assert not away.nonsmooth(scale).any()
    expected = hessian.new_tensor([0.5] * 3) @ (2 * weight.T @ weight / 6)
    torch.testing.assert_close(away.gradient_norm, expected.norm().expand(5, 2, 4))


def test_two_wells_are_two_minima_with_the_known_barrier() -> None:
    found = invert(two_wells, GREY, latents=1, restarts=16, steps=60, polish=20)
    ends = found.z.flatten()
    right = ends > 0
    assert 0 < right.sum() < 16
    torch.testing.assert_close(ends[right], torch.ones_like(ends[right]))
    torch.testing.assert_close(ends[~right], torch.full_like(ends[~right], -0.9), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.loss[~right], torch.full_like(found.loss[~right], wells_loss(-0.9)))
    labels = clusters(found.z, 0.02 * math.sqrt(2)).flatten()
    assert labels.unique().numel() == 2
    for cluster in labels.unique():
        assert right[labels == cluster].unique().numel() == 1
    around = minima(two_wells, GREY, torch.tensor([[[1.0]], [[-0.9]], [[-0.1]]], dtype=DOUBLE))
    second = torch.tensor([4 * (3 * z * z - 1) + 2 * RATIO for z in (1, -0.9, -0.1)], dtype=DOUBLE) / 50
    torch.testing.assert_close(around.eigenvalues.flatten(), second)
    assert around.smooth(0.1).flatten().tolist() == [True, True, False], "a maximum is none"
    assert not around.nonsmooth(0.1).any()
    assert around.fall.flatten().tolist()[2] == pytest.approx(
        wells_loss(-0.1) - min(wells_loss(-0.101), wells_loss(-0.099)), rel=1e-6
    )
    rise = barriers(two_wells, GREY, *(torch.tensor([[z]], dtype=DOUBLE) for z in (1.0, -0.9)))
    height = wells_loss(-0.1) - wells_loss(-0.9)
    assert rise.straight.item() == pytest.approx(height, rel=1e-3)
    assert rise.relaxed.item() == pytest.approx(height, rel=1e-3), "there is no way round in one dimension"
    assert rise.uncertainty.item() == pytest.approx(0.05 * height, rel=1e-3), "the least that is said"
    assert rise.higher.item() == pytest.approx(wells_loss(-0.9))
    assert rise.found().item()
    assert not rise.found(noise=height).item()
    same = barriers(two_wells, GREY, *(torch.tensor([[z]], dtype=DOUBLE) for z in (0.5, 1.2)))
    assert not same.found().item(), "both in one well"
    assert same.straight.item() == pytest.approx(0, abs=1e-15)


def test_a_minimum_with_a_kink_is_told_by_the_points_around() -> None:
    target = torch.zeros(1, 1, dtype=DOUBLE)
    at = torch.tensor([[[1 + 1e-7]], [[1.2]]], dtype=DOUBLE)
    around = minima(kinked, target, at)
    assert around.gradient_norm.flatten().tolist() == pytest.approx([0.25, 0.35], rel=1e-3)
    assert around.eigenvalues.flatten().tolist() == pytest.approx([0.5, 0.5]), "inside a cell, kink or not"
    assert not around.smooth(1.0).any()
    assert around.stationarity.flatten().tolist() == pytest.approx([0, 0.35], abs=1e-3)
    assert around.fall[0].item() < 2e-5 * 0.25
    assert around.fall[1].item() > 0
    assert around.jump.flatten().tolist() == pytest.approx([0.5, 0], abs=1e-3)
    assert around.nonsmooth(1.0).flatten().tolist() == [True, False]
    found = invert(kinked, target, latents=1, restarts=4, steps=30, polish=5)
    torch.testing.assert_close(found.z, torch.ones_like(found.z), atol=1e-4, rtol=0)


def test_a_saddle_is_no_minimum_with_kinks() -> None:
    """One negative direction in 32, which a few random points do not meet."""

    def saddle(z: Tensor) -> Tensor:
        return torch.cat([0.5 + 0.2 * (z[..., :1].square() - 1), 0.5 + 0.2 * z[..., 1:]], -1)

    grey = torch.full((1, 32), 0.5, dtype=DOUBLE)
    around = minima(saddle, grey, torch.zeros(1, 1, 32, dtype=DOUBLE), probes=8)
    assert around.eigenvalues[..., 0].item() == pytest.approx(-0.16 / 32)
    reach = 1e-3 * math.sqrt(32)
    assert around.fall.item() == pytest.approx(0.04 / 32 * (1 - (1 - reach**2) ** 2)), "along the eigenvector"
    assert not (around.smooth(0.1) | around.flat(0.1) | around.nonsmooth(0.1)).any()


def test_a_slope_that_curvature_explains_is_no_kink() -> None:
    """At 1 from the minimum of a quadratic the gradient is small beside the starts', but nothing jumps."""
    weights = torch.logspace(0, -1.5, 10, dtype=DOUBLE)

    def bowl(z: Tensor) -> Tensor:
        return torch.cat([0.5 + 0.2 * weights * z, 0.9 + 0 * z[..., :1]], -1)

    z = torch.zeros(1, 1, 10, dtype=DOUBLE)
    z[..., -1] = 1
    around = minima(bowl, torch.full((1, 11), 0.5, dtype=DOUBLE), z)
    slope = 2 * 0.04 / 11 * weights[-1].item() ** 2
    assert around.gradient_norm.item() == pytest.approx(slope)
    scale = slope / 9.5e-4
    assert around.stationarity.item() < 1e-3 * scale
    assert not around.nonsmooth(scale).any()
    assert around.jump.item() < 1e-12


def test_a_kink_has_to_hold_the_gradient_and_nothing_may_curve_down() -> None:
    """One that is a minimum with a kink, and the same but for one field each."""
    one = {"gradient_norm": 0.1, "eigenvalues": [0.0, 1.0], "stationarity": 1e-5, "jump": 0.2, "fall": 0.0}
    others = [{"eigenvalues": [-0.1, 1.0]}, {"stationarity": 0.1}, {"jump": 0.01}, {"fall": 1e-3}]
    rows = [one, *(one | other for other in others), one | {"gradient_norm": 1e-9, "jump": 1e-6}]
    around = Minima(
        torch.ones(6, dtype=DOUBLE), *(torch.tensor([row[key] for row in rows], dtype=DOUBLE) for key in one)
    )
    assert around.nonsmooth(1.0).tolist() == [True] + 5 * [False]


def test_what_the_search_leaves_is_no_barrier() -> None:
    """A barrier; what is within the share of the line, of the loss, or the uncertainty."""
    figures = [[1.0, 0.1, 0.01, 1.0], [1.0, 0.009, 0, 0.1], [0.01, 9e-4, 0, 1.0], [1.0, 0.1, 0.095, 1.0], [1, 1, 1, 0]]
    rise = Barriers(*torch.tensor(figures, dtype=DOUBLE).T)
    assert rise.found().tolist() == [True] + 4 * [False]
    assert not rise.found(noise=0.1).any()


def test_what_is_flat_is_said_to_be() -> None:
    """On the ring, and where no image hangs on the second latent."""
    around = minima(ring, GREY[:, :1], torch.tensor([[[0.6, 0.8]], [[0.0, 0.0]], [[0.6, 0.7]]], dtype=DOUBLE))
    assert around.flat(0.1).flatten().tolist() == [True, False, False]
    assert not around.smooth(0.1).any()
    idle = minima(lambda z: z[..., :1], GREY[:, :1], torch.tensor([[[0.5, 3.0]]], dtype=DOUBLE))
    assert idle.flat(0.1).all()
    assert not idle.smooth(0.1).any()


@pytest.mark.parametrize("latents", [2, 10])
def test_a_curved_valley_has_a_barrier_on_the_line_alone(latents: int) -> None:
    """A ring in the first two latents, whose least loss is not 0."""

    def valley(z: Tensor) -> Tensor:
        return torch.cat([ring(z[..., :2]), 0.5 + 0.2 * z[..., 2:], 0.51 + 0 * z[..., :1]], -1)

    angles = torch.tensor([0.0, 2.0, math.pi], dtype=DOUBLE)
    ends = torch.zeros(3, latents, dtype=DOUBLE)
    ends[:, 0], ends[:, 1] = angles.cos(), angles.sin()
    images = torch.full((3, latents), 0.5, dtype=DOUBLE)
    rise = barriers(valley, images, ends[:1].expand(3, -1), ends)
    chords = torch.tensor([0, math.sin(1) ** 4, 1], dtype=DOUBLE)  # the middle of one has radius cos(angle / 2)
    torch.testing.assert_close(rise.straight, 0.04 / latents * chords, rtol=1e-3, atol=1e-15)
    torch.testing.assert_close(rise.higher, torch.full_like(rise.higher, 1e-4 / latents))
    assert (rise.relaxed <= 0.01 * rise.straight + 1e-15).all()
    assert not rise.found().any()
    assert rise.found_on_the_line().tolist() == [False, True, True]


def test_a_way_round_is_refined_until_it_does_not_fall() -> None:
    """A ridge at z_1 = 0 with a pass at z_2 = 1 of which the height is known."""

    def ridge(z: Tensor) -> Tensor:
        height = (-8 * z[..., :1].square()).exp() * (0.1 + (z[..., 1:] - 1).square() / 2)
        return 0.5 + 0.2 * torch.cat([height, 0 * height], -1)

    ends = [torch.tensor([[side, 0.0]], dtype=DOUBLE) for side in (-1.5, 1.5)]
    once, often = (barriers(ridge, GREY, *ends, steps=4, rounds=rounds) for rounds in (1, 4))
    least = 0.04 * 0.1**2 / 2
    assert often.straight.item() == pytest.approx(0.04 * 0.6**2 / 2, rel=1e-3)
    assert least * 0.999 < often.relaxed.item() < once.relaxed.item()
    assert often.relaxed.item() - least < 0.1 * (once.relaxed.item() - least)
    assert once.uncertainty.item() == pytest.approx(once.straight.item() - once.relaxed.item())


def test_no_code_is_left_for_a_worse_one() -> None:
    generator, images = decoder(), torch.rand(3, 1, 4, 4, dtype=DOUBLE)
    start = invert(generator, images, restarts=6, steps=0, polish=0, settle=0)
    assert torch.equal(start.z[:, 0], start.z[:, 1]), "every image has the same starts"
    assert torch.equal(start.loss, start.descended)
    assert torch.equal(start.gradient_norm, start.start_gradient_norm)
    found = [
        invert(generator, images, restarts=6, steps=s, polish=p, settle=t)
        for s, p, t in [(9, 0, 0), (9, 4, 0), (9, 4, 9)]
    ]
    assert (found[0].loss <= start.loss).all()
    for before, after in zip(found, found[1:], strict=False):
        assert (after.loss <= before.loss).all()
        assert (after.loss < before.loss).any()
        assert torch.equal(after.descended, found[0].descended)


def test_the_descent_is_adam_with_a_cosine_and_its_best_is_kept() -> None:
    """By torch's own Adam, one start at a time."""
    found = invert(two_wells, GREY, latents=1, restarts=16, steps=12, polish=0, settle=0)
    starts = invert(two_wells, GREY, latents=1, restarts=16, steps=0, polish=0, settle=0).z
    overshot = 0
    for start, lowest in zip(starts.flatten().tolist(), found.descended.flatten().tolist(), strict=True):
        z = torch.tensor([start], dtype=DOUBLE, requires_grad=True)
        adam, losses = torch.optim.Adam([z], lr=0.1, betas=(0.9, 0.99)), []
        for step in range(13):
            loss = (two_wells(z) - 0.5).square().mean()
            losses.append(loss.item())
            adam.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 12)) / 2
            adam.zero_grad()
            loss.backward()
            adam.step()
        assert lowest == pytest.approx(min(losses), rel=1e-9)
        overshot += losses[-1] > min(losses)
    assert overshot
    torch.testing.assert_close(found.loss, found.descended)


def test_planted_codes_are_recovered_and_nothing_hangs_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = decoder()
    images = generator(torch.randn(6, 3, dtype=DOUBLE)).detach()
    whole = invert(generator, images, restarts=8, steps=60)
    assert (whole.loss.amin(0) < 1e-12).all()
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 16)
    chunked = invert(generator, images, restarts=8, steps=60)
    alone = invert(generator, images[4], restarts=8, steps=60)
    assert alone.z.shape == (8, 3)
    recovered = whole.loss < 1e-20  # a flat direction far out would magnify rounding
    torch.testing.assert_close(chunked.z[recovered], whole.z[recovered])
    torch.testing.assert_close(chunked.loss, whole.loss, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(alone.loss, whole.loss[:, 4], rtol=1e-6, atol=1e-12)
    assert not torch.equal(
        invert(generator, images, restarts=8, steps=1, seed=1).z, invert(generator, images, restarts=8, steps=1).z
    )


def test_the_generator_is_left_alone() -> None:
    generator = copy.deepcopy(decoder()).float()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    images, state = torch.rand(2, 1, 4, 4), torch.get_rng_state()
    found = invert(generator, images, restarts=2, steps=3)
    assert found.z.dtype == found.loss.dtype == DOUBLE
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_point_of_least_norm_of_a_hull() -> None:
    corners = torch.tensor(
        [[[1.0, 1.0], [1.0, -1.0], [3.0, 0.0]], [[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]], dtype=DOUBLE
    )
    exact = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(_least_norm_point(corners), exact, atol=1e-6, rtol=0)
    single = torch.randn(5, 1, 3, dtype=DOUBLE)
    torch.testing.assert_close(_least_norm_point(single), single.squeeze(1))
    assert torch.equal(_least_norm_point(torch.zeros(2, 4, 3, dtype=DOUBLE)), torch.zeros(2, 3, dtype=DOUBLE))


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_the_least_norm_is_exact_on_a_face_and_outside(size: float) -> None:
    """Zero within a face of the hull in 32 dimensions; and a hull that no point is nearer of than the bound says."""
    face = torch.randn(8, 128, 32, dtype=DOUBLE)
    face[..., 0] = face[..., 0].abs()
    face[:, :64, 0] = 0
    face[:, 0] = -face[:, 1:64].mean(1)
    assert _least_norm_point(size * face).norm(dim=-1).max() < 1e-5 * size
    apart = size * (torch.randn(8, 129, 32, dtype=DOUBLE) + 3 * torch.eye(32, dtype=DOUBLE)[0])
    least = _least_norm_point(apart)
    norm = least.norm(dim=-1)
    bound = (apart @ least.unsqueeze(-1)).squeeze(-1).amin(-1) / norm  # that of the hull's half-space
    torch.testing.assert_close(bound, norm, rtol=1e-6, atol=0)


def test_clusters_are_of_single_linkage() -> None:
    chain = torch.tensor([0.0, 5.0, 0.9, 5.5, 1.8, 9.0, 2.7])[:, None]
    assert clusters(chain, 1.0).tolist() == [0, 1, 0, 1, 0, 5, 0]
    both = torch.stack([chain, 10 * chain], 1)
    assert clusters(both, 1.0)[:, 1].tolist() == list(range(7))


def test_restarts_needed() -> None:
    assert restarts_needed(0.5) == 5
    assert 1 - 0.5**5 >= 0.95 > 1 - 0.5**4
    assert restarts_needed(0.95) == restarts_needed(1.0) == 1
    assert restarts_needed(0.01, confidence=0.5) == 69
    assert restarts_needed(0) == math.inf


def _training() -> Generator:
    return decoder().train()


def _single() -> Callable[[Tensor], Tensor]:
    weight = torch.rand(3, 16)
    return lambda z: (z @ weight).unflatten(-1, (1, 4, 4))


@pytest.mark.parametrize(("make", "message"), [(_training, "training mode"), (_single, "float64")])
def test_what_has_no_exact_gradients_is_refused(make: Callable[[], Callable[[Tensor], Tensor]], message: str) -> None:
    generator, codes = make(), torch.randn(2, 3)
    images = torch.rand(2, 1, 4, 4, dtype=DOUBLE if make is _training else torch.float32)
    with pytest.raises(UsageError, match=message):
        invert(generator, images, latents=3)
    with pytest.raises(UsageError, match=message):
        minima(generator, images, codes)
    with pytest.raises(UsageError, match=message):
        barriers(generator, images, codes, codes + 1)


@pytest.mark.parametrize(
    ("make", "images", "words", "message"),
    [
        (decoder, torch.rand(2, 1, 4, 5, dtype=DOUBLE), {}, r"images of shape \(2, 1, 4, 5\)"),
        (decoder, torch.rand(4, dtype=DOUBLE), {}, "images of shape"),
        (decoder, torch.rand(2, 1, 4, 4, dtype=DOUBLE) + 0.5, {}, r"outside \[0, 1\]"),
        (decoder, torch.full((1, 1, 4, 4), math.nan, dtype=DOUBLE), {}, r"outside \[0, 1\]"),
        (decoder, torch.ones(1, 1, 4, 4, dtype=torch.long), {}, "floating point"),
        (decoder, torch.rand(2, 1, 4, 4, dtype=DOUBLE), {"restarts": 0}, "restarts: found 0"),
        (lambda: two_wells, GREY, {}, "latents: found None"),
        (lambda: lambda z: (z > 0).double(), GREY, {"latents": 2}, "differentiably"),
    ],
)
def test_what_cannot_be_inverted_is_refused(
    make: Callable[[], Callable[[Tensor], Tensor]], images: Tensor, words: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        invert(make(), images, **words)
