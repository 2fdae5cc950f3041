"""Measures of samples: against closed forms, against torchmetrics, prdc and scipy, and against spoilt images."""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from prdc import compute_prdc
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ppl_models import UsageError
from runners import data, metrics
from runners.data import DataSet
from runners.metrics import Trained, classifiers
from runners.metrics.neighbours import kolmogorov_smirnov


class Passed(nn.Module):
    """A feature extractor that hands on what it is given."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def normal(count: int, features: int, *, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, features, generator=generator, dtype=torch.float64) + shift


def skewed(count: int, features: int, *, seed: int) -> Tensor:
    """Correlated, and no Gaussian."""
    x = normal(count, features, seed=seed)
    return (x @ normal(features, features, seed=99) / features**0.5 + 0.3).exp().clamp(max=4)


def with_moments(mean: Tensor, covariance: Tensor, *, count: int, seed: int) -> Tensor:
    """Data whose mean and covariance are these to the last digits."""
    x = normal(count, len(mean), seed=seed)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.mT)), x.mT, upper=False).mT
    return white @ torch.linalg.cholesky(covariance).mT + mean


# Fréchet distance


def test_frechet_distance_of_gaussians_with_known_moments() -> None:
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    one, other = torch.tensor([[0.5, 1, 2, 3, 4], [1, 1, 0.2, 5, 9]], dtype=torch.float64)
    means = torch.tensor([[0.0, 1, 2, 3, 4], [1, 1, 1, 1, 1]], dtype=torch.float64)
    # Covariances of one basis commute: the distance is that of the standard deviations.
    a, b = (
        with_moments(mean, (basis * values) @ basis.mT, count=50, seed=seed)
        for seed, (mean, values) in enumerate(zip(means, (one, other), strict=True))
    )
    expected = (means[0] - means[1]).square().sum() + (one.sqrt() - other.sqrt()).square().sum()
    assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(float(expected), rel=1e-9)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    turned = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    assert metrics.frechet_distance(a @ turned, b @ turned) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    a, b = skewed(300, 12, seed=1), 1.2 * skewed(250, 12, seed=2) + 0.1
    oracle = FrechetInceptionDistance(feature=Passed(12))
    oracle.set_dtype(torch.float64)
    oracle.update(a, real=True)
    oracle.update(b, real=False)
    assert metrics.frechet_distance(a, b) == pytest.approx(float(oracle.compute()), rel=1e-9)


def test_frechet_distance_stays_a_number_where_all_generated_data_are_one() -> None:
    a, b = normal(100, 6), torch.zeros(100, 6, dtype=torch.float64)
    expected = a.mean(0).square().sum() + torch.cov(a.mT).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert metrics.frechet_distance(b, a) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distances_bias_is_as_its_docstring_says() -> None:
    distances = [metrics.frechet_distance(normal(1_000, 16, seed=s), normal(1_000, 16, seed=s + 50)) for s in range(5)]
    assert sum(distances) / 5 == pytest.approx(16 * 21 / 2_000, rel=0.1)


# Kernel distance


def test_kernel_distance_is_that_of_torchmetrics_on_the_same_subsets() -> None:
    a, b = skewed(200, 8, seed=1), skewed(150, 8, seed=2) + 0.1
    with warnings.catch_warnings():
        # It says that it keeps all features, which is no fault here.
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`", category=UserWarning)
        oracle = KernelInceptionDistance(feature=Passed(8), subsets=20, subset_size=60)
    oracle.set_dtype(torch.float64)
    oracle.update(a, real=True)
    oracle.update(b, real=False)
    torch.manual_seed(7)
    mean, deviation = oracle.compute()
    found = metrics.kernel_distance(a, b, subsets=20, size=60, seed=7)
    assert found.mean == pytest.approx(float(mean), rel=1e-9)
    assert found.deviation == pytest.approx(float(deviation), rel=1e-9)
    assert found == metrics.kernel_distance(a, b, subsets=20, size=60, seed=7)
    assert found != metrics.kernel_distance(a, b, subsets=20, size=60, seed=8)


def test_kernel_distance_of_one_feature_in_closed_form() -> None:
    # (xy + 1)³ = Σ_j C(3, j) xʲ yʲ: the discrepancy is that of the first three moments, of all data at once unbiased.
    found = [
        metrics.kernel_distance(normal(400, 1, seed=s), normal(400, 1, seed=s + 500, shift=0.5), subsets=1, size=400)
        for s in range(60)
    ]
    moments = torch.tensor([0.5, 1.25 - 1, 0.5**3 + 3 * 0.5], dtype=torch.float64)
    expected = float((torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64) * moments.square()).sum())
    values = torch.tensor([f.mean for f in found])
    assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / 60**0.5
    assert all(math.isnan(f.error) for f in found)


def test_kernel_distances_standard_error_is_the_spread_over_data_and_its_mean_unbiased() -> None:
    def repeated(shift: float) -> tuple[Tensor, float]:
        found = [
            metrics.kernel_distance(
                normal(300, 4, seed=s), normal(300, 4, seed=s + 500, shift=shift), subsets=40, size=60
            )
            for s in range(60)
        ]
        return torch.tensor([f.mean for f in found]), sum(f.error for f in found) / 60

    values, error = repeated(0.5)
    assert 0.75 < error / float(values.std()) < 1.35
    values, error = repeated(0.0)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 60**0.5
    assert 1 < error / float(values.std()) < 3 * 5**0.5


# Precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("chunk", [100, 1_000_000])
def test_prdc_is_that_of_its_authors(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.metrics.neighbours.AT_ONCE", chunk)
    real, fake = skewed(120, 6, seed=1), 1.1 * skewed(90, 6, seed=2) + 0.1
    expected = compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    assert metrics.prdc(real, fake, k=k)._asdict() == pytest.approx(expected, abs=1e-12)


def test_prdc_of_duplicates_and_copies() -> None:
    real = normal(60, 3)
    assert metrics.prdc(real, real.clone(), k=3) == pytest.approx((1.0, 1.0, 1.0, 1.0))
    collapsed = real[:1].expand(60, 3)
    found = metrics.prdc(real, collapsed, k=3)
    inside = (torch.cdist(real, real[:1])[:, 0] < torch.cdist(real, real).sort(1).values[:, 3]).double()
    assert found.precision == 1
    assert found.recall == 0
    assert found.density == pytest.approx(float(inside.sum() / 3))
    assert found.coverage == pytest.approx(float(inside.mean()))
    # Far from the origin rounding is larger, and changes nothing.
    fake = normal(60, 3, seed=1)
    assert metrics.prdc(real + 1e6, fake + 1e6, k=3) == metrics.prdc(real, fake, k=3)
    assert metrics.prdc(real + 1e6, collapsed + 1e6, k=3).recall == 0


def test_coverage_of_equal_distributions() -> None:
    found = metrics.prdc(normal(1_500, 8), normal(1_500, 8, seed=1), k=3)
    assert found.coverage == pytest.approx(1 - 2**-3, abs=0.03)
    assert found.density == pytest.approx(1, abs=0.1)


# Two-sample accuracy


def test_two_sample_accuracy_of_equal_far_and_copied_data() -> None:
    real = normal(800, 4)
    equal = metrics.two_sample_accuracy(real, normal(800, 4, seed=1))
    assert abs(equal.accuracy - 0.5) < 4 * equal.error
    assert equal.accuracy == pytest.approx((equal.real + equal.fake) / 2)
    assert metrics.two_sample_accuracy(real, normal(800, 4, shift=50)) == (1, 1, 1, 0)
    assert metrics.two_sample_accuracy(real, real.flip(0)) == (0, 0, 0, 0)


def test_two_sample_accuracy_of_collapse_and_ties() -> None:
    real = normal(50, 4)
    beside = metrics.two_sample_accuracy(real, real[:1].expand(50, 4) + 1e-3)
    assert beside.fake == 1  # each is beside another of its own
    assert beside.real < 1
    exact = metrics.two_sample_accuracy(real, real[:1].expand(50, 4))
    assert exact.fake == 0.5  # and beside a real one, just as near


def test_rounding_makes_no_difference_between_duplicates() -> None:
    twice = normal(150, 64, scale=3.7, shift=0.3).repeat(2, 1)
    assert metrics.two_sample_accuracy(twice, twice.flip(0))[:3] == (0.5, 0.5, 0.5)
    assert metrics.prdc(twice, twice.flip(0), k=1) == (0, 0, 0, 0)


def test_two_sample_accuracy_is_that_of_a_loop() -> None:
    real, fake = normal(40, 3), normal(40, 3, seed=1, scale=1.5)
    pooled, label = torch.cat([real, fake]), torch.arange(80) < 40
    right = torch.tensor(
        [label[min((j for j in range(80) if j != i), key=lambda j, i=i: (pooled[i] - pooled[j]).norm())] == label[i]
         for i in range(80)]
    ).double()  # fmt: skip
    found = metrics.two_sample_accuracy(real, fake)
    assert (found.accuracy, found.real, found.fake) == pytest.approx(
        (float(right.mean()), float(right[:40].mean()), float(right[40:].mean()))
    )


def test_two_sample_accuracys_standard_error_is_the_spread_over_data() -> None:
    found = [metrics.two_sample_accuracy(normal(150, 2, seed=s), normal(150, 2, seed=s + 1_000)) for s in range(150)]
    values = torch.tensor([f.accuracy for f in found])
    error = sum(f.error for f in found) / len(found)
    assert 0.85 < error / float(values.std()) < 1.2
    assert error > 1.15 * (0.25 / 300) ** 0.5  # that of votes without mutual neighbours


# Class balance


def test_class_balance_of_a_missing_class() -> None:
    likeliest = torch.arange(9).repeat(100)
    probabilities = torch.full((900, 10), 0.02).scatter(1, likeliest[:, None], 0.82)
    found = metrics.class_balance(probabilities)
    assert found.counts == [100] * 9 + [0]
    assert (found.per_mille, found.percent) == (9, 9)
    assert found.reverse_kl == pytest.approx(math.log(10 / 9), rel=1e-9)
    assert found.floor == pytest.approx(9 / 1800)
    assert found.confidence == pytest.approx(0.82)
    assert found.unsure == 1
    shares = torch.tensor([1 / 9] * 9 + [0.0])
    assert metrics.class_balance(probabilities, shares=shares).reverse_kl == pytest.approx(0, abs=1e-6)
    assert metrics.class_balance(probabilities, shares=shares.flip(0)).reverse_kl == math.inf


def test_classes_count_from_a_per_mille_and_a_percent_on() -> None:
    likeliest = torch.cat([torch.zeros(1980), torch.ones(18), torch.full((2,), 2)]).long()
    found = metrics.class_balance(functional.one_hot(likeliest, 4).float())
    assert found.counts == [1980, 18, 2, 0]
    assert (found.per_mille, found.percent) == (3, 1)
    assert (found.confidence, found.unsure) == (1, 0)


def test_class_balance_of_a_perfect_sampler_is_at_its_floor() -> None:
    generator = torch.Generator().manual_seed(0)
    found = [
        metrics.class_balance(functional.one_hot(torch.randint(10, (500,), generator=generator), 10).float())
        for _ in range(100)
    ]
    assert sum(f.reverse_kl for f in found) / 100 == pytest.approx(found[0].floor, rel=0.2)


# Memorisation


def test_memorisation_tells_copies_from_new_data() -> None:
    train, held_out, new = normal(500, 5), normal(200, 5, seed=1), normal(200, 5, seed=3)
    fair = metrics.memorisation(new, train, held_out)
    assert fair.p > 0.01
    assert fair.median == pytest.approx(fair.held_out_median, rel=0.25)
    copies = metrics.memorisation(train[:200], train, held_out)
    assert copies.median == 0
    assert (copies.ratios == 0).all()
    assert copies.distance == 1
    assert copies.p < 1e-12
    noisy = metrics.memorisation(train[:200] + 0.01 * new, train, held_out)
    assert noisy.median < 0.1 * noisy.held_out_median


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memorisation_is_that_of_all_distances(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.metrics.neighbours.AT_ONCE", 49)  # chunks that do not come out even
    train, fake, held_out = (normal(count, 6, seed=count).to(dtype) for count in (61, 30, 20))
    apart = torch.cdist(train.double(), train.double()).fill_diagonal_(math.inf).amin(1)
    expected = []
    for x in (fake, held_out):
        nearest, place = torch.cdist(x.double(), train.double()).min(1)
        expected.append(nearest / apart[place])
    found = metrics.memorisation(fake.view(30, 2, 3), train.view(61, 2, 3), held_out.view(20, 2, 3))
    torch.testing.assert_close(found.ratios, expected[0])
    torch.testing.assert_close(found.held_out_ratios, expected[1])
    assert found.median == pytest.approx(float(expected[0].quantile(0.5)))


def test_memorisation_of_duplicates_in_the_training_data() -> None:
    train = normal(50, 3)
    doubled = torch.cat([train, train])
    found = metrics.memorisation(train[:10], doubled, normal(10, 3, seed=1))
    assert (found.ratios == 0).all()
    assert (found.held_out_ratios == math.inf).all()
    assert found.distance == 1


@pytest.mark.parametrize(("n", "m", "shift"), [(300, 200, 0.0), (300, 200, 0.15), (2_000, 1_000, 0.1), (40, 40, 2.0)])
def test_kolmogorov_smirnov_is_that_of_scipy(n: int, m: int, shift: float) -> None:
    a, b = normal(n, 1)[:, 0], normal(m, 1, seed=1)[:, 0] + shift
    distance, p = kolmogorov_smirnov(a, b)
    expected = stats.ks_2samp(a.numpy(), b.numpy(), method="asymp")
    assert distance == pytest.approx(float(expected.statistic), abs=1e-12)
    assert p == pytest.approx(float(stats.kstwobign.sf(distance * math.sqrt(n * m / (n + m)))), rel=1e-6, abs=1e-14)
    assert p == pytest.approx(float(expected.pvalue), abs=0.05)
    assert kolmogorov_smirnov(a, a) == (0, 1)


# Sliced Wasserstein


def test_sliced_wasserstein_of_shifts_and_scales() -> None:
    a = normal(200, 6)
    shift = torch.arange(1.0, 7, dtype=torch.float64)
    found = metrics.sliced_wasserstein(a, a.flip(0) + shift, projections=10_000)
    assert found == pytest.approx(float(shift.norm()) / 6**0.5, rel=0.02)
    assert metrics.sliced_wasserstein(a[:, :1], a[:, :1] + 3, projections=2) == pytest.approx(3)
    assert metrics.sliced_wasserstein(a, a.flip(0)) == pytest.approx(0, abs=1e-12)
    # Along each direction the scale is the same: the distance is that of the data's projections, E|θ·a|² = |a|²/d.
    expected = float(a.square().sum(1).mean() / 6) ** 0.5
    assert metrics.sliced_wasserstein(a, 2 * a, projections=10_000) == pytest.approx(expected, rel=0.02)


def test_sliced_wasserstein_in_one_dimension_is_that_of_scipy() -> None:
    a, b = normal(100, 1), skewed(100, 1, seed=1)
    plan = stats.wasserstein_distance_nd  # of order 1: its optimal pairs are those of order 2 on a line
    assert metrics.sliced_wasserstein(a, a + 0.7, projections=3) == pytest.approx(plan(a.numpy(), (a + 0.7).numpy()))
    pairs = (a[:, 0].sort().values - b[:, 0].sort().values).square().mean().sqrt()
    assert metrics.sliced_wasserstein(a, b, projections=3) == pytest.approx(float(pairs))


# All of them


NAMES: dict[str, Callable[..., Any]] = {
    name: getattr(metrics, name)
    for name in ("frechet_distance", "kernel_distance", "prdc", "two_sample_accuracy", "sliced_wasserstein")
}


@pytest.mark.parametrize("name", NAMES)
def test_bad_sets_are_refused_in_one_line(name: str) -> None:
    measure, good = NAMES[name], normal(1_200, 4)
    spoilt = good.clone()
    spoilt[3, 2] = math.nan
    for bad in (good[:, :3], good.long(), good[:, 0], good[:0], spoilt):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(UsageError, match=name) as error:
                measure(*pair)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.frechet_distance(normal(7, 4), normal(100, 4)), "at least 8"),
        (lambda: metrics.kernel_distance(normal(7, 4), normal(100, 4)), "2 to 7"),
        (lambda: metrics.prdc(normal(5, 4), normal(100, 4)), "1 to 4"),
        (lambda: metrics.two_sample_accuracy(normal(5, 4), normal(6, 4)), "as many"),
        (lambda: metrics.sliced_wasserstein(normal(5, 4), normal(6, 4)), "as many"),
        (lambda: metrics.sliced_wasserstein(normal(5, 4), normal(5, 4), projections=0), "at least 1"),
        (lambda: metrics.class_balance(normal(5, 4)), "sum to 1"),
        (lambda: metrics.class_balance(torch.full((5, 2), 0.5), shares=torch.full((3,), 1 / 3)), "2 numbers"),
        (lambda: metrics.memorisation(normal(5, 4), normal(1, 4), normal(5, 4)), "at least 2"),
    ],
)
def test_bad_numbers_are_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.drawn_digits(train=3_000, test=600)


@pytest.fixture(scope="module")
def trained(digits: DataSet) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "MOST_STEPS", 70)
        return metrics.classifier(digits, device="cpu", progress=False)


@pytest.fixture(scope="module")
def samples(digits: DataSet) -> dict[str, Tensor]:
    """Real digits that nobody has seen, and what can be wrong with them, 500 each."""
    real = data.drawn_digits(train=12, test=800, seed=1).test
    x = real.pixels.float() / 255
    blurred = functional.avg_pool2d(functional.pad(x[:500], (1, 1, 1, 1)), 3, stride=1)
    few = x[real.labels < 7][:500]
    copied = digits.train.pixels[:500].float() / 255
    return {"real": x[:500], "blurred": blurred, "few": few, "copied": copied}


@pytest.fixture(scope="module")
def measured(digits: DataSet, trained: Trained, samples: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    return {name: metrics.measure(x, digits, trained) for name, x in samples.items()}


def test_real_images_measure_as_real_ones_do(measured: dict[str, dict[str, Any]]) -> None:
    found, real = measured["real"], measured["real"]["real"]
    assert found["frechet_distance"] < 2 * real["frechet_distance"]
    assert abs(found["kernel_distance"]) < 4 * found["kernel_distance_se"]
    assert abs(found["two_sample_accuracy"] - 0.5) < 4 * found["two_sample_accuracy_se"]
    for name in ("precision", "recall", "coverage"):
        assert found[name] == pytest.approx(real[name], abs=0.1), name
    assert found["classes_percent"] == 10
    assert found["memorisation"] == pytest.approx(real["memorisation"], rel=0.1)
    assert found["memorisation_p"] > 0.01


def test_blurred_images_are_told(measured: dict[str, dict[str, Any]]) -> None:
    found, real = measured["blurred"], measured["real"]
    assert found["frechet_distance"] > 2 * real["frechet_distance"]
    assert found["kernel_distance"] > 5 * found["kernel_distance_se"]
    assert found["two_sample_accuracy"] > 0.5 + 4 * found["two_sample_accuracy_se"]
    assert found["coverage"] < real["coverage"] - 0.1
    assert found["sliced_wasserstein"] > 2 * real["sliced_wasserstein"]
    assert found["reverse_kl"] < 0.2


def test_images_without_three_classes_are_told(measured: dict[str, dict[str, Any]]) -> None:
    found, real = measured["few"], measured["real"]
    assert found["reverse_kl"] == pytest.approx(math.log(10 / 7), abs=0.1)
    assert found["frechet_distance"] > 2 * real["frechet_distance"]
    assert found["kernel_distance"] > 5 * found["kernel_distance_se"]
    assert found["coverage"] < real["coverage"] - 0.15
    assert found["recall"] < real["recall"] - 0.1
    assert found["two_sample_accuracy_real"] > found["two_sample_accuracy_fake"]
    assert found["precision"] == pytest.approx(real["precision"], abs=0.08)


def test_copied_images_are_told_by_nothing_but_memorisation(measured: dict[str, dict[str, Any]]) -> None:
    found, real = measured["copied"], measured["real"]
    assert found["memorisation"] == 0
    assert found["memorisation_ks"] == 1
    assert found["memorisation_p"] < 1e-9
    assert found["frechet_distance"] < 1.3 * real["frechet_distance"]


def test_figures_are_ready_for_json_and_the_same_for_the_same_seed(
    digits: DataSet, trained: Trained, samples: dict[str, Tensor], measured: dict[str, dict[str, Any]]
) -> None:
    found = measured["real"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["classifier"] == {
        "accuracy": trained.accuracy, "hash": trained.hash, "task": "labels", "seed": 0,
    }  # fmt: skip
    assert (found["data"], found["split"], found["images"]) == ("digits", "test", 500)
    assert sum(found["classes"]) == 500
    assert set(found["real"]) == set(found) - {*metrics.measures.SETTINGS, "real", "memorisation_ks", "memorisation_p"}
    before = torch.get_rng_state()
    first = metrics.measure(samples["real"][:200], digits, trained, seed=3)
    torch.rand(3)
    assert metrics.measure(samples["real"][:200], digits, trained, seed=3) == first
    torch.set_rng_state(before)
    assert metrics.measure(samples["real"][:200], digits, trained, seed=4) != first


def test_against_training_images_no_image_is_on_both_sides(digits: DataSet, trained: Trained) -> None:
    half = 300
    digits = replace(digits, train=digits.train.first(2 * half))
    x = digits.test.pixels[:half].float() / 255
    found = metrics.measure(x, digits, trained, split="train")
    assert found["real"]["two_sample_accuracy"] == pytest.approx(0.5, abs=0.1)  # 0 for copies
    valid = metrics.measure(x[:100], digits, trained, split="valid")
    assert valid["split"] == "valid"
    assert valid["frechet_distance"] is None
    assert valid["real"]["two_sample_accuracy"] == pytest.approx(0.5, abs=0.2)


def test_images_without_labels_have_no_class_balance(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MOST_STEPS", 5)
    bare = replace(digits, train=replace(digits.train, labels=None), test=replace(digits.test, labels=None))
    turns = metrics.classifier(bare, device="cpu", progress=False)
    found = metrics.measure(digits.test.pixels[:150].float() / 255, bare, turns)
    assert "reverse_kl" not in found
    assert found["classifier"]["task"] == "rotations"
    assert "reverse_kl" not in metrics.table([("model", found)])[0]


def test_the_table_has_real_images_first_and_a_row_for_each_model(measured: dict[str, dict[str, Any]]) -> None:
    lines = metrics.table([(name, measured[name]) for name in ("blurred", "few")])
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert names == ["", "---", "real", "blurred", "few"]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    heads, cells = ([cell.strip() for cell in lines[row].split("|")] for row in (0, 3))
    told = dict(zip(heads, cells, strict=True))
    assert float(told["frechet_distance"]) == pytest.approx(measured["blurred"]["frechet_distance"], rel=0.01)
    assert " ± " in told["kernel_distance"]
    assert measured["few"]["classifier"]["hash"] in lines[-1]
    assert "500 images" in lines[-1]


def test_the_table_refuses_what_cannot_be_compared(measured: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="images 400"):
        metrics.table([("one", measured["real"]), ("other", measured["few"] | {"images": 400})])
    other = measured["few"] | {"classifier": measured["few"]["classifier"] | {"hash": "0" * 12}}
    with pytest.raises(UsageError, match="not comparable"):
        metrics.table([("one", measured["real"]), ("other", other)])
    with pytest.raises(UsageError, match="no models"):
        metrics.table([])


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (lambda x: x[:, 0], {}, r"\(N, 1, 28, 28\)"),
        (lambda x: (x * 255).to(torch.uint8), {}, "floating-point"),
        (lambda x: x * 2 - 1, {}, "from -1 to 1"),
        (lambda x: x.masked_fill(x > 0.5, math.nan), {}, "nan"),
        (lambda x: x[:3], {}, "10 to 600"),
        (lambda x: x.repeat(2, 1, 1, 1), {}, "10 to 600"),
        (lambda x: x, {"split": "held out"}, "split='held out'"),
    ],
)
def test_bad_images_are_refused_in_one_line(
    spoil: Callable[[Tensor], Tensor],
    settings: dict[str, Any],
    message: str,
    digits: DataSet,
    trained: Trained,
    samples: dict[str, Tensor],
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        metrics.measure(spoil(samples["real"]), digits, trained, **settings)
    assert "\n" not in str(error.value)


# Ranks


def test_rank_correlation_is_spearmans() -> None:
    """Ten children's intelligence and hours of television, a textbook's example; and scipy's, with ties."""
    quotients, hours = [106, 86, 100, 101, 99, 103, 97, 113, 112, 110], [7, 0, 27, 50, 28, 29, 20, 12, 6, 17]
    assert metrics.rank_correlation(quotients, hours) == pytest.approx(-29 / 165)
    tied = [round(value, 1) for value in (normal(2, 30, seed=5) / 2).tolist()[0]]
    other = normal(2, 30, seed=6).tolist()[0]
    assert len(set(tied)) < 30
    assert metrics.rank_correlation(tied, other) == pytest.approx(stats.spearmanr(tied, other).statistic)
    assert math.isnan(metrics.rank_correlation([1.0, 1.0], [1.0, 2.0]))
    with pytest.raises(UsageError, match="found 1 and 1 numbers"):
        metrics.rank_correlation([1.0], [1.0])
