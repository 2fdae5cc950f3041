import pytest
import torch
from torch import Tensor
from toys import batch_of, general_ppca, orthogonal_ppca, sampled

from guides import ELBO, SGD, Adam, Diagonal, Free, Refinement, refine, terms
from ppl_models import PPCA, Batch, UsageError

LONG = Refinement(steps=600, rule=Adam(lr=0.1), final=0.001, decay=0.0)


def refined(model: PPCA, x: Tensor, refinement: Refinement = LONG) -> tuple[Free, Batch, dict[str, Tensor]]:
    guide, batch = Free(len(x), family=Diagonal(2)).double(), batch_of(x)
    objective = ELBO(particles=512)
    params, _ = refine(model, guide, objective, batch, guide.start(batch), refinement=refinement)
    return guide, batch, params


@pytest.mark.parametrize("made", [orthogonal_ppca, general_ppca])
def test_free_parameters_reach_the_mean_field_optimum(made: object) -> None:
    model = made()
    x = sampled(model, 5)
    guide, batch, params = refined(model, x)
    reached, optimum = guide.family.distribution(params), model.mean_field(x)
    torch.testing.assert_close(reached.mean, optimum.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(reached.stddev, optimum.stddev.expand(5, 2), rtol=0.02, atol=0)


def test_bound_is_the_evidence_where_the_posterior_is_diagonal() -> None:
    model = orthogonal_ppca()
    x = sampled(model, 5)
    guide, batch, params = refined(model, x)
    elbo = terms(model, lambda b: guide.sample(b, params), batch, particles=2000, closed_form=False).elbo
    torch.testing.assert_close(elbo.mean(0), model.evidence(x), rtol=0, atol=0.005)
    assert model.mean_field_gap() < 1e-9


def test_bound_stays_below_by_the_mean_field_gap_where_it_is_not() -> None:
    model = general_ppca()
    x = sampled(model, 5)
    guide, batch, params = refined(model, x)
    parts = terms(model, lambda b: guide.sample(b, params), batch, particles=20_000, closed_form=False)
    gap, error = model.evidence(x) - parts.elbo.mean(0), parts.elbo.std(0) / 20_000**0.5
    assert model.mean_field_gap() > 0.05
    assert ((gap - model.mean_field_gap()).abs() < 4 * error + 0.005).all()


def test_any_other_guide_stays_below_the_optimum() -> None:
    model = general_ppca()
    x = sampled(model, 5)
    guide, batch, params = refined(model, x)
    for name in params:
        other = params | {name: params[name] + 0.3}
        torch.manual_seed(1)
        best = terms(model, lambda b: guide.sample(b, params), batch, particles=4000).elbo.mean()
        torch.manual_seed(1)
        assert terms(model, lambda b, o=other: guide.sample(b, o), batch, particles=4000).elbo.mean() < best - 0.01


class Noiseless(Free):
    """With a tiny scale the noise vanishes, so that rows can be compared."""

    def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
        return super().sample(batch, params | {"log": params["log"] - 20.0})


@pytest.mark.parametrize("rule", [Adam(lr=0.1), SGD(lr=0.01, momentum=0.5)])
def test_a_datums_steps_do_not_depend_on_the_others(rule: object) -> None:
    model = general_ppca()
    x = sampled(model, 6)
    refinement = Refinement(steps=5, rule=rule)

    guide = Noiseless(6, family=Diagonal(2)).double()
    whole, part = batch_of(x), Batch(x[:2], None, torch.arange(2))
    together, _ = refine(model, guide, ELBO(), whole, guide.start(whole), refinement=refinement)
    alone, _ = refine(model, guide, ELBO(), part, guide.start(part), refinement=refinement)
    torch.testing.assert_close(together["loc"][:2], alone["loc"], rtol=1e-6, atol=1e-7)
    assert (alone["loc"] - guide.start(part)["loc"]).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (Adam(lr=0.1, betas=(0.8, 0.95)), lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95))),
        (SGD(lr=0.1, momentum=0.7), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7)),
        (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    ],
)
def test_row_rules_are_torchs_optimisers(rule: object, theirs: object) -> None:
    start = torch.randn(4, 3, dtype=torch.float64)
    ours, moments = {"a": start.clone()}, None
    parameter = torch.nn.Parameter(start.clone())
    optimizer = theirs([parameter])
    moments = rule.start(ours)
    for _ in range(6):
        grad = torch.randn(4, 3, dtype=torch.float64)
        parameter.grad = grad
        optimizer.step()
        ours, moments = rule.update(ours, {"a": grad}, moments, 1.0)
        torch.testing.assert_close(ours["a"], parameter.data)


def test_step_sizes_fall_within_a_visit_and_with_visits() -> None:
    refinement = Refinement(steps=10, final=0.1, decay=0.5)
    visits = torch.tensor([0.0, 3.0])
    torch.testing.assert_close(refinement.size(0, visits), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(refinement.size(9, visits), torch.tensor([0.1, 0.05]))
    assert Refinement(steps=3, final=0.5, decay=0.0).size(1, visits) == 0.75


def test_a_table_touches_only_the_rows_of_the_batch() -> None:
    guide = Free(10, latents=3, refinement=Refinement(keep_moments=True))
    before = {name: buffer.clone() for name, buffer in guide.named_buffers()}
    batch = Batch(None, None, torch.tensor([7, 2]))
    params = {name: value + 1.0 for name, value in guide.start(batch).items()}
    memory = {name: value + 2.0 for name, value in guide.memory(batch).items()}
    guide.store(batch, params, memory)
    touched = torch.zeros(10, dtype=torch.bool)
    touched[[2, 7]] = True
    for name, buffer in guide.named_buffers():
        if name.startswith("table_"):
            changed = (buffer != before[name]).view(10, -1).any(-1)
            assert torch.equal(changed, touched), name
    assert "table_loc_first" in before
    assert "table_count" in before


def test_rows_follow_the_index_and_absent_ones_are_refused() -> None:
    guide = Free([12, 4, 9], latents=2)
    guide.table_loc.copy_(torch.arange(6.0).view(3, 2))
    found = guide.start(Batch(None, None, torch.tensor([9, 12])))["loc"]
    torch.testing.assert_close(found, torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
    for absent in (5, 13, 400):
        with pytest.raises((IndexError, RuntimeError)):
            guide.start(Batch(None, None, torch.tensor([absent])))
        with pytest.raises(UsageError, match="3 rows and none for 1 of these 1 data"):
            guide.check_rows(torch.tensor([absent]), batch=1)
    guide.check_rows(torch.tensor([4, 9, 12]), batch=1)


@pytest.mark.parametrize("wrong", [[], [1, 1], [-1, 2], 0, -2])
def test_wrong_rows_are_refused(wrong: list[int] | int) -> None:
    with pytest.raises(UsageError, match="distinct indices"):
        Free(wrong)


def test_cold_and_carried_starts() -> None:
    cold = Free(5, latents=2, warm=False)
    cold.table_loc.fill_(3.0)
    assert cold.start(Batch(None, None, torch.tensor([1])))["loc"].abs().max() == 0
    carried = Free(2, latents=2, carried=True)
    carried.store(Batch(None, None, torch.tensor([70, 3])), {"loc": torch.ones(2, 2), "log": torch.ones(2, 2)}, {})
    assert carried.start(Batch(None, None, torch.tensor([11, 12])))["loc"].min() == 1
    carried.check_rows(torch.arange(100), batch=2)
    with pytest.raises(UsageError, match="has 2 rows, one per position, but the batch size is 3"):
        carried.check_rows(torch.arange(100), batch=3)
    assert cold.memory(Batch(None, None, torch.tensor([1]))) == {}


@pytest.mark.parametrize("scale", ["log", "softplus"])
def test_families_start_at_the_prior(scale: str) -> None:
    family = Diagonal(3, scale=scale)
    start = family.distribution(family.initial())
    torch.testing.assert_close(start.mean, torch.zeros(3))
    torch.testing.assert_close(start.stddev, torch.ones(3))


def test_a_clipped_step_is_no_longer_than_the_clip_and_keeps_its_direction() -> None:
    grads = {"a": torch.tensor([[3.0, 0.0], [0.3, 0.0]]), "b": torch.tensor([[4.0], [0.4]])}
    params = {name: torch.zeros_like(grad) for name, grad in grads.items()}
    updated, _ = SGD(lr=1.0, clip=1.0).update(params, grads, {}, 1.0)
    torch.testing.assert_close(updated["a"], torch.tensor([[-0.6, 0.0], [-0.3, 0.0]]))
    torch.testing.assert_close(updated["b"], torch.tensor([[-0.8], [-0.4]]))
