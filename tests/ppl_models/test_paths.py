"""Paths between latents: their energies against closed forms, and the least of them against another optimiser."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ppl_models import (
    MLP,
    ConvDecoder,
    Generator,
    MLPDecoder,
    UsageError,
    least_energy_path,
    normalised_path_energy,
    path_energy,
    pullback_energy,
    pullback_path,
    spherical,
    straight,
    variance_preserving,
)


def network(seed: int = 0, *, latents: int = 4, gain: float = 2.0) -> MLP:
    """A smooth random generator of vectors, in eval mode."""
    torch.manual_seed(seed)
    net = MLP([latents, 32, 32, 20], activation="tanh").double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(gain)
    return net


def codes(pairs: int = 3, *, latents: int = 4) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, pairs, latents, dtype=torch.float64))


def line(z_a: Tensor, z_b: Tensor, nodes: int) -> Tensor:
    return straight(z_b, z_a, torch.linspace(0, 1, nodes, dtype=z_a.dtype))


def identity(z: Tensor) -> Tensor:
    return z


@pytest.mark.parametrize("mix", [straight, spherical, variance_preserving])
def test_every_mixture_starts_at_weight_one(mix: Callable) -> None:
    start, end = codes()
    path = mix(start, end, torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64))
    assert path.shape == (3, 3, 4)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, 2], end)


def test_mixtures_in_between() -> None:
    start, end = torch.tensor([[2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    weights = torch.tensor([2 / 3], dtype=torch.float64)
    torch.testing.assert_close(straight(start, end, weights)[0], torch.tensor([4 / 3, 2 / 3]).double())
    # A third of a right angle from the start.
    torch.testing.assert_close(spherical(start, end, weights)[0], torch.tensor([3**0.5, 1.0]).double())


def test_spherical_of_parallel_codes_is_straight_with_a_gradient() -> None:
    start = torch.randn(2, 4, dtype=torch.float64).requires_grad_()
    weights = torch.linspace(0, 1, 5, dtype=torch.float64)
    path = spherical(start, 3 * start.detach(), weights)
    torch.testing.assert_close(path, straight(start, 3 * start.detach(), weights))
    (gradient,) = torch.autograd.grad(path.sum(), start)
    torch.testing.assert_close(gradient, torch.full_like(start, 2.5))


def test_identity_in_closed_form() -> None:
    # w = 2|z|² + 2r² with r the norm of either end: E_s = 32/3 r⁴, E_min = (∫ √w ds)² along the same line.
    a = torch.tensor([[0.6, 0.3, -0.2], [1.0, 0.0, 0.5]], dtype=torch.float64)
    r4 = a.square().sum(-1).square()
    torch.testing.assert_close(path_energy(identity, line(a, -a, 20_001), a, -a), 32 / 3 * r4, rtol=1e-8, atol=0)
    torch.testing.assert_close(
        path_energy(identity, line(a, -a, 6), a, -a), 8 * r4 * (1 + (1 - 1 / 25) / 3), rtol=1e-12, atol=0
    )
    least = 2 * r4 * (2**0.5 + math.asinh(1)) ** 2
    coarse, fine = (least_energy_path(identity, a, -a, nodes=segments + 1) for segments in (128, 256))
    torch.testing.assert_close((4 * fine.energy - coarse.energy) / 3, least, rtol=1e-8, atol=0)
    torch.testing.assert_close(fine.lower_bound, 8 * r4)
    # The line itself, at another speed.
    direction = a / a.norm(dim=-1, keepdim=True)
    across = fine.path - (fine.path * direction[:, None]).sum(-1, keepdim=True) * direction[:, None]
    assert across.abs().max() < 1e-6
    assert (fine.path[:, 64] - line(a, -a, 257)[:, 64]).norm(dim=-1).min() > 0.01


def test_the_rule_is_of_second_order() -> None:
    net, (z_a, z_b) = network(), codes(2)
    bend = torch.randn(4, dtype=torch.float64)

    def error(segments: int) -> Tensor:
        t = torch.linspace(0, 1, segments + 1, dtype=torch.float64)[:, None]
        path = line(z_a, z_b, segments + 1) + (math.pi * t).sin() * bend
        return path_energy(net, path, net(z_a), net(z_b)).detach()

    exact = (4 * error(4000) - error(2000)) / 3
    orders = ((error(40) - exact) / (error(80) - exact)).abs().log2()
    torch.testing.assert_close(orders, torch.full_like(orders, 2.0), rtol=0, atol=0.02)


def bounds(generator: Callable[[Tensor], Tensor], z_a: Tensor, z_b: Tensor, *, nodes: int) -> tuple[Tensor, Tensor]:
    """Half the squared distance of the images times that of the codes, and the straight line's energy."""
    x_a, x_b, t = generator(z_a), generator(z_b), torch.linspace(0, 1, nodes, dtype=z_a.dtype).unsqueeze(-1)
    apart = (x_a - x_b).flatten(z_a.dim() - 1).square().sum(-1)
    direct = z_a.unsqueeze(-2) + t * (z_b - z_a).unsqueeze(-2)
    return 0.5 * apart * (z_a - z_b).square().sum(-1), path_energy(generator, direct, x_a, x_b)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_and_other_lines(seed: int) -> None:
    net, (z_a, z_b) = network(seed, gain=1.0 + seed / 2), codes(5)
    found = least_energy_path(net, z_a, z_b, starts=2, steps=30)
    lower, above = bounds(net, z_a, z_b, nodes=32)
    assert ((lower < found.energy) & (found.energy < above)).all()
    torch.testing.assert_close(found.lower_bound, lower)
    torch.testing.assert_close(found.straight, above)
    weights = torch.linspace(0, 1, 32, dtype=torch.float64)
    even = (math.pi / 2 * weights).sin().square()
    for mixed in (straight(z_b, z_a, weights), spherical(z_b, z_a, weights), variance_preserving(z_b, z_a, even)):
        assert (found.energy < path_energy(net, mixed, net(z_a), net(z_b))).all()
    assert torch.equal(found.path[:, [0, -1]], torch.stack([z_a, z_b], 1))
    assert found.path.shape == (5, 32, 4)
    assert (found.speed_variation < 0.01).all()
    assert (found.gradient_norm < 1e-4 * found.energy).all()


def test_given_images_are_what_the_path_stays_close_to() -> None:
    net, (z_a, z_b) = network(gain=3.0), codes()
    x_a, x_b = torch.randn(2, 3, 20, dtype=torch.float64)
    found = least_energy_path(net, z_a, z_b, x_a, x_b)
    # On few nodes and after no step, where the speed is far from even.
    for path in (found, least_energy_path(net, z_a, z_b, x_a, x_b, nodes=5, steps=0)):
        images = net(middles(path.path)).detach()
        weight = (images - x_a[:, None]).square().sum(-1) + (images - x_b[:, None]).square().sum(-1)
        speeds = weight * path.path.diff(dim=1).square().sum(-1)
        torch.testing.assert_close(path.energy, speeds.shape[1] * speeds.sum(-1))
        variation = (speeds.square().mean(-1) / speeds.mean(-1).square() - 1).sqrt()
        torch.testing.assert_close(path.speed_variation, variation, rtol=1e-6, atol=1e-8)
    assert path.speed_variation.max() > 0.1
    assert (found.energy < found.straight).all()
    assert (found.energy < path_energy(net, least_energy_path(net, z_a, z_b).path, x_a, x_b)).all()


def middles(path: Tensor) -> Tensor:
    return (path[..., 1:, :] + path[..., :-1, :]) / 2


def test_another_optimiser_finds_no_less() -> None:
    net, (z_a, z_b) = network(gain=2.5).requires_grad_(False), codes(1)
    found = least_energy_path(net, z_a, z_b)
    inner = line(z_a, z_b, 32)[:, 1:-1].clone().requires_grad_()
    rule = torch.optim.LBFGS([inner], max_iter=300, history_size=30, line_search_fn="strong_wolfe")

    def energy() -> Tensor:
        rule.zero_grad()
        whole = path_energy(net, torch.cat([z_a[:, None], inner, z_b[:, None]], 1), net(z_a), net(z_b)).sum()
        whole.backward()
        return whole

    rule.step(energy)
    other = energy().item()
    assert found.energy.item() < 0.995 * found.straight.item()
    assert found.energy.item() <= other * (1 + 1e-4)


def test_more_starts_are_no_worse_and_a_step_never_raises_the_energy() -> None:
    net, (z_a, z_b) = network(gain=4.0).requires_grad_(False), codes(4)
    runs = [least_energy_path(net, z_a, z_b, steps=steps, starts=1).energy for steps in range(12)]
    torch.testing.assert_close(runs[0], bounds(net, z_a, z_b, nodes=32)[1])
    for before, after in zip(runs, runs[1:], strict=False):
        assert (after <= before).all()
    more = least_energy_path(net, z_a, z_b, starts=6)
    assert (more.energy <= least_energy_path(net, z_a, z_b, starts=1).energy).all()


def test_random_starts_leave_a_ridge() -> None:
    # By symmetry the gradient on the line over the hill has no part across it.
    def hill(z: Tensor) -> Tensor:
        return torch.cat([z, 3 * (-4 * z.square().sum(-1, keepdim=True)).exp()], -1)

    z_a, z_b = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    over, around = (least_energy_path(hill, z_a, z_b, starts=starts) for starts in (1, 4))
    assert not over.path[:, 1].any()
    assert around.path[:, 1].abs().max() > 0.3
    assert around.energy < 0.8 * over.energy
    assert around.energy > around.lower_bound


def test_optimum_solves_the_euler_lagrange_equation() -> None:
    net, (z_a, z_b) = network().requires_grad_(False), codes(2)
    path = least_energy_path(net, z_a, z_b, nodes=201, starts=1, steps=80).path
    step = 1 / 200
    velocity, acceleration = (path[:, 2:] - path[:, :-2]) / (2 * step), path.diff(n=2, dim=1) / step**2
    inner = path[:, 1:-1].clone().requires_grad_()
    weight = sum((net(inner) - net(z)[:, None]).square().sum(-1) for z in (z_a, z_b))
    (slope,) = torch.autograd.grad(weight.sum(), inner)
    left = weight.detach()[..., None] * acceleration
    right = 0.5 * velocity.square().sum(-1, keepdim=True) * slope - (slope * velocity).sum(-1, keepdim=True) * velocity
    # The line, for scale: it has no acceleration, and what is on the right does not vanish.
    assert (left - right).norm() < 2e-3 * right.norm()
    assert right.norm() > 1


def test_pairs_together_are_pairs_alone() -> None:
    net, (z_a, z_b) = network().requires_grad_(False), codes(6)
    together = least_energy_path(net, z_a.view(2, 3, 4), z_b.view(2, 3, 4), starts=3, steps=20)
    assert together.path.shape == (2, 3, 32, 4)
    alone = least_energy_path(net, z_a[4], z_b[4], starts=3, steps=20)
    assert alone.path.shape == (32, 4)
    for one, of_many in zip(alone[:4], together[:4], strict=True):
        torch.testing.assert_close(one, of_many[1, 1], rtol=1e-6, atol=1e-6)


def test_images_of_any_shape_on_finer_points_without_touching_the_generator() -> None:
    generator = Generator(MLPDecoder(latents=4, shape=(2, 5, 3), hidden=(16,), activation="tanh")).double().eval()
    with torch.no_grad():
        z_a, z_b = codes(2)
        found = least_energy_path(generator, z_a, z_b, nodes=9, steps=20, starts=2, subpoints=2000)
        flat = least_energy_path(lambda z: generator(z).flatten(-3), z_a, z_b, nodes=9, steps=20, starts=2)
        torch.testing.assert_close(found.path, flat.path)
        line_energy = path_energy(generator, line(z_a, z_b, 2001), generator(z_a), generator(z_b))
        torch.testing.assert_close(found.straight, line_energy)
        knots = torch.stack(
            [straight(found.path[:, i + 1], found.path[:, i], torch.arange(250).double() / 250) for i in range(8)], 1
        )
        fine = torch.cat([knots.flatten(1, 2), found.path[:, -1:]], 1)
        torch.testing.assert_close(found.energy, path_energy(generator, fine, generator(z_a), generator(z_b)))
    assert not torch.allclose(found.energy, flat.energy, rtol=1e-8)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_single_precision_reaches_the_same_energy() -> None:
    net, (z_a, z_b) = network().requires_grad_(False), codes()
    double = least_energy_path(net, z_a, z_b)
    single = least_energy_path(net.float(), z_a.float(), z_b.float())
    assert single.path.dtype == torch.float32
    torch.testing.assert_close(single.energy.double(), double.energy, rtol=1e-5, atol=0)


def test_pullback_geodesics_of_a_linear_generator_are_straight_and_the_others_not() -> None:
    matrix = torch.randn(7, 4, dtype=torch.float64)
    z_a, z_b = codes()

    def linear(z: Tensor) -> Tensor:
        return z @ matrix.T

    path = line(z_a, z_b, 12).requires_grad_()
    energy = pullback_energy(linear, path)
    torch.testing.assert_close(energy, linear(z_b - z_a).square().sum(-1))
    (gradient,) = torch.autograd.grad(energy.sum(), path)
    torch.testing.assert_close(gradient[:, 1:-1], torch.zeros(3, 10, 4).double(), atol=1e-10, rtol=0)
    bent = path.detach() + 0.1 * (math.pi * torch.linspace(0, 1, 12).double()).sin()[:, None]
    assert (pullback_energy(linear, bent) > energy).all()
    least = least_energy_path(linear, z_a, z_b, nodes=12).path
    assert (pullback_energy(linear, least) > energy * (1 + 1e-6)).all()


def test_pullback_path_of_a_linear_generator_is_the_line() -> None:
    matrix = torch.randn(7, 4, dtype=torch.float64)
    z_a, z_b = codes()
    found = pullback_path(lambda z: z @ matrix.T, z_a, z_b, nodes=12, starts=3)
    torch.testing.assert_close(found.path, line(z_a, z_b, 12), rtol=0, atol=1e-6)
    for bound in (found.straight, found.lower_bound):
        torch.testing.assert_close(found.energy, bound, rtol=1e-9, atol=0)


def sphere(z: Tensor) -> Tensor:
    """A sphere of radius 1 by its latitude and longitude."""
    latitude, longitude = z.unbind(-1)
    ring = latitude.cos()
    return torch.stack([ring * longitude.cos(), ring * longitude.sin(), latitude.sin()], -1)


def test_pullback_paths_on_a_sphere_are_great_circles() -> None:
    z_a, z_b = torch.tensor([[[0.7, -1.0], [0.2, 0.0]], [[0.7, 1.0], [1.0, 2.0]]], dtype=torch.float64)
    angle = (sphere(z_a) * sphere(z_b)).sum(-1).acos()
    for count in (16, 32):
        found = pullback_path(sphere, z_a, z_b, nodes=count + 1, steps=200)
        # Equal chords of the great circle's arc: below its squared length, by an error that falls as 1/N².
        chords = (2 * count * (angle / (2 * count)).sin()).square()
        torch.testing.assert_close(found.energy, chords, rtol=1e-5, atol=0)
        assert (found.speed_variation < 1e-3).all()
        normal = torch.linalg.cross(sphere(z_a), sphere(z_b))
        assert (sphere(found.path) @ normal[..., None]).abs().max() < 1e-3
        assert (found.lower_bound < found.energy).all()
        assert (found.energy < found.straight).all()
    fine = pullback_path(sphere, z_a, z_b, nodes=33, steps=200, subpoints=2000)
    assert (fine.energy > found.energy).all()
    torch.testing.assert_close(fine.energy, angle.square(), rtol=1e-3, atol=0)


def test_pullback_paths_go_around_what_images_change_over() -> None:
    # A cylinder of latents: wound at the rate of a bent coordinate, straight where unrolled.
    def cylinder(z: Tensor) -> Tensor:
        angle = z[..., 0] + 0.5 * z[..., 1].square()
        return torch.stack([angle.cos(), angle.sin(), z[..., 1]], -1)

    z_a, z_b = torch.tensor([[[0.0, -1.0]], [[1.0, 1.5]]], dtype=torch.float64)
    found = pullback_path(cylinder, z_a, z_b, nodes=65, steps=200)
    turn = 1.0 + 0.5 * (1.5**2 - 1.0)
    torch.testing.assert_close(found.energy, torch.tensor([turn**2 + 2.5**2]).double(), rtol=1e-3, atol=0)
    unrolled = found.path[..., 0] + 0.5 * found.path[..., 1].square()
    expected = torch.linspace(0.5, 0.5 + turn, 65, dtype=torch.float64)
    torch.testing.assert_close(unrolled[0], expected, rtol=0, atol=5e-3)


def test_another_optimiser_finds_no_less_pullback_energy() -> None:
    net, (z_a, z_b) = network(gain=2.5).requires_grad_(False), codes(1)
    found = pullback_path(net, z_a, z_b, steps=150)
    inner = line(z_a, z_b, 32)[:, 1:-1].clone().requires_grad_()
    rule = torch.optim.LBFGS([inner], max_iter=500, history_size=30, line_search_fn="strong_wolfe")

    def energy() -> Tensor:
        rule.zero_grad()
        whole = pullback_energy(net, torch.cat([z_a[:, None], inner, z_b[:, None]], 1)).sum()
        whole.backward()
        return whole

    rule.step(energy)
    assert found.lower_bound.item() < found.energy.item() < 0.96 * found.straight.item()
    assert found.energy.item() <= energy().item() * (1 + 1e-3)
    torch.testing.assert_close(found.energy, pullback_energy(net, found.path))


def test_pullback_energy_never_rises_and_pairs_do_not_hang_together() -> None:
    net, (z_a, z_b) = network(gain=3.0).requires_grad_(False), codes(3)
    runs = [pullback_path(net, z_a, z_b, steps=steps, starts=1).energy for steps in range(10)]
    for before, after in zip(runs, runs[1:], strict=False):
        assert (after <= before).all()
    alone = pullback_path(net, z_a[1], z_b[1], steps=9, starts=1)
    torch.testing.assert_close(alone.energy, runs[-1][1])


def test_a_generator_of_one_image_has_paths_without_energy() -> None:
    z_a, z_b = codes()
    for find in (pullback_path, least_energy_path):
        found = find(lambda z: 0 * z, z_a, z_b, nodes=6, steps=5)
        assert found.path.isfinite().all()
        assert not found.energy.any()


def test_regulariser_is_the_straight_energy_over_its_bound() -> None:
    net, (z_a, z_b) = network(), codes(5)
    lower, above = bounds(net, z_a, z_b, nodes=6)
    torch.testing.assert_close(normalised_path_energy(net, z_a, z_b), above / lower)
    assert (normalised_path_energy(net, z_a, z_b) > 1).all()


def test_regulariser_in_closed_form() -> None:
    z_a, z_b = codes()
    for nodes in (2, 6, 9):
        linear = normalised_path_energy(lambda z: 3 * z + 1, z_a, z_b, nodes=nodes)
        torch.testing.assert_close(linear, torch.full_like(linear, 4 / 3 - 1 / (3 * (nodes - 1) ** 2)))
    # Both ends' average wherever the path is looked at in between.
    jump = normalised_path_energy(lambda z: z * (z.abs() > 0.9 * z_b.abs().unsqueeze(-2)), -z_b, z_b)
    torch.testing.assert_close(jump, torch.ones_like(jump))
    assert normalised_path_energy(torch.zeros_like, z_a, z_b).isfinite().all()


def test_gradient_of_the_regulariser_against_finite_differences() -> None:
    net, (z_a, z_b) = network(), codes()
    normalised_path_energy(net, z_a, z_b).sum().backward()

    @torch.no_grad()
    def value() -> Tensor:
        lower, above = bounds(net, z_a, z_b, nodes=6)
        return (above / lower).sum()

    for parameter in net.parameters():
        direction, values = torch.randn_like(parameter), []
        for step in (1e-5, -2e-5):
            parameter.data.add_(step * direction)
            values.append(value())
        parameter.data.add_(1e-5 * direction)
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-6, atol=1e-8)


def test_the_regulariser_does_not_shrink_a_linear_generator() -> None:
    z_a, z_b = codes(1)
    scale = torch.ones((), dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(normalised_path_energy(lambda z: scale * z, z_a, z_b).sum(), scale)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)


def test_regulariser_reads_nothing_on_the_host_and_stays_in_single_precision() -> None:
    generator = ConvDecoder(latents=10, shape=(3, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert generator(torch.randn(2, 10)).dtype == torch.bfloat16
        assert normalised_path_energy(generator, torch.randn(2, 10), torch.randn(2, 10)).dtype == torch.float32
    generator = Generator(generator).to("meta")
    z_a, z_b = torch.randn(2, 8, 10, device="meta")
    loss = normalised_path_energy(generator, z_a, z_b)
    assert loss.shape == (8,)
    loss.mean().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


def test_what_is_refused() -> None:
    net, (z_a, z_b) = network(), codes()
    with pytest.raises(UsageError, match="training mode"):
        least_energy_path(nn.Sequential(net).train(), z_a, z_b)
    net.eval()
    with pytest.raises(UsageError, match="differentiably"):
        least_energy_path(torch.no_grad()(lambda z: net(z)), z_a, z_b)
    with pytest.raises(UsageError, match="one shape"):
        least_energy_path(net, z_a, z_b[:2])
    with pytest.raises(UsageError, match="one shape"):
        normalised_path_energy(net, z_a, z_b[0])
    with pytest.raises(UsageError, match="one shape"):
        pullback_path(net, z_a, z_b[:2])
    with pytest.raises(UsageError, match="differentiably"):
        pullback_path(torch.no_grad()(lambda z: net(z)), z_a, z_b)
    with pytest.raises(UsageError, match="3 and 1"):
        pullback_path(net, z_a, z_b, starts=0)
    with pytest.raises(UsageError, match="3 and 1"):
        least_energy_path(net, z_a, z_b, nodes=2)
    with pytest.raises(UsageError, match="one shape"):
        least_energy_path(net, z_a, z_b, net(z_a), net(z_b)[0])
    with pytest.raises(UsageError, match="for each pair"):
        least_energy_path(net, z_a, z_b, net(z_a)[0], net(z_b)[0])
    with pytest.raises(UsageError, match="as the generator's"):
        path_energy(net, line(z_a, z_b, 5), net(z_a)[..., :5], net(z_b)[..., :5])
    with pytest.raises(UsageError, match="at least 2"):
        path_energy(net, z_a[:, None], net(z_a), net(z_b))
    with pytest.raises(UsageError, match="expected \\(\\*, \\*event\\)"):
        pullback_energy(lambda z: z.flatten(0, 1), line(z_a, z_b, 5))
