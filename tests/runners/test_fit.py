import copy
import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import small
import torch
from matplotlib.text import Text
from pyro import poutine
from torch import Tensor, nn
from toys import general_ppca, orthogonal_ppca, points, sampled

from guides import (
    ELBO,
    IWAE,
    SGD,
    Adam,
    Amortized,
    Constrained,
    CyclicalSchedule,
    Diagonal,
    Echo,
    Free,
    LinearSchedule,
    LowRank,
    Refinement,
)
from guides.sites import Site
from ppl_models import VAE, Batch, Gaussian, MLPDecoder, MLPEncoder, UsageError
from runners import svi
from runners.check import check
from runners.compare import compare
from runners.data import DataSet
from runners.fit import Fit
from runners.inference import InferenceStep
from runners.pictures import image_figures

quiet = partial(svi.fit, progress=False, batch=20, every=10)
JOINT = Refinement(steps=1, rule=Adam(lr=1e-2, betas=(0.9, 0.9)), decay=0.0, keep_moments=True, joint=True)
GUIDES = {
    "amortized": lambda data: small.amortized(),
    "free": small.free,
    "free, moments kept": lambda data: small.free(data, refinement=Refinement(keep_moments=True)),
    "free, one optimiser": lambda data: small.free(data, refinement=JOINT),
    "free, carried": lambda data: Free(20, latents=2, carried=True),
    "semi-amortized": lambda data: small.semi_amortized(),
    "semi-amortized, first order": lambda data: small.semi_amortized(exact=False),
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
    assert -3 * gap.std() / len(gap) ** 0.5 < gap.mean() < 0.05


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


def test_bf16_keeps_densities_and_parameters_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = set()
    per_datum = Site.per_datum

    def watched(self: Site, values: Tensor, shape: tuple[int, int]) -> Tensor:
        dtypes.add((self.name, values.dtype, self.value.dtype))
        return per_datum(self, values, shape)

    monkeypatch.setattr(Site, "per_datum", watched)
    products = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: products.append(linear(*a)) or products[-1])
    fit = quiet(small.model(), small.amortized(), small.data_set(), steps=3, precision="bf16")
    assert dtypes == {("x", torch.float32, torch.float32), ("z", torch.float32, torch.float32)}
    assert {product.dtype for product in products} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in fit.model.parameters())


def test_reported_noise_is_not_the_refinements() -> None:
    """Judged on the noise that it was refined on, a bound would be flattered."""
    noises = []

    class Recording(Free):
        def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
            z = super().sample(batch, params)
            noises.append(((z - params["loc"]) / params["log"].exp()).detach())
            return z

    model = orthogonal_ppca()
    data = points(sampled(model, 40), sampled(model, 40))
    fit = Fit(model, Recording(40, family=Diagonal(2)).double(), data, train_model=False, progress=False, batch=20)
    fit.bounds(data.test, updates=5, size=20)
    assert len(noises) == 2 * (5 + 1)
    for one, other in itertools.combinations(noises, 2):
        assert (one - other).abs().min() > 1e-6


OBJECTIVES = {
    "annealed": (lambda: ELBO(lambda step, steps: step / steps, particles=2), {"kl_weight"}),
    "free bits": (lambda: ELBO(free_bits=1.0), set()),
    "constrained": (lambda: Constrained().to("meta"), {"lagrange_multiplier", "violation"}),
    "moving average": (
        lambda: Constrained(2.0, constraint="squared_error", rule="moving_average").to("meta"),
        {"lagrange_multiplier", "violation", "violation_average"},
    ),
    "iwae": (lambda: IWAE(3), {"iwae"}),
}


@guides
@pytest.mark.parametrize(("objective", "logged"), OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_a_step_never_reads_a_tensor_on_the_host(make: object, objective: object, logged: set[str]) -> None:
    data = small.data_set()
    model, guide = small.model().to("meta"), make(data).to("meta")
    batch = Batch(*(t.to("meta") if isinstance(t, Tensor) else t for t in data.train.gather(torch.arange(20))))
    parameters = list(nn.ModuleList([model, guide]).parameters())
    step = InferenceStep(
        model,
        guide,
        objective(),
        torch.optim.SGD(parameters, lr=0.1),
        clip=1.0,
        autocast=partial(torch.autocast, "cpu", enabled=False),
        device=torch.device("meta"),
    )
    step.validate = False
    step.before(1, 10)
    scalars = step(batch)
    assert set(scalars) == {"loss", "elbo", "log_likelihood", "kl"} | logged
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
    [
        (Unused, "no gradient reaches guide.spare"),
        (Mixing, "depends on the order of the batch"),
        (Wide, "expects it to end in"),
    ],
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


@pytest.mark.parametrize("at", [0, 6])
def test_divergence_with_a_folder_is_replayed_and_names_the_site(at: int, tmp_path: Path) -> None:
    class Bursting(Amortized):
        """From one step on, its noise sometimes has a standard deviation of e^200."""

        def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
            self.calls += 1
            burst = self.calls > at + 1 and torch.rand(()) < 0.5
            return super().sample(batch, params | {"log": params["log"] + 200.0 * burst})

    guide = Bursting(encoder=small.amortized().encoder, family=Diagonal(2))
    guide.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    fit = Fit(small.model(), guide, small.data_set(), batch=20, progress=False, out=tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        fit.run(100)
    found = re.match(
        r"'loss' is not finite at step (\d+), first in the value of site 'z' at step (\d+);", str(caught.value)
    )
    assert found[1] == found[2]
    assert int(found[1]) >= at
    states = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all(value.isfinite().all() for value in states["model"].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    fit = Fit(small.model(), small.amortized(), small.data_set(), batch=20, progress=False, out=tmp_path / "run").run(2)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    next(fit.model.parameters()).data.fill_(float("inf"))
    with pytest.raises(UsageError, match=r"'decoder.body.0.weight' is not finite"):
        fit.run(0)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_second_fit_into_a_folder_is_refused(tmp_path: Path) -> None:
    data = small.data_set()
    quiet(small.model(), small.amortized(), data, steps=2, out=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    kept = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match="holds a run already"):
        quiet(small.model(), small.amortized(), data, steps=4, out=tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == kept


def test_a_run_goes_on_with_its_own_data_alone(tmp_path: Path) -> None:
    quiet(small.model(), small.amortized(), small.data_set(), steps=2, out=tmp_path / "run")
    with pytest.raises(UsageError, match="was trained on .*'200 data.*found .*'100 data"):
        svi.load(tmp_path / "run", data=small.data_set(train=100))


def test_looking_does_not_train() -> None:
    model, data = small.model(), small.data_set()
    model.decoder.body.append(nn.Dropout(0.5))
    fit = quiet(model, small.amortized(), data, steps=2)
    before = small.weights(fit.model)
    fit.show()
    first, second = (fit.bounds(fit.data.test).elbo for _ in range(2))
    torch.testing.assert_close(first, second)
    assert not small.changed(fit.model, before)
    assert model.training


def test_one_test_image_is_enough(tmp_path: Path) -> None:
    fit = quiet(small.model(), small.amortized(), small.data_set(test=1), steps=2, out=tmp_path / "run")
    assert "elbo_se" not in fit.result()["test"]


def test_bounds_do_not_depend_on_how_many_are_refined_at_a_time_and_reuse_no_noise() -> None:
    model = general_ppca()
    data = points(sampled(model, 40), sampled(model, 10))
    fit = Fit(model, Free(40, family=Diagonal(2)).double(), data, train_model=False, progress=False, batch=20)
    drawn: list[Tensor] = []
    normal = torch.normal

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        drawn.append(normal(*args, **kwargs).clone())
        return drawn[-1].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch.distributions.normal._standard_normal",
            lambda shape, dtype, device: watched(
                torch.zeros(shape, dtype=dtype, device=device), torch.ones(shape, dtype=dtype, device=device)
            ),
        )
        fit.bounds(data.test, updates=3, size=4)
    assert len(drawn) == 3 * (3 + 1)
    starts = [tuple(noise.flatten()[:4].tolist()) for noise in drawn]
    assert len(set(starts)) == len(starts)


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


def test_momentum_of_rows_is_torchs_over_several_visits() -> None:
    refinement = Refinement(steps=2, rule=SGD(lr=0.01, momentum=0.9), final=1.0, decay=0.0)
    model, data = orthogonal_ppca(), None
    x = sampled(model, 6)
    data = points(x, x)
    guide = Free(6, family=Diagonal(2), refinement=refinement).double()
    parameters = {name: nn.Parameter(getattr(guide, f"table_{name}").clone()) for name in guide.params}
    fit = Fit(model, guide, data, train_model=False, progress=False, batch=6, every=1, steps=3)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9)
    fit.run(3)
    reference = Fit(model, Free(6, family=Diagonal(2)).double(), data, train_model=False, progress=False, batch=6)
    with reference._random.active():
        for _ in range(3):
            batch = next(reference._stream)
            for _ in range(2):
                rows = {name: value[batch.index] for name, value in parameters.items()}
                loss, _ = ELBO()(model, lambda b, rows=rows: guide.sample(b, rows), batch)
                optimizer.zero_grad()
                (loss * 6).backward(inputs=list(parameters.values()))
                optimizer.step()
            ELBO()(model, lambda b, rows=rows: guide.sample(b, rows), batch)
    for name, value in parameters.items():
        torch.testing.assert_close(getattr(guide, f"table_{name}"), value.data)


def test_a_refused_save_changes_nothing(tmp_path: Path) -> None:
    data = small.data_set()
    first, second = (quiet(small.model(), small.amortized(), data, steps=2, out=tmp_path / n) for n in ("a", "b"))
    with pytest.raises(UsageError, match="holds a run already"):
        first.save(tmp_path / "b")
    kept = {path: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    first.run(3)
    assert {path: path.read_bytes() for path in (tmp_path / "b").iterdir()} == kept
    assert svi.load(tmp_path / "a", data=data).settings["steps"] == 5
    assert second.history.step == 2


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    data = small.data_set()
    fit = quiet(small.model(), small.amortized(), data, steps=2, out=tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    whole = bytearray(path.read_bytes())
    weight = next(fit.model.parameters()).detach().numpy().tobytes()
    at = whole.find(weight)
    assert at > 0
    whole[at + 3] ^= 0x40  # an exponent's bit
    path.write_bytes(whole)
    with pytest.raises(UsageError, match=r"not a readable checkpoint \(.* is damaged\)"):
        svi.load(tmp_path / "run", data=data)


def test_a_frozen_models_statistics_stay() -> None:
    model, data = small.model(), small.data_set()
    model.decoder.body.insert(1, nn.BatchNorm1d(16))
    fit = quiet(model, small.amortized(), data, steps=2)
    before = small.weights(fit.model)
    fit.swap(small.amortized(), train_model=False).run(3)
    assert not small.changed(fit.model, before)
    assert fit.model.training


def test_one_channel_is_not_compared_with_three() -> None:
    model = VAE(decoder=MLPDecoder(latents=2, shape=(3, 8, 8), hidden=(16,)))
    with pytest.raises(UsageError, match=r"site 'x': observed data of shape \(8, 1, 8, 8\).*end in \(3, 8, 8\)"):
        check(model, small.amortized(), small.data_set())


def test_check_tries_half_a_batch() -> None:
    class Centred(Amortized):
        def start(self, batch: Batch) -> dict[str, Tensor]:
            params = super().start(batch)
            return params | {"loc": params["loc"] - params["loc"].mean(0)}

    guide = Centred(encoder=small.amortized().encoder, family=Diagonal(2))
    with pytest.raises(UsageError, match="depends on the others in the batch"):
        check(small.model(), guide, small.data_set())


@pytest.mark.parametrize("wrong", [{"precision": "bfloat16"}, {"steps": -2}, {"every": 2000}, {"every": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Fit(small.model(), small.amortized(), small.data_set(), batch=20, **wrong)


def test_compare_refuses_other_test_images() -> None:
    one, other = (Fit(small.model(), small.amortized(), small.data_set(test=n), batch=20) for n in (50, 60))
    with pytest.raises(UsageError, match="same test images"):
        compare(one, other)
    with pytest.raises(UsageError, match="at least one fit"):
        compare()


def test_a_semi_amortized_guide_is_judged_refined_and_better_for_it() -> None:
    data = small.data_set()
    fit = quiet(small.model(), small.semi_amortized(), data, steps=60)
    refined = fit.bounds(fit.data.test, particles=20).elbo
    plain = fit.swap(Amortized(encoder=fit.guide.encoder, family=fit.guide.family), train_model=False)
    plain.guide.heads = fit.guide.heads
    alone = plain.bounds(fit.data.test, particles=20).elbo
    assert (refined - alone).mean() > 0
    more = fit.bounds(fit.data.test, particles=20, updates=40).elbo
    assert (more - refined).mean() > 0


def test_the_multiplier_is_in_the_history_the_result_and_the_checkpoint(tmp_path: Path) -> None:
    fit = quiet(small.model(), small.amortized(), small.data_set(), Constrained(-10.0), steps=20, out=tmp_path / "run")
    assert fit.history.rows[-1]["lagrange_multiplier"] > fit.history.rows[0]["lagrange_multiplier"] > 1
    assert fit.result(images=10)["train"]["lagrange_multiplier"] > 1
    again = svi.load(tmp_path / "run", data=small.data_set())
    assert float(again.objective.multiplier()) == float(fit.objective.multiplier())
    assert isinstance(again.objective, Constrained)
    assert again.objective.target == -10.0


def test_a_target_out_of_reach_is_said_once_and_in_the_result(capsys: pytest.CaptureFixture) -> None:
    objective = Constrained(-1.0, lr=0.1)
    fit = quiet(small.model(), small.amortized(), small.data_set(), objective, steps=600)
    assert capsys.readouterr().err.count("out of reach") == 1
    assert "the target -1 " in fit.result(images=10)["remark"]


def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    from ppl_models import MLPDecoder as Decoder

    wide = VAE(decoder=Decoder(latents=3, shape=(1, 8, 8), hidden=(16,)))
    with pytest.raises(UsageError, match="site 'z'"):
        svi.fit(wide, small.amortized(), small.data_set(), steps=3, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_log_evidence_of_ppca_through_a_fit() -> None:
    model = orthogonal_ppca()
    data = points(sampled(model, 40), sampled(model, 40))
    fit = Fit(model, Free(40, family=Diagonal(2)).double(), data, train_model=False, progress=False, batch=20)
    found = fit.evidence(data.test, samples=5000, updates=200).log_evidence
    torch.testing.assert_close(found, model.evidence(data.test.x), rtol=0, atol=0.05)


def test_check_knows_echo_noise_and_conditional_models() -> None:
    data = small.data_set()
    echo = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), family=Echo(2, depth=9))
    check(small.model(), echo, data)
    with pytest.raises(UsageError, match="labels"):
        check(small.conditional(), small.amortized(), unlabelled(data))
    check(small.conditional(), small.amortized(), data)


def unlabelled(data: DataSet) -> DataSet:
    return replace(data, train=replace(data.train, labels=None), test=replace(data.test, labels=None))


def test_a_picture_has_a_row_for_each_class(tmp_path: Path) -> None:
    """Rows share their latents, so a column differs between classes by the label alone."""
    fit = quiet(small.conditional(), small.amortized(), small.data_set(), steps=4, pictures=2, out=tmp_path / "run")
    assert {"classes.png", "classes_000002.png", "classes_000004.png"} <= {p.name for p in (tmp_path / "run").iterdir()}
    drawn = image_figures(fit)["classes"]
    assert {text.get_text() for text in drawn.findobj(Text)} - {""} == {"0", "1"}


def test_the_courses_gaussian_loss_is_the_elbo_by_another_name() -> None:
    r"""‖x - x̂‖² / (σ² d) + tr Σ + ‖μ‖² - d_z - log det Σ, by hand, with one sample for each image."""
    decoder = MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(16,))
    model = VAE(decoder=decoder, likelihood=Gaussian(variance=0.03))
    fit = quiet(model, small.amortized(), small.data_set(), steps=5)
    losses = []

    class Watched(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            params = fit.guide.start(batch)
            z = fit.guide.sample(batch, params)
            squares = (batch.x - model.decode(z).mean).square().flatten(1).sum(1)
            variance = (2 * params["log"]).exp()
            kl = variance.sum(1) + params["loc"].square().sum(1) - 2 - variance.log().sum(1)
            losses.append(squares / (0.03 / 64 * 64) + kl)
            return z

    found = fit.result()["gaussian"]
    fit.swap(Watched(), train_model=False).bounds(fit.data.test)
    assert found["course_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert found["course_sigma2"] * 64 == pytest.approx(found["variance"])
    assert found["variance"] == pytest.approx(0.03)


def test_squared_errors_are_those_of_the_reconstructions() -> None:
    decoder = MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(16,))
    model = VAE(decoder=decoder, likelihood=Gaussian(variance=0.05, learned=True))
    optimizer = partial(torch.optim.Adam, lr=2e-3, betas=(0.9, 0.9))
    fit = quiet(model, small.amortized(), small.data_set(), steps=2500, optimizer=optimizer)
    found = fit.result()["gaussian"]
    with torch.no_grad():
        batch = next(fit.data.test.in_order(50))
        means = model.decode(fit.guide(batch)).mean
    assert found["test_rmse"] == pytest.approx((batch.x - means).square().mean().sqrt().item(), rel=0.05)
    assert found["variance"] == pytest.approx(found["train_squared_error"], rel=0.05)  # what learning it leads to


SCHEDULES = (LinearSchedule(start=1.0, end=0.0), CyclicalSchedule(), lambda n, N: 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["falling", "cyclical", "zero"])
def test_reports_refine_by_the_bound_whatever_a_schedule_ends_at(schedule: object) -> None:
    data = small.data_set()
    fit = Fit(small.model(), small.free(data), data, ELBO(schedule), steps=10, batch=20, progress=False).run()
    plain = Fit(fit.model, fit.guide, data, ELBO(), progress=False, batch=20)
    torch.testing.assert_close(fit.bounds(data.test).elbo, plain.bounds(data.test).elbo)


def test_what_nothing_would_train_is_refused() -> None:
    guide = small.amortized()
    with pytest.raises(UsageError, match="nothing would train it"):
        Fit(small.model(), lambda batch: guide(batch), small.data_set(), batch=20, progress=False).run(1)
    with pytest.raises(UsageError, match="nothing would train it"):
        Fit(small.model(), poutine.scale(guide, 0.5), small.data_set(), batch=20, progress=False).run(1)


class Users(nn.Module):
    """A model of somebody's, without a method to draw pictures from."""

    def __init__(self, *, strict: bool = False, boom: bool = False) -> None:
        super().__init__()
        self.net, self.strict, self.boom = MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(16,)), strict, boom
        self.register_buffer("zero", torch.zeros(2))

    def forward(self, batch: Batch) -> Tensor:
        if self.boom:
            raise RuntimeError("no such luck\nat all")
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            x = dist.Bernoulli(logits=self.net(z), validate_args=None if self.strict else False).to_event(3)
            return pyro.sample("x", x, obs=batch.x)


def test_what_a_users_model_raises_is_one_line_before_a_folder_is_made(tmp_path: Path) -> None:
    for model, said in ((Users(strict=True), "validate_args=False"), (Users(boom=True), "RuntimeError: no such luck")):
        with pytest.raises(UsageError, match=said) as error:
            quiet(model, small.amortized(), small.data_set(), steps=2, out=tmp_path / "run")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_drawn_is_trained_and_reported(tmp_path: Path) -> None:
    fit = quiet(Users(), small.amortized(), small.data_set(), steps=4, out=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    assert "Bernoulli on grey values" in fit.result(images=4)["likelihood"]
    with pytest.raises(UsageError, match="no decode"):
        fit.show()
    with pytest.raises(UsageError, match="no decode"):
        Fit(Users(), small.amortized(), small.data_set(), pictures=2, batch=20)


def test_a_covariance_that_is_none_any_more_is_one_line() -> None:
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), family=LowRank(2, rank=1))
    optimizer = partial(torch.optim.SGD, lr=1e6)
    with pytest.raises(UsageError, match="finite"):
        quiet(small.model(), guide, small.data_set(), steps=20, optimizer=optimizer)


def test_a_swapped_fit_remembers_which_data_it_was_on(tmp_path: Path) -> None:
    run = svi.main(["--data", "digits", "--all-train", "--guide", "amortized", "--model", "mlp", "--hidden", "8",
                    "--steps", "2", "--images", "10", "--out", str(tmp_path / "first")])  # fmt: skip
    run.swap(run.guide).run(1).save(tmp_path / "second")
    again = svi.load(tmp_path / "second")
    assert len(again.data.train) == len(run.data.train)
    again.swap(again.guide).run(1).save(tmp_path / "third")
    assert svi.load(tmp_path / "third").history.step == 1


def test_echo_trains_on_the_batch_whatever_mode_it_was_left_in() -> None:
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), family=Echo(2, depth=9))
    fit = Fit(small.model(), guide, small.data_set(), batch=20, progress=False)
    guide.eval()
    fit.run(2)
    assert guide.training
    assert guide.family.training
    with pytest.raises(UsageError, match="needs batches of 10 or more, found 8"):
        fit.swap(guide, batch=8)
