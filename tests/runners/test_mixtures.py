"""GANs on mixtures: measures against constructed points and scipy, the picture, and the command."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from matplotlib.collections import EllipseCollection
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ppl_models import UsageError
from runners import figures
from runners.loop.history import History
from runners.metrics.transport import assignment, wasserstein
from runners.mixture import GRID, MIXTURES, RING, Mixture
from runners.mixture_fit import BY_LOSS, MixtureFit, fit
from runners.mixtures import Mixtures, main, mixtures

TINY = ["--steps", "3", "--batch", "16", "--samples", "60"]


def points(mixture: Mixture, count: int = 2500, *, seed: int = 0) -> Tensor:
    return mixture.sample(count, torch.Generator().manual_seed(seed))


def test_the_mixtures_are_those_of_the_papers() -> None:
    side = [-4.0, -2.0, 0.0, 2.0, 4.0]
    assert sorted(map(tuple, GRID.means.tolist())) == [(x, y) for x in side for y in side]
    assert (GRID.deviation, RING.deviation) == (0.05, 0.02)
    torch.testing.assert_close(RING.means.norm(dim=1), torch.full((8,), 2.0))
    torch.testing.assert_close(
        (RING.means - RING.means.roll(1, 0)).norm(dim=1), torch.full((8,), 4 * math.sin(math.pi / 8))
    )


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_samples_have_the_means_deviations_and_weights_of_the_mixture(mixture: Mixture) -> None:
    modes, x = len(mixture.means), points(mixture, 100_000)
    mode = torch.cdist(x, mixture.means).argmin(1)
    shares = torch.bincount(mode, minlength=modes) / len(x)
    assert (shares - 1 / modes).abs().max() < 5 * math.sqrt(1 / modes / len(x))
    for k in range(modes):
        own = x[mode == k]
        assert (own.mean(0) - mixture.means[k]).abs().max() < 5 * mixture.deviation / math.sqrt(len(own))
        covariance = own.T.cov() / mixture.deviation**2
        torch.testing.assert_close(covariance, torch.eye(2), atol=6 * math.sqrt(2 / len(own)), rtol=0)


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_a_perfect_sampler_is_near_every_floor(mixture: Mixture) -> None:
    modes = len(mixture.means)
    found = [mixture.measure(points(mixture, seed=seed)) for seed in range(40)]

    def mean(name: str) -> float:
        return sum(run[name] for run in found) / len(found)

    assert {run["modes"] for run in found} == {modes}
    within = 1 - math.exp(-4.5)
    assert abs(mean("high_quality") - within) < 4 * math.sqrt(within * (1 - within) / (40 * 2500))
    floor = (modes - 1) / (2 * 2500 * within)  # 2 N KL is a chi-square of K - 1 degrees
    assert mean("reverse_kl_floor") == pytest.approx(floor, rel=1e-3)
    assert abs(mean("reverse_kl") - floor) < 4 * floor * math.sqrt(2 / (modes - 1) / 40)
    assert mean("width") == pytest.approx(1, abs=0.02)
    assert len(found[0]["widths"]) == modes


def test_modes_that_are_missing_cost_their_logarithm() -> None:
    x = points(GRID, 20_000)
    kept = x[torch.cdist(x, GRID.means).argmin(1) < 5]
    found = GRID.measure(kept)
    assert found["modes"] == 5
    assert found["of"] == 25
    assert found["reverse_kl"] == pytest.approx(math.log(5), abs=4e-3)
    assert sum(width is None for width in found["widths"]) == 20


def test_reverse_kl_by_hand() -> None:
    """Shares of 3/4 and 1/4 among two of eight modes; a point between modes is in no mode and does not count."""
    x = torch.cat([RING.means[:1].repeat(3, 1), RING.means[1:2], torch.zeros(4, 2)])
    found = RING.measure(x)
    assert found["high_quality"] == 0.5
    assert found["modes"] == 2
    assert found["reverse_kl"] == pytest.approx(0.75 * math.log(6) + 0.25 * math.log(2))
    assert found["reverse_kl_floor"] == 7 / 8


@pytest.mark.parametrize("wider", [0.1, 0.5, 2.0, 4.0])
def test_widths_are_in_units_of_the_modes(wider: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = GRID.means.repeat(2000, 1)
    x = x + wider * GRID.deviation * torch.randn(x.shape, generator=generator)
    found = GRID.measure(x)
    assert found["width"] == pytest.approx(wider, rel=0.01)
    assert found["high_quality"] == pytest.approx(1 - math.exp(-4.5 / wider**2), abs=0.01)


def test_a_few_points_between_modes_hardly_change_a_width() -> None:
    x = torch.cat([points(GRID, 9000), 10 * torch.rand(1000, 2) - 5])
    assert GRID.measure(x)["width"] == pytest.approx(1, abs=0.1)
    own = x[torch.cdist(x, GRID.means).argmin(1) == 12]
    assert own.std() / GRID.deviation > 2


def test_nothing_of_quality_has_no_divergence() -> None:
    found = RING.measure(torch.zeros(20, 2))
    assert (found["modes"], found["high_quality"], found["reverse_kl"], found["reverse_kl_floor"]) == (0, 0, None, None)
    for x in (torch.zeros(0, 2), torch.zeros(3, 3), torch.full((3, 2), math.nan)):
        with pytest.raises(UsageError, match=r"expected finite points \(N, 2\)"):
            RING.measure(x)


@pytest.mark.parametrize("count", [1, 2, 7, 60, 300])
@pytest.mark.parametrize("kind", ["uniform", "ties", "grid"])
def test_the_assignment_costs_as_little_as_that_of_scipy(count: int, kind: str) -> None:
    rng = np.random.default_rng(count)
    costs = rng.random((count, count))
    if kind == "ties":
        costs = np.round(4 * costs)
    if kind == "grid":
        costs = torch.cdist(points(GRID, count), points(GRID, count, seed=1)).double().numpy()
    found = assignment(costs)
    assert sorted(found) == list(range(count))
    assert costs[np.arange(count), found].sum() == pytest.approx(costs[linear_sum_assignment(costs)].sum(), abs=1e-9)


def test_wasserstein_in_one_dimension_is_that_of_sorted_values_and_of_a_shift_its_length() -> None:
    a, b = torch.randn(200, 1), torch.randn(200, 1) + 0.3
    assert wasserstein(a, b) == pytest.approx(float((a.sort(0).values - b.sort(0).values).abs().mean()), rel=1e-6)
    x = points(GRID, 300)
    assert wasserstein(x, x.flip(0)) == 0
    assert wasserstein(x, x.flip(0) + torch.tensor([3.0, 4.0])) == pytest.approx(5, rel=1e-6)


def test_wasserstein_refuses_what_it_cannot_pair() -> None:
    with pytest.raises(UsageError, match="expected"):
        wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(UsageError, match="finite"):
        wasserstein(torch.full((3, 2), math.inf), torch.zeros(3, 2))


@pytest.mark.parametrize("steep", [0.5, 1.0, 3.0])
def test_a_linear_critics_distance_is_in_the_units_of_the_points(steep: float) -> None:
    """Of points that are shifted along its gradient, whatever its slope and the scale."""

    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return steep * (0.6 * x[:, 0] + 0.8 * x[:, 1]) + 7

    made = MixtureFit(GRID, "wgan-gp", 0, nn.Identity(), Linear(), History())
    x = points(GRID, 200)
    found = made.criticise(x + torch.tensor([0.6, 0.8]) * 0.3, x)
    assert found["slope"] == pytest.approx(steep, rel=1e-4)
    assert found["critic_w1"] == pytest.approx(0.3, rel=1e-3)


def test_training_moves_the_generator_towards_the_mixture() -> None:
    data = points(RING, 300, seed=5)
    distances = [
        wasserstein(fit(RING, "wgan-gp", steps=steps, batch=64, progress=False).sample(300), data) for steps in (1, 60)
    ]
    assert distances[1] < 0.6 * distances[0]


def test_samples_are_what_the_step_trains_on() -> None:
    """The critic sees 2x - 1, which is to be the point over its scale."""
    made = fit(GRID, "gan", steps=1, batch=4, progress=False)
    draw = torch.Generator().manual_seed(3)
    z = torch.randn(10, 2, generator=draw)
    torch.testing.assert_close(2 * made.generator(z) - 1, made.sample(10, seed=3) / GRID.scale)


def test_equal_seeds_give_equal_bits_and_leave_the_global_state() -> None:
    settings = {"steps": 2, "batch": 8, "progress": False}
    state = torch.get_rng_state()
    first, again, other = (fit(RING, "wgan-gp", seed=seed, **settings) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.sample(20), again.sample(20))
    assert not torch.equal(first.sample(20), other.sample(20))
    assert first.history.rows[0]["critic_loss"] == again.history.rows[0]["critic_loss"]


def test_a_loss_brings_its_settings_which_others_change() -> None:
    def columns(loss: str, **settings: object) -> set[str]:
        return fit(RING, loss, steps=1, batch=4, progress=False, **settings).history.rows[0].keys()

    assert "penalty" in columns("wgan-gp")
    assert "penalty" not in columns("gan")
    assert "penalty" in columns("hinge", penalty=1.0)
    assert "penalty" not in columns("wgan-gp", penalty=0.0)
    with pytest.raises(UsageError, match="loss: found 'wasserstein'"):
        fit(RING, "wasserstein")


def run_of(seed: int, **figures: object) -> dict[str, object]:
    found = {"mixture": "grid", "loss": "gan", "seed": seed, "modes": 20, "of": 25, "high_quality": 0.9}
    found |= {"reverse_kl": 0.5, "reverse_kl_floor": 0.005, "width": 0.8, "w1": 0.4, "w1_floor": 0.1, "seconds": 10.0}
    return found | figures


def test_the_table_has_means_and_deviations_over_the_seeds() -> None:
    runs = (run_of(0), run_of(1, modes=22, reverse_kl=None), run_of(0, loss="wgan-gp", critic_w1=0.123))
    lines = repr(Mixtures(runs)).splitlines()
    gan, wgan = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4])
    assert gan[:5] == ["grid", "gan", "21.0 ± 1.4 of 25", "90.0 ± 0.0", "0.500"]
    assert wgan[:3] == ["grid", "wgan-gp", "20.0 of 25"]
    assert (gan[-2], wgan[-2]) == ("–", "0.12")
    assert {line.count("|") for line in lines[:4]} == {12}
    assert "2 seeds" in lines[-1]


def test_the_picture_has_a_panel_for_each_run_and_marks_what_was_missed() -> None:
    x = RING.means[:5].repeat(10, 1)
    panel = {"title": "a", "text": "b", "means": RING.means.numpy(), "radius": 0.06}
    panel |= {"points": torch.cat([x, torch.tensor([[9.0, 9.0]])]).numpy(), "close": np.array([True] * 50 + [False])}
    figure = figures.mixtures([panel] * 6)
    assert len(figure.axes) == 6
    axes = figure.axes[0]
    assert "1 outside" in axes.get_title()
    assert axes.get_aspect() == 1
    (circles,) = (made for made in axes.collections if isinstance(made, EllipseCollection))
    figures.png_bytes(figure)
    colours = [tuple(colour) for colour in circles.get_edgecolor()]
    assert len(set(colours[:5])) == len(set(colours[5:])) == 1
    assert colours[0] != colours[5]


def test_the_command_writes_a_table_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    found = main([*TINY, "--loss", "wgan-gp", "--seeds", "2", "--seed", "5", "--penalty", "0.2", "--out", str(out)])
    assert {path.name for path in out.iterdir()} == {"config.json", "result.json", "mixtures.md", "mixtures.png"}
    runs = json.loads((out / "result.json").read_text())["runs"]
    assert runs == list(found.runs)
    assert [(run["mixture"], run["loss"], run["seed"]) for run in runs] == [
        (mixture, "wgan-gp", seed) for mixture in ("grid", "ring") for seed in (5, 6)
    ]
    assert (out / "mixtures.md").read_text() == f"{found!r}\n"
    assert repr(found) in capsys.readouterr().out
    options = json.loads((out / "config.json").read_text())["options"]
    assert (options["penalty"], options["steps"], options["batch"], options["seed"]) == (0.2, 3, 16, 5)
    before = (out / "result.json").read_bytes()
    said = small.refused(main, capsys, "--out", out)
    assert "holds a run already" in said
    assert (out / "result.json").read_bytes() == before


def test_the_command_and_python_give_the_same(tmp_path: Path) -> None:
    line = [*TINY, "--mixture", "ring", "--out", str(tmp_path / "run"), "--device", "cpu"]
    settings = {"samples": 60, "steps": 3, "batch": 16, "progress": False, "device": "cpu"}
    ours, theirs = main(line).runs, mixtures([RING], **settings).runs
    assert [run["loss"] for run in ours] == ["gan", "wgan-gp"]
    assert [{**run, "seconds": 0} for run in ours] == [{**run, "seconds": 0} for run in theirs]
    assert [{"critic_w1", "slope"} <= run.keys() for run in ours] == [False, True]


def test_a_run_that_diverges_says_which_and_leaves_the_finished_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setitem(BY_LOSS, "wgan-gp", {"penalty": math.inf})
    with pytest.raises(SystemExit) as ended:
        main([*TINY, "--mixture", "ring", "--out", str(out)])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mixtures: wgan-gp on the ring, seed 0: 'generator_loss' is not finite")
    assert [run["loss"] for run in json.loads((out / "result.json").read_text())["runs"]] == ["gan"]


def test_a_signal_ends_the_command_and_leaves_the_finished_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(mixture: Mixture, loss: str, **settings: object) -> MixtureFit:
        if loss == "wgan-gp":
            monkeypatch.setattr(Mixture, "sample", interrupting)
        return fit(mixture, loss, **settings)

    def interrupting(self: Mixture, count: int, generator: torch.Generator) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.zeros(count, 2)

    monkeypatch.setattr("runners.mixtures.fit", stopped)
    with pytest.raises(SystemExit) as ended:
        main([*TINY, "--mixture", "ring", "--out", str(tmp_path / "run")])
    assert ended.value.code == 128 + signal.SIGTERM
    assert "has the runs that were finished" in capsys.readouterr().err
    assert [run["loss"] for run in json.loads((tmp_path / "run" / "result.json").read_text())["runs"]] == ["gan"]
