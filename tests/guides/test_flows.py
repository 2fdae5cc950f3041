import gc
import weakref
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from toys import batch_of, general_ppca, sampled

from guides import Flow, Free, terms
from ppl_models import UsageError


def random_flow(latents: int = 3, **options: object) -> tuple[Flow, dict[str, Tensor]]:
    flow = Flow(latents, hidden=(16, 16), context=4, **options).double()
    for network in flow.networks:
        torch.nn.init.normal_(network.layers[-1].weight, std=0.3)
        torch.nn.init.normal_(network.layers[-1].bias, std=0.3)
    params = {"loc": torch.randn(5, latents), "log": 0.3 * torch.randn(5, latents), "context": torch.randn(5, 4)}
    return flow, {name: value.double() for name, value in params.items()}


def pushed(flow: Flow, params: dict[str, Tensor], row: int) -> Callable[[Tensor], Tensor]:
    """The map from the base's noise to z, written out from the formula and the networks alone."""

    def push(noise: Tensor) -> Tensor:
        z = params["loc"][row] + params["log"][row].exp() * noise
        for network in flow.networks:
            mean, log_scale = network(z, params["context"][row])
            z = mean + log_scale.exp() * z
        return z

    return push


@pytest.mark.parametrize("transforms", [1, 2, 3])
def test_density_is_the_change_of_variables_by_autograds_jacobian(transforms: int) -> None:
    flow, params = random_flow(transforms=transforms)
    q = flow.distribution(params)
    noise = torch.randn(5, 3, dtype=torch.float64)
    z, expected = torch.empty_like(noise), []
    for row in range(5):
        push = pushed(flow, params, row)
        z[row] = push(noise[row]).detach()
        jacobian = torch.autograd.functional.jacobian(push, noise[row])
        expected.append(dist.Normal(0.0, 1.0).log_prob(noise[row]).sum() - torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(q.log_prob(z), torch.stack(expected))
    torch.testing.assert_close(q.expand((4, 5)).log_prob(z.expand(4, 5, 3)), torch.stack(expected).expand(4, 5))


def test_density_integrates_to_one() -> None:
    flow, params = random_flow(2)
    params = {name: value[:2] for name, value in params.items()}
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(1).expand(-1, 2, -1)
    total = flow.distribution(params).log_prob(grid).exp().sum(0) * (axis[1] - axis[0]) ** 2
    # Where a ReLU bends the density has a kink, so that the rule is of second order in its step.
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)


def test_density_of_a_copy_equals_the_cached_one_and_carries_its_gradient() -> None:
    flow, params = random_flow()
    q = flow.distribution(params).expand((2, 5))
    z = q.rsample()
    cached = q.log_prob(z)
    copy = z.view_as(z).detach().requires_grad_()
    torch.testing.assert_close(q.log_prob(copy), cached)
    torch.testing.assert_close(q.log_prob(z), cached)  # the copy has replaced the sample in the cache
    (found,) = torch.autograd.grad(q.log_prob(copy).sum(), copy)
    numeric, step = torch.empty_like(found), 1e-6
    for j in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[j]
        numeric[..., j] = (q.log_prob(copy + shift) - q.log_prob(copy - shift)).detach() / (2 * step)
    torch.testing.assert_close(found, numeric, rtol=1e-5, atol=1e-6)


def test_a_second_sample_or_changed_weights_leave_no_stale_answer() -> None:
    flow, params = random_flow()
    q = flow.distribution(params)
    first = q.rsample()
    second = q.rsample()
    torch.testing.assert_close(q.log_prob(first), flow.distribution(params).log_prob(first.clone()))
    torch.testing.assert_close(q.log_prob(second), flow.distribution(params).log_prob(second.clone()))
    before = q.log_prob(first)
    with torch.no_grad():
        flow.networks[0].layers[-1].bias += 0.5
    after = flow.distribution(params).log_prob(first)
    assert (after - before).abs().min() > 1e-3


@pytest.mark.parametrize("copied", [False, True])
def test_nothing_of_a_step_outlives_it(copied: bool) -> None:
    flow, params = random_flow()

    def step() -> list[weakref.ref]:
        q = flow.distribution(params).expand((2, 5))
        z = q.rsample()
        q.log_prob(z.view_as(z) if copied else z).sum().backward()
        return [weakref.ref(thing) for thing in (q, z, *q.transforms)]

    gc.collect()
    gc.disable()
    try:
        assert all(reference() is None for reference in step())
    finally:
        gc.enable()


def test_order_is_reversed_between_transforms_and_the_same_in_a_rebuilt_flow() -> None:
    flow, again = Flow(4, transforms=3), Flow(4, transforms=3)
    assert flow.orders == [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]]
    for name, value in flow.state_dict().items():
        if name.endswith(("mask", "permutation")):
            assert torch.equal(value, again.state_dict()[name]), name
    flow, params = random_flow()
    for network, order in zip(flow.networks, flow.orders, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, network=network: network(z, params["context"][0])[0], torch.randn(3, dtype=torch.float64)
        )
        torch.testing.assert_close(jacobian[order][:, order].triu(), torch.zeros(3, 3, dtype=torch.float64))
        assert jacobian.abs().max() > 0


def test_context_reaches_every_dimension() -> None:
    flow, params = random_flow(transforms=1)
    other = params | {"context": params["context"] + 1.0}
    torch.manual_seed(1)
    z = flow.distribution(params).rsample()
    torch.manual_seed(1)
    assert (flow.distribution(other).rsample() - z).abs().min() > 1e-6


def test_a_flow_comes_closer_to_a_correlated_posterior_than_the_diagonal() -> None:
    """Free rows and the flow's own networks trained together, on one datum's bound."""
    model = general_ppca()
    model.requires_grad_(False)
    batch, flow = batch_of(sampled(model, 3)), Flow(2, hidden=(16,), context=2).double()
    guide = Free(3, family=flow).double()
    params = {name: value.clone().requires_grad_() for name, value in guide.start(batch).items()}
    optimizer = torch.optim.Adam([*params.values(), *flow.parameters()], lr=0.02)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        optimizer.zero_grad()
        terms(model, lambda b: guide.sample(b, params), batch, particles=32).elbo.mean().neg().backward()
        optimizer.step()
    with torch.no_grad():
        elbo = terms(model, lambda b: guide.sample(b, params), batch, particles=4000).elbo.mean(0)
    gap = model.evidence(batch.x) - elbo
    assert (gap < 0.2 * model.mean_field_gap()).all(), (gap, model.mean_field_gap())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 1}, "1 latents"),
        ({"transforms": 0}, "0 transforms"),
        ({"context": 0}, "context of 0"),
        ({"latents": 20, "hidden": (32, 16)}, r"\(32, 16\), each must be at least 20"),
        ({"hidden": ()}, r"hidden layers \(\)"),
    ],
)
def test_sizes_that_are_too_small_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Flow(**options)
