import copy
from functools import partial
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor, nn
from toys import general_ppca, orthogonal_ppca, points, sampled

from guides import ELBO, Adam, Amortized, Diagonal, Free, Refinement
from ppl_models import Batch, UsageError
from runners import svi
from runners.check import check
from runners.compare import compare
from runners.fit import Fit
from runners.loop.inference import InferenceStep

quiet = partial(svi.fit, progress=False, batch=20, every=10)
JOINT = Refinement(steps=1, rule=Adam(lr=1e-2, betas=(0.9, 0.9)), decay=0.0, keep_moments=True, joint=True)
GUIDES = {
    "amortized": lambda data: small.amortized(),
    "free": small.free,
    "free, moments kept": lambda data: small.free(data, refinement=Refinement(keep_moments=True)),
    "free, one optimiser": lambda data: small.free(data, refinement=JOINT),
    "free, carried": lambda data: Free(20, latents=2, carried=True),
}
guides = pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES.keys())


@guides
def test_every_swapped_in_guide_trains(make: object) -> None:
    data = small.data_set()
    first = quiet(small.model(), small.amortized(), data, steps=3)
    second = first.swap(make(first.data))
    assert second.model is first.model
    assert second.history.step == 0
    model, guide = small.weights(second.model), small.weights(second.guide)
    second.run(30)
    assert small.changed(second.model, model) == set(model)
    missing = set(guide) - small.changed(second.guide, guide)
    assert not missing


@guides
def test_a_frozen_model_stays_while_its_guide_trains(make: object) -> None:
    data = small.data_set()
    trained = quiet(small.model(), small.amortized(), data, steps=3)
    before = small.weights(trained.model)
    swapped = trained.swap(make(trained.data), train_model=False)
    guide = small.weights(swapped.guide)
    swapped.run(30)
    assert not small.changed(trained.model, before)
    assert small.changed(swapped.guide, guide) == set(guide)


def test_a_copy_only_if_asked() -> None:
    fit = quiet(small.model(), small.amortized(), small.data_set(), steps=1)
    other = fit.swap(small.amortized(), copy_model=True)
    assert other.model is not fit.model
    before = small.weights(fit.model)
    other.run(5)
    assert not small.changed(fit.model, before)


def test_svi_on_ppca_reaches_the_exact_posterior_and_the_evidence() -> None:
    model = orthogonal_ppca()
    data = points(sampled(model, 60), sampled(model, 10))
    refinement = Refinement(steps=20, rule=Adam(lr=0.2), decay=1.0)
    guide = Free(60, family=Diagonal(2), refinement=refinement).double()
    svi.fit(model, guide, data, ELBO(particles=128), steps=120, batch=20, train_model=False, progress=False)
    reached = guide.family.distribution(guide.start(Batch(None, None, torch.arange(60))))
    exact = model.posterior(data.train.x)
    torch.testing.assert_close(reached.mean, exact.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(reached.variance, exact.variance, rtol=0.1, atol=0)
    fit = Fit(model, guide, data, train_model=False, progress=False, batch=20)
    gap = model.evidence(data.test.x) - fit.bounds(data.test, particles=500).elbo
    assert 0 < gap.mean() < 0.05


def test_training_the_model_by_svi_recovers_the_evidence_of_ppca() -> None:
    """Learning W, b and the noise by free parameters comes close to the likelihood of the maximum-likelihood fit."""
    truth = orthogonal_ppca()
    x = sampled(truth, 400)
    covariance = torch.cov(x.T, correction=0)
    values = torch.linalg.eigvalsh(covariance).flip(0)
    noise = values[2:].mean()
    best = -0.5 * (6 * torch.log(torch.tensor(2 * torch.pi)) + values[:2].log().sum() + 4 * noise.log() + 6)
    model = general_ppca()
    refinement = Refinement(steps=10, rule=Adam(lr=0.2), decay=0.3)
    guide = Free(400, family=Diagonal(2), refinement=refinement).double()
    optimizer = partial(torch.optim.Adam, lr=2e-2)
    svi.fit(model, guide, points(x, x), steps=800, batch=100, optimizer=optimizer, progress=False)
    reached = model.evidence(x).mean()
    assert best - 0.1 < reached <= best + 1e-9


def test_what_happens_between_runs_changes_nothing() -> None:
    def trained(*, disturbed: bool) -> dict[str, Tensor]:
        torch.manual_seed(5)
        fit = Fit(small.model(), small.amortized(), small.data_set(fresh=True), batch=20, progress=False)
        fit.run(7)
        if disturbed:
            torch.manual_seed(99)
            fit.bounds(fit.data.test)
            fit.result()
            fit.show()
        return small.weights(fit.run(6).model)

    quiet_run, disturbed_run = trained(disturbed=False), trained(disturbed=True)
    assert all(torch.equal(quiet_run[name], disturbed_run[name]) for name in quiet_run)


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    fit = Fit(small.model(), small.amortized(), small.data_set(), batch=20, progress=False)
    before = torch.get_rng_state()
    fit.run(3).result()
    assert torch.equal(before, torch.get_rng_state())


def test_clipping_bounds_the_global_norm() -> None:
    model, guide = small.model(), small.amortized()
    sgd = partial(torch.optim.SGD, lr=1.0)
    before = small.weights(model) | {f"guide {k}": v for k, v in small.weights(guide).items()}
    quiet(model, guide, small.data_set(), steps=1, optimizer=sgd, clip=0.01)
    after = small.weights(model) | {f"guide {k}": v for k, v in small.weights(guide).items()}
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    torch.testing.assert_close(moved, torch.tensor(0.01), rtol=1e-3, atol=0)


def test_bf16_keeps_densities_in_float32() -> None:
    fit = quiet(small.model(), small.amortized(), small.data_set(), steps=40, precision="bf16")
    exact = quiet(small.model(), small.amortized(), small.data_set(), steps=40)
    assert fit.bounds(fit.data.test).elbo.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in fit.model.parameters())
    assert abs(fit.history.final()["elbo"] - exact.history.final()["elbo"]) < 3


def test_reported_noise_is_not_the_refinements() -> None:
    """With few updates of many, judged on the refinement's own noise the bound would be flattered."""
    model = general_ppca()
    data = points(sampled(model, 40), sampled(model, 40))
    fit = Fit(model, Free(40, family=Diagonal(2)).double(), data, train_model=False, progress=False, batch=20)
    parts = fit.bounds(data.test, updates=200, particles=1)
    error = parts.elbo.std() / 40**0.5
    assert (model.evidence(data.test.x) - parts.elbo).mean() > -2 * error


@guides
def test_a_step_never_reads_a_tensor_on_the_host(make: object) -> None:
    data = small.data_set()
    model, guide = small.model().to("meta"), make(data).to("meta")
    batch = Batch(*(t.to("meta") if isinstance(t, Tensor) else t for t in data.train.gather(torch.arange(20))))
    parameters = list(nn.ModuleList([model, guide]).parameters())
    objective = ELBO(lambda step, steps: step / steps, particles=2)
    step = InferenceStep(
        model,
        guide,
        objective,
        torch.optim.SGD(parameters, lr=0.1),
        clip=1.0,
        autocast=partial(torch.autocast, "cpu", enabled=False),
        device=torch.device("meta"),
    )
    step.validate = False
    step.before(1, 10)
    scalars = step(batch)
    assert set(scalars) == {"loss", "elbo", "log_likelihood", "kl"}
    assert all(value.device.type == "meta" and value.dim() == 0 for value in scalars.values())


def test_meta_catches_a_host_read() -> None:
    class Peeking(Amortized):
        def forward(self, batch: Batch) -> Tensor:
            assert batch.x.sum().item() > 0
            return super().forward(batch)

    from ppl_models import MLPEncoder

    guide = Peeking(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), family=Diagonal(2))
    with pytest.raises(UsageError, match="on the host"):
        check(small.model(), guide, small.data_set())


def test_check_says_nothing_of_a_good_pair() -> None:
    data = small.data_set()
    for make in GUIDES.values():
        if make is not GUIDES["free, carried"]:
            check(small.model(), make(data), data)


class Broken(Amortized):
    def __init__(self) -> None:
        super().__init__(encoder=small.amortized().encoder, family=Diagonal(2))


class Unused(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Mixing(Broken):
    def start(self, batch: Batch) -> dict[str, Tensor]:
        params = super().start(batch)
        return params | {"loc": params["loc"] + torch.arange(len(batch.index)).unsqueeze(-1).to(params["loc"])}


class Wide(Broken):
    def start(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.cat([value, value], -1) for name, value in super().start(batch).items()}


@pytest.mark.parametrize(
    ("guide", "message"),
    [(Unused, "no gradient reaches guide.spare"), (Mixing, "depends on the order of the batch"), (Wide, "raised")],
)
def test_check_names_what_is_wrong(guide: type, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check(small.model(), guide(), small.data_set())
    assert "\n" not in str(caught.value)


def test_a_table_of_other_data_is_refused() -> None:
    data = small.data_set()
    with pytest.raises(UsageError, match="none for 100 of these 200"):
        quiet(small.model(), Free(range(100), latents=2), data, steps=1)


def test_divergence_names_the_step() -> None:
    data = small.data_set()
    fit = Fit(small.model(), small.amortized(), data, batch=20, every=10, progress=False).run(10)
    with torch.no_grad():
        next(fit.model.parameters()).fill_(float("nan"))
    with pytest.raises(UsageError, match="not finite at step 10"):
        fit.run(10)


def test_divergence_with_a_folder_names_the_site(tmp_path: Path) -> None:
    fit = Fit(small.model(), small.amortized(), small.data_set(), batch=20, progress=False, out=tmp_path / "run")
    with torch.no_grad():
        fit.guide.heads["log"].bias.fill_(200.0)  # a standard deviation of e^200
    with pytest.raises(UsageError, match=r"step 0, first in the value of site 'z'; .*checkpoint.pt"):
        fit.run(10)


def test_save_and_load_rebuild_the_pair(tmp_path: Path) -> None:
    for name, make in GUIDES.items():
        data = small.data_set()
        fit = quiet(small.model(), make(data), data, ELBO(0.5), steps=12)
        folder = tmp_path / name.replace(" ", "-")
        fit.save(folder)
        again = svi.load(folder, data=data)
        assert repr(again.objective) == repr(fit.objective)
        assert again.history.rows == fit.history.rows
        assert not small.changed(again.model, small.weights(fit.model))
        assert not small.changed(again.guide, small.weights(fit.guide))
        again.progress = False
        fit.folder = None
        continued, expected = again.run(9), fit.run(9)
        assert not small.changed(continued.guide, small.weights(expected.guide))


def test_a_users_own_class_is_not_rebuilt_from_a_folder(tmp_path: Path) -> None:
    data = small.data_set()
    quiet(small.model(), Unused(), data, steps=1).save(tmp_path / "run")
    with pytest.raises(UsageError, match="pass the object itself"):
        svi.load(tmp_path / "run", data=data)


def test_comparison_is_paired() -> None:
    data = small.data_set(test=200)
    fit = quiet(small.model(), small.amortized(), data, steps=150)
    same = copy.copy(fit)
    free = fit.swap(small.free(fit.data), train_model=False)
    comparison = compare(fit, same, free, images=200)
    assert comparison.difference("Amortized 2") == (0.0, 0.0)
    mean, error = comparison.difference("Free")
    unpaired = (comparison.elbo["Free"].var() + comparison.elbo["Amortized"].var()).sqrt() / 200**0.5
    assert mean > 2 * error
    assert error < unpaired
    assert "± " in repr(comparison)


def test_repr_says_what_it_is() -> None:
    fit = quiet(small.model(), small.amortized(), small.data_set(), steps=10)
    assert repr(fit).startswith("Fit(Amortized for VAE on bars, 10 steps: loss ")
