from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from toys import VectorEncoder, batch_of, general_ppca, sampled

from guides import ELBO, IWAE, SGD, Adam, Diagonal, Echo, Refinement, SemiAmortized, refine
from guides.evidence import bounds, posterior_for
from guides.sites import At
from ppl_models import UsageError
from runners.inference import InferenceStep

STEPS = Refinement(steps=4, rule=SGD(lr=0.03, momentum=0.5), final=1.0, decay=0.0)


def guide(*, exact: bool = True, refinement: Refinement = STEPS) -> SemiAmortized:
    return SemiAmortized(encoder=VectorEncoder(), family=Diagonal(2), refinement=refinement, exact=exact).double()


def loss_after(model: nn.Module, made: SemiAmortized, batch: object, *, objective: object = None) -> Tensor:
    """A training step's loss, with its own noise each time the same."""
    torch.manual_seed(11)
    step = InferenceStep(model, made, objective or ELBO(), None, autocast=nullcontext, device=torch.device("cpu"))
    return step.objective(model, step.refined(batch), batch)[0]


CLIPPED = Refinement(steps=4, rule=SGD(lr=0.03, momentum=0.5, clip=3.0), final=0.1, decay=0.0)


@pytest.mark.parametrize("refinement", [STEPS, CLIPPED])
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3, "plain")])
def test_exact_gradients_are_those_of_finite_differences(refinement: Refinement, objective: object) -> None:
    """Of the encoder and of the model, which acts on the steps as well."""
    model, made = general_ppca(), guide(refinement=refinement)
    batch = batch_of(sampled(model, 4))
    tensors = [made.encoder.body.weight, made.heads["log"].bias, model.weight, model.log_variance]
    grads = torch.autograd.grad(loss_after(model, made, batch, objective=objective), tensors)
    for tensor, grad in zip(tensors, grads, strict=True):
        flat = tensor.detach().view(-1)  # shares memory with the parameter
        for place in range(min(4, len(flat))):
            values = []
            for change in (1e-5, -2e-5):
                flat[place] += change
                values.append(loss_after(model, made, batch, objective=objective).item())
            flat[place] += 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert float(grad.view(-1)[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_exact_gradients_of_dreg_have_the_plain_ones_mean() -> None:
    """Its steps are differentiated as plain ones: what it detaches a second derivative has to pass through."""
    short = Refinement(steps=3, rule=SGD(lr=0.005), final=1.0, decay=0.0)  # so that no derivative explodes
    model, made = general_ppca(), guide(refinement=short)
    batch = batch_of(sampled(model, 1).expand(20_000, -1))
    found = {}
    for gradient in ("plain", "dreg"):
        loss = loss_after(model, made, batch, objective=IWAE(3, gradient))
        found[gradient] = torch.autograd.grad(loss, made.heads["loc"].bias)[0]
    torch.testing.assert_close(found["dreg"], found["plain"], rtol=0.05, atol=0.02)


def test_to_first_order_the_encoder_gets_the_gradient_at_the_refined_parameters() -> None:
    model, made = general_ppca(), guide(exact=False)
    batch = batch_of(sampled(model, 4))
    (found,) = torch.autograd.grad(loss_after(model, made, batch), made.encoder.body.weight)
    torch.manual_seed(11)
    params, _ = refine(model, made, ELBO(), batch, made.start(batch), refinement=made.refinement)
    params = {name: value.requires_grad_() for name, value in params.items()}
    at_the_end = torch.autograd.grad(ELBO()(model, At(made, params), batch)[0], list(params.values()))
    start = made.start(batch)
    pulled = sum((value * grad).sum() for value, grad in zip(start.values(), at_the_end, strict=True))
    torch.testing.assert_close(found, torch.autograd.grad(pulled, made.encoder.body.weight)[0])


def test_first_order_is_another_gradient_and_the_same_value() -> None:
    model, made = general_ppca(), guide()
    batch = batch_of(sampled(model, 4))
    exact = loss_after(model, made, batch)
    made.exact = False
    detached = loss_after(model, made, batch)
    torch.testing.assert_close(exact, detached)
    with_steps, without = (torch.autograd.grad(loss, model.weight)[0] for loss in (exact, detached))
    assert (with_steps - without).abs().max() > 1e-4


def test_refinement_lowers_the_gap_of_an_untrained_encoder() -> None:
    model = general_ppca()
    made = guide(refinement=Refinement(steps=200, rule=SGD(lr=0.03, momentum=0.5, clip=20.0), final=0.1, decay=0.0))
    batch = batch_of(sampled(model, 200))
    plain, refined = (
        bounds(model, partial(posterior_for, model, made, refinement=refinement), [batch], particles=20)
        for refinement in (None, made.refinement)
    )
    evidence = model.evidence(batch.x)
    gap = (evidence - refined.elbo).mean()
    assert gap < 0.1 * (evidence - plain.elbo).mean()
    assert gap > model.mean_field_gap().item() - 0.05


def test_what_cannot_be_differentiated_is_refused() -> None:
    with pytest.raises(UsageError, match="SGD"):
        guide(refinement=Refinement(rule=Adam()))
    guide(refinement=Refinement(rule=Adam()), exact=False)
    with pytest.raises(UsageError, match="joint"):
        guide(refinement=Refinement(steps=1, rule=SGD(), joint=True))
    with pytest.raises(UsageError, match="Echo noise"):
        SemiAmortized(encoder=VectorEncoder(), family=Echo(2, depth=5))
