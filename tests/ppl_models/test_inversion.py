"""Inversion against least squares, and minima, clusters and barriers of generators whose losses are known."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ppl_models import Generator, MLPDecoder, UsageError, barriers, clusters, invert, minima, restarts_needed
from ppl_models import inversion as module
from ppl_models.loss_minima import _least_norm

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
    assert around.nonsmooth(scale).all()
    assert not around.fall.gt(0).any()
    assert (clusters(found.z, 0.1) == 0).all()
    rise = barriers(generator, images, found.z[0], found.z[1])
    assert rise.straight.abs().max() < 1e-12
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
    assert around.nonsmooth(0.1).flatten().tolist() == [True, True, False]
    rise = barriers(two_wells, GREY, *(torch.tensor([[z]], dtype=DOUBLE) for z in (1.0, -0.9)))
    height = wells_loss(-0.1) - wells_loss(-0.9)
    assert rise.straight.item() == pytest.approx(height, rel=1e-3)
    assert rise.relaxed.item() == pytest.approx(height, rel=1e-3), "there is no way round in one dimension"


def test_a_minimum_with_a_kink_is_told_by_the_points_around() -> None:
    target = torch.zeros(1, 1, dtype=DOUBLE)
    at = torch.tensor([[[1 + 1e-5]], [[1.2]]], dtype=DOUBLE)
    around = minima(kinked, target, at)
    assert around.gradient_norm.flatten().tolist() == pytest.approx([0.25, 0.35], rel=1e-3)
    assert around.eigenvalues.flatten().tolist() == pytest.approx([0.5, 0.5]), "inside a cell, kink or not"
    assert not around.smooth(1.0).any()
    assert around.stationarity.flatten().tolist() == pytest.approx([0, 0.35], abs=1e-3)
    assert around.fall[0].item() < 2e-5 * 0.25
    assert around.fall[1].item() > 0
    found = invert(kinked, target, latents=1, restarts=4, steps=30, polish=5)
    torch.testing.assert_close(found.z, torch.ones_like(found.z), atol=1e-4, rtol=0)


def test_a_curved_valley_has_a_barrier_on_the_line_alone() -> None:
    ends = (torch.tensor([[x, 0.0]], dtype=DOUBLE) for x in (1, -1))
    rise = barriers(ring, GREY[:, :1], *ends)
    assert rise.straight.item() == pytest.approx(0.04, rel=1e-2)
    assert rise.relaxed.item() < 0.02 * rise.straight.item()


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


def test_the_best_code_on_the_way_is_kept() -> None:
    seen: list[Tensor] = []

    def noted(z: Tensor) -> Tensor:
        made = two_wells(z)
        if len(made) == 16:
            seen.append((made.detach() - 0.5).square().mean(-1))
        return made

    found = invert(noted, GREY, latents=1, restarts=16, steps=12, polish=0, settle=0)
    losses = torch.stack(seen)
    torch.testing.assert_close(found.descended.flatten(), losses.amin(0))
    last = losses[13]  # after the starts' and one for each step, before those of what was kept
    assert (losses.amin(0) < last).any()
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


def test_the_least_norm_of_a_hull() -> None:
    corners = torch.tensor(
        [[[1.0, 1.0], [1.0, -1.0], [3.0, 0.0]], [[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]], dtype=DOUBLE
    )
    assert _least_norm(corners).tolist() == pytest.approx([1, 0], abs=1e-3)
    single = torch.randn(5, 1, 3, dtype=DOUBLE)
    torch.testing.assert_close(_least_norm(single), single.norm(dim=-1).squeeze(-1))


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


@pytest.mark.parametrize(
    ("make", "images", "words", "message"),
    [
        (_training, torch.rand(2, 1, 4, 4, dtype=DOUBLE), {}, "training mode"),
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
