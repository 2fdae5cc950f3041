import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_models import (
    HINGE,
    LEAST_SQUARES,
    NON_SATURATING,
    SATURATING,
    WASSERSTEIN,
    AdversarialLoss,
    Critic,
    DeepConvDecoder,
    DeepConvEncoder,
    Generator,
    MLPEncoder,
    UsageError,
    augmented,
    cross_entropy,
    gradient_penalty,
    interpolates,
    r1_penalty,
    slopes,
)

LOSSES = {
    "non-saturating": NON_SATURATING,
    "saturating": SATURATING,
    "wasserstein": WASSERSTEIN,
    "least-squares": LEAST_SQUARES,
    "hinge": HINGE,
    "fuzzy": NON_SATURATING._replace(critic=partial(cross_entropy, fuzz=0.1)),
}
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
shapes = pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (2,), (5, 7, 3)], ids=str)


def scores(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def linear(shape: tuple[int, ...], norm: float) -> Callable[[Tensor], Tensor]:
    """A critic w·x + 3 with ‖w‖ given."""
    weight = torch.randn(shape)
    weight = weight * norm / weight.norm()
    return lambda x: (weight.to(x) * x).flatten(1).sum(-1) + 3


def smooth_critic() -> Critic:
    return Critic(MLPEncoder(shape=(1, 3, 3), hidden=(6, 5), activation="tanh")).double()


# losses


@losses
def test_a_critic_that_is_fooled(loss: AdversarialLoss) -> None:
    # Fuzzy labels move the loss of every constant but 0 at random.
    constants = torch.zeros(1) if loss is LOSSES["fuzzy"] else torch.linspace(-2, 2, 81)
    values = [loss.critic(c.expand(6), c.expand(6)) for c in constants]
    assert all(value.shape == () for value in values)
    assert float(min(values)) == pytest.approx(loss.fooled, abs=1e-6)


def test_cross_entropy_is_the_mean_over_both_halves() -> None:
    real, fake = scores(0.3, -1.2, 2.0), scores(0.7, -0.4, 0.1)
    p, q = real.sigmoid(), fake.sigmoid()
    torch.testing.assert_close(cross_entropy(real, fake), -(p.log().sum() + (1 - q).log().sum()) / 6)
    nothing = torch.zeros(5)
    assert float(cross_entropy(nothing, nothing)) == pytest.approx(math.log(2), rel=1e-6)
    labels = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), labels)
    torch.testing.assert_close(cross_entropy(real, fake), expected)


def test_generator_losses_and_their_slopes_by_the_logit() -> None:
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64).requires_grad_()
    probability = logits.sigmoid().detach()
    torch.testing.assert_close(NON_SATURATING.generator(logits), -probability.log().mean())
    torch.testing.assert_close(SATURATING.generator(logits), (1 - probability).log().mean())
    for loss, expected in ((NON_SATURATING, -(1 - probability)), (SATURATING, -probability)):
        (slope,) = torch.autograd.grad(loss.generator(logits) * len(logits), logits)
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropies_are_finite_at_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([-100.0, 100.0], dtype=dtype, requires_grad=True)
    swapped = logits.flip(0)
    torch.testing.assert_close(cross_entropy(logits, swapped), torch.tensor(50.0, dtype=dtype))
    for value, expected in (
        (NON_SATURATING.generator(logits) * 2, [-1.0, 0.0]),
        (SATURATING.generator(logits) * 2, [0.0, -1.0]),
        (cross_entropy(logits, swapped) * 4, [-1.0, 1.0]),
    ):
        (slope,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(slope, torch.tensor(expected, dtype=dtype))


def fuzzy_labels(real: Tensor, fake: Tensor, fuzz: float) -> tuple[Tensor, Tensor]:
    """The loss and the labels behind it, by its slope (σ(l) - t) / 2B."""
    logits = torch.cat([real, fake]).detach().requires_grad_()
    loss = cross_entropy(*logits.chunk(2), fuzz=fuzz)
    (slope,) = torch.autograd.grad(loss, logits)
    return loss.detach(), logits.sigmoid().detach() - len(logits) * slope


def test_fuzzy_labels_are_uniform_around_both_and_drawn_for_each_image() -> None:
    real, fake = torch.randn(2, 4000, dtype=torch.float64)
    loss, labels = fuzzy_labels(real, fake, 0.2)
    for half, centre in zip(labels.chunk(2), (1, 0), strict=True):
        assert (half - centre).abs().max() <= 0.2 + 1e-9
        assert half.min() < centre - 0.19
        assert half.max() > centre + 0.19
        assert float(half.mean()) == pytest.approx(centre, abs=0.01)
        assert float(half.var()) == pytest.approx(0.2**2 / 3, rel=0.1)
    assert len(labels.unique()) > 7000
    assert abs(float((labels[:4000] - 1) @ labels[4000:]) / 4000) < 1e-3
    p = torch.cat([real, fake]).sigmoid()
    torch.testing.assert_close(loss, -(labels * p.log() + (1 - labels) * (1 - p).log()).mean())
    again, other = fuzzy_labels(real, fake, 0.2)
    assert not torch.allclose(labels, other)
    assert not torch.allclose(loss, again)
    assert torch.equal(cross_entropy(real, fake), cross_entropy(real, fake))


def test_wasserstein_hinge_and_least_squares_by_hand() -> None:
    real, fake = scores(2.0, 0.5, -1.0).detach(), scores(-3.0, 0.0, 1.0).detach()
    assert float(WASSERSTEIN.critic(real, fake)) == pytest.approx(-2 / 3 - 0.5)
    assert float(WASSERSTEIN.generator(fake)) == pytest.approx(2 / 3)
    torch.testing.assert_close(WASSERSTEIN.critic(real + 17, fake + 17), WASSERSTEIN.critic(real, fake))
    assert float(HINGE.critic(real, fake)) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert float(HINGE.generator(fake)) == pytest.approx(2 / 3)
    assert float(LEAST_SQUARES.critic(real, fake)) == pytest.approx((1 + 0.25 + 4) / 6 + (9 + 0 + 1) / 6)
    assert float(LEAST_SQUARES.generator(fake)) == pytest.approx((16 + 1 + 0) / 6)


@losses
def test_both_players_are_pushed_apart(loss: AdversarialLoss) -> None:
    real, fake = scores(0.1, -0.2), scores(0.3, 0.05)
    up, down = torch.autograd.grad(loss.critic(real, fake), [real, fake])
    (generator,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (up < 0).all()
    assert (down > 0).all()
    assert (generator < 0).all()


# penalties


@shapes
@pytest.mark.parametrize(("norm", "penalty"), [(1.0, 0.0), (2.0, 1.0)])
def test_the_penalty_of_a_linear_critic(shape: tuple[int, ...], norm: float, penalty: float) -> None:
    critic, real, fake = linear(shape, norm), torch.rand(6, *shape), torch.rand(6, *shape)
    torch.testing.assert_close(gradient_penalty(critic, real, fake)[0], torch.full((6,), penalty), atol=1e-5, rtol=0)
    torch.testing.assert_close(slopes(critic, real), torch.full((6,), norm), atol=1e-5, rtol=0)
    torch.testing.assert_close(r1_penalty(critic, real), torch.full((6,), norm**2 / 2), atol=1e-5, rtol=0)


def quadratic(x: Tensor) -> Tensor:
    """A critic whose slope at x is ‖x‖."""
    return 0.5 * x.flatten(1).square().sum(-1)


def test_slopes_are_each_images_own() -> None:
    x = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    x[0] = 0
    norms = torch.stack([image.norm() for image in x])
    torch.testing.assert_close(slopes(quadratic, x), (norms**2 + 1e-5).sqrt())
    torch.testing.assert_close(r1_penalty(quadratic, x), norms**2 / 2)
    torch.testing.assert_close(slopes(quadratic, x)[2:3], slopes(quadratic, x[2:3]))
    assert r1_penalty(quadratic, x)[0] == 0


def test_interpolates_are_each_pairs_own() -> None:
    real, fake = torch.randn(2, 3000, 2, 3, dtype=torch.float64)
    u = (interpolates(real, fake) - real) / (fake - real)
    torch.testing.assert_close(u, u[:, :1, :1].expand_as(u), atol=1e-6, rtol=0)
    u = u[:, 0, 0]
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() <= 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.06)
    with pytest.raises(UsageError, match=r"\(1, 2, 3\), expected the real ones', \(3000, 2, 3\)"):
        interpolates(real, fake[:1])


def test_the_penalty_is_at_the_interpolates() -> None:
    real, fake = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    torch.manual_seed(5)
    penalty = gradient_penalty(quadratic, real, fake)[0]
    torch.manual_seed(5)
    norms = interpolates(real, fake).flatten(1).norm(dim=-1)
    torch.testing.assert_close(penalty, ((norms**2 + 1e-5).sqrt() - 1) ** 2)


@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_penalties_reach_the_critics_weights(penalty: str) -> None:
    critic = smooth_critic()
    real, fake = torch.rand(2, 4, 1, 3, 3, dtype=torch.float64)

    def value() -> Tensor:
        torch.manual_seed(2)
        return (r1_penalty(critic, real) if penalty == "r1" else gradient_penalty(critic, real, fake)[0]).sum()

    weights = [p for p in critic.parameters() if p is not critic.head.bias]  # a constant has no slope
    step = 1e-5
    for weight, slope in zip(weights, torch.autograd.grad(value(), weights), strict=True):
        flat = weight.detach().view(-1)
        numbers = []
        for place in range(min(5, len(flat))):
            sides = []
            for sign in (1, -1):
                flat[place] += sign * step
                sides.append(value().detach())
                flat[place] -= sign * step
            numbers.append((sides[0] - sides[1]) / (2 * step))
        torch.testing.assert_close(slope.flatten()[: len(numbers)], torch.stack(numbers), atol=1e-8, rtol=1e-5)


def test_penalties_leave_the_images_source_alone() -> None:
    critic, source = smooth_critic(), torch.rand(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    gradient_penalty(critic, torch.rand_like(source), source * 2)[0].sum().backward()
    assert source.grad is None
    assert critic.head.weight.grad is not None


def test_slopes_are_measured_without_gradients_too() -> None:
    critic, x = smooth_critic(), torch.rand(4, 1, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        measured = slopes(critic, x)
        torch.testing.assert_close(measured, slopes(critic.requires_grad_(False), x))


def test_under_autocast_penalties_are_in_single_precision() -> None:
    critic = Critic(DeepConvEncoder(shape=(3, 16, 16), channels=(8, 16), activation="leaky-relu"))
    real, fake = torch.rand(2, 6, 3, 16, 16)
    exact = slopes(critic, real), r1_penalty(critic, real)
    with torch.autocast("cpu", torch.bfloat16):
        rough = slopes(critic, real), r1_penalty(critic, real.bfloat16())
        penalty = gradient_penalty(critic, real, fake.bfloat16())[0]
        penalty.mean().backward()
    assert {value.dtype for value in (*rough, penalty)} == {torch.float32}
    for value, expected in zip(rough, exact, strict=True):
        torch.testing.assert_close(value, expected, rtol=0.05, atol=1e-4)
    weights = [p.grad for name, p in critic.named_parameters() if name.endswith("weight")]
    assert all(grad.abs().max() > 0 for grad in weights)


class Blind(nn.Module):
    """A critic that no gradient passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.detach().flatten(1).sum(-1)


@pytest.mark.parametrize("critic", [Blind(), lambda x: torch.zeros(len(x))], ids=["blind", "constant"])
def test_a_critic_that_no_gradient_passes_is_refused(critic: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(3, 1, 4, 4)
    for penalty in (
        lambda: slopes(critic, x),
        lambda: r1_penalty(critic, x),
        lambda: gradient_penalty(critic, x, x)[0],
    ):
        with pytest.raises(UsageError, match="do not depend on its images") as caught:
            penalty()
        assert "\n" not in str(caught.value)


@losses
def test_a_step_reads_nothing_on_the_host(loss: AdversarialLoss) -> None:
    nets = {"shape": (3, 16, 16), "norm": "batch"}
    generator = Generator(DeepConvDecoder(latents=4, channels=(16, 8), **nets)).to("meta")
    critic = Critic(DeepConvEncoder(channels=(8, 16), activation="leaky-relu", **nets)).to("meta")
    real, fake = 2 * torch.rand(8, 3, 16, 16, device="meta") - 1, 2 * generator.sample(8) - 1
    value = loss.critic(critic(augmented(real)), critic(augmented(fake.detach())))
    value = value + 10 * gradient_penalty(critic, real, fake)[0].mean() + r1_penalty(critic, real).mean()
    value.backward()
    assert all(p.grad is not None for p in critic.parameters())
    loss.generator(critic(augmented(fake))).backward()
    assert all(p.grad is not None for p in generator.parameters())
