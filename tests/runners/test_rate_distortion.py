"""Rate-distortion curves: against those of a linear-Gaussian model in closed form, and the command."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import torch
from matplotlib.text import Text
from torch import Tensor, nn
from toys import general_ppca, orthogonal_ppca, points, sampled

from guides import ELBO, IWAE, Amortized, Constrained, Diagonal, FullRank
from ppl_models import PPCA, UsageError
from runners import compare, figures, svi
from runners.fit import Fit
from runners.loop.history import History
from runners.presets import DEFAULTS
from runners.rate_distortion import main, rate_distortion

TINY = ["--steps", "6", "--batch", "16", "--images", "20", "--model", "mlp", "--hidden", "8"]


@pytest.fixture(autouse=True)
def _no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.summary.image_figures", lambda fit: {})


def exact(model: PPCA, x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Rate and distortion of the best q at a KL weight, of precision I + WᵀW / (β σ²), means over the data."""
    weight, variance = model.weight.detach(), model.log_variance.detach().exp()
    centred, (size, latents) = x - model.bias.detach(), weight.shape
    precision = torch.eye(latents, dtype=x.dtype) + weight.mT @ weight / (beta * variance)
    covariance = torch.linalg.inv(precision)
    mean = centred @ weight @ covariance / (beta * variance)
    rate = 0.5 * (covariance.trace() + mean.square().sum(-1) - latents + torch.logdet(precision))
    squares = (centred - mean @ weight.mT).square().sum(-1) + (weight @ covariance @ weight.mT).trace()
    distortion = 0.5 * (squares / variance + size * torch.log(2 * torch.pi * variance))
    return rate.mean(), distortion.mean()


class Identity(nn.Module):
    """An encoder that leaves a guide linear in x, as the best one is."""

    features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def trained(model: PPCA, data: SimpleNamespace, objective: object, family: nn.Module, steps: int = 250) -> Fit:
    """First by large steps, from which small ones then take the noise."""
    guide = Amortized(encoder=Identity(), family=family).double()
    for head in guide.heads.values():
        nn.init.zeros_(head.weight)
    settings = {"steps": steps, "batch": 500, "progress": False, "train_model": False}
    large, small = (partial(torch.optim.Adam, lr=lr, betas=(0.9, 0.99)) for lr in (0.03, 0.002))
    return svi.fit(model, guide, data, objective, optimizer=large, **settings).swap(guide, optimizer=small).run()


@pytest.mark.parametrize("make", [orthogonal_ppca, general_ppca])
def test_slope_of_the_exact_curve_is_minus_beta(make: object) -> None:
    model = make()
    x = sampled(model, 50)
    for value in (0.1, 1.0, 7.0):
        beta = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        rate, distortion = exact(model, x, beta)
        slopes = [torch.autograd.grad(side, beta, retain_graph=True)[0] for side in (distortion, rate)]
        assert slopes[1] < 0
        torch.testing.assert_close(slopes[0] / slopes[1], -beta.detach())
    rate, distortion = exact(model, x, torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(rate + distortion, -model.evidence(x).mean().detach())


@pytest.mark.parametrize(
    ("make", "family", "betas"),
    [(orthogonal_ppca, Diagonal, [0.3, 1.0, 1e4]), (general_ppca, FullRank, [0.3, 4.0])],
)
def test_trained_guides_lie_on_the_exact_curve(make: object, family: type[nn.Module], betas: list[float]) -> None:
    model = make()
    x = sampled(model, 2000)
    data = points(x, x)
    curves = rate_distortion(*(trained(model, data, ELBO(beta), family(2)) for beta in betas))
    assert [point["beta"] for point in curves.points] == betas
    for point in curves.points:
        rate, distortion = exact(model, x, torch.tensor(point["beta"], dtype=torch.float64))
        assert abs(point["rate"] - rate) < 0.02
        assert abs(point["distortion"] - distortion) < 3 * point["distortion_se"]
        assert rate < 1e-5 or point["beta"] < 1e4


def test_constrained_guide_lies_on_the_exact_curve_at_its_target() -> None:
    model = orthogonal_ppca()
    x = sampled(model, 2000)
    rate, distortion = exact(model, x, torch.tensor(0.5, dtype=torch.float64))
    objective = Constrained(-float(distortion), lr=0.05)
    fit = trained(model, points(x, x), objective, Diagonal(2), steps=500)
    (point,) = rate_distortion(fit).points
    assert abs(point["rate"] - rate) < 0.05
    assert abs(point["distortion"] - distortion) < 3 * point["distortion_se"]
    assert point["multiplier"] == pytest.approx(1 / 0.5, rel=0.1)
    assert "beta" not in point


def quick(objective: object, guide: object | None = None, data: object | None = None) -> Fit:
    data = small.data_set() if data is None else data
    return svi.fit(
        small.model(), guide or small.amortized(), data, objective, steps=2, batch=20, every=1, progress=False
    )


def test_in_python() -> None:
    fits = [quick(ELBO(3)), quick(ELBO(0.5)), quick(Constrained(-20.0)), quick(ELBO(1), small.free(small.data_set()))]
    curves = rate_distortion(*fits, images=20, updates=2)
    assert [(point.get("beta"), point.get("target")) for point in curves.points] == [
        (None, -20),
        (0.5, None),
        (1, None),
        (3, None),
    ]
    one = fits[0].result(images=20)["test"]
    (point,) = (point for point in curves.points if point.get("beta") == 3)
    assert (point["rate"], point["rate_se"], point["images"]) == (one["kl"], one["kl_se"], 20)
    assert (point["distortion"], point["distortion_se"]) == (-one["log_likelihood"], one["log_likelihood_se"])
    assert f"{one['kl']:.2f} ± {one['kl_se']:.2f} | {-one['log_likelihood']:.2f} ±" in repr(curves)
    named = rate_distortion(*fits[:2], names=["b", "a"], images=1)
    assert [point["family"] for point in named.points] == ["b", "a"]
    assert "rate_se" not in named.points[0]
    assert "±" not in repr(named)
    assert len(named.show().axes) == 1


def test_refused_in_python() -> None:
    with pytest.raises(UsageError, match="at least one fit"):
        rate_distortion()
    with pytest.raises(UsageError, match="same test images"):
        rate_distortion(quick(ELBO()), quick(ELBO(), data=small.data_set(test=30)))
    for objective in (IWAE(2), ELBO(lambda step, steps: step / steps)):
        with pytest.raises(UsageError, match="expected fits by ELBO"):
            rate_distortion(quick(objective))


def test_picture_shows_the_points_and_the_sums() -> None:
    shown = [
        {"family": "diagonal", "beta": 3, "rate": 4.0, "rate_se": 0.1, "distortion": 120.0, "distortion_se": 0.4},
        {"family": "diagonal", "beta": 0.3, "rate": 20.0, "distortion": 85.0},
        {"family": "echo", "target": -90.0, "rate": 16.0, "distortion": 90.0, "prior": "the marginal"},
    ]
    figure = figures.rate_distortion(shown, title="digits")
    (axes,) = figure.axes
    texts = {text.get_text(): text for text in axes.findobj(Text)}
    assert {"digits", "β = 3", "β = 0.3", "−90"} <= texts.keys()
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert legend == ["diagonal", "echo: rate against the marginal of its codes", "rate + distortion = −ELBO"]
    curves = [container.lines[0].get_xydata().tolist() for container in axes.containers]
    assert curves == [[[4, 120], [20, 85]], [[16, 90]]]
    sums = [line.get_xydata().sum(1) for line in axes.lines if line.get_color() == "0.55"]
    assert len(sums) > 3
    for first, last in sums:
        assert first == pytest.approx(last)
        x, y = texts[f"{first:g}"].get_position()
        assert x + y == pytest.approx(first)
    (xlow, xhigh), (ylow, yhigh) = axes.get_xlim(), axes.get_ylim()
    for text in (texts["β = 3"], texts["β = 0.3"], texts["−90"]):
        x, y = text.get_position()
        assert xlow < x < xhigh
        assert ylow < y < yhigh


def test_a_rate_that_costs_nothing_does_not_flatten_the_picture() -> None:
    shown = [(1, 10.0, 110.0), (0.1, 30.0, 95.0)]
    for free, inside in ((40.0, True), (400.0, False)):
        points = [{"family": "flow", "beta": b, "rate": r, "distortion": d} for b, r, d in [*shown, (0, free, 90.0)]]
        (axes,) = figures.rate_distortion(points).axes
        assert (free < axes.get_xlim()[1]) == inside
        assert 30 < axes.get_xlim()[1] < 60
        texts = {text.get_text(): text for text in axes.findobj(Text)}
        name = "β = 0" if inside else "β = 0 at rate 400 →"
        assert texts[name].get_position()[0] < axes.get_xlim()[1]


@pytest.mark.parametrize("places", [[(10, 90)], [(0, 90), (300, 90.5)], [(1, 1e4), (1, 2e4)], [(-0.1, 90), (-0.2, 95)]])
def test_picture_of_odd_curves(places: list[tuple[float, float]]) -> None:
    shown = [{"family": "flow", "beta": 1, "rate": rate, "distortion": distortion} for rate, distortion in places]
    assert len(figures.png_bytes(figures.rate_distortion(shown))) > 1000


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    return ["--data", str(small.write_npz(tmp_path / "blobs.npz"))]


def read(folder: Path, name: str = "rate_distortion.json") -> object:
    return json.loads((folder / name).read_text())


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, Tensor]:
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("model", "guide") for name, value in found[part].items()}


def test_a_sweep_of_two_families(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sweep"
    options = ["--steps", "4", "--images", "20", "--model", "mlp", "--hidden", "8", "--scale", "softplus"]
    curves = main([*data, *options, "--beta", "3", "0.5", "0.5", "--family", "diagonal", "echo", "--out", str(out)])
    assert repr(curves) in capsys.readouterr().out
    points = read(out)
    assert points == curves.points
    assert [(point["family"], point["beta"]) for point in points] == [
        ("diagonal", 0.5),
        ("diagonal", 3),
        ("echo", 0.5),
        ("echo", 3),
    ]
    for point in points:
        folder = out / f"{point['family']}-beta-{point['beta']:g}"
        test = read(folder, "result.json")["test"]
        assert (point["rate"], point["distortion"], point["elbo"]) == (
            test["kl"],
            -test["log_likelihood"],
            test["elbo"],
        )
        assert (point["steps"], point["images"], point["data"]) == (4, 20, "fixed-binarized")
        assert {"rate_se", "distortion_se", "elbo_se"} <= point.keys()
        assert ("marginal q(z)" in point.get("prior", "")) == (point["family"] == "echo")
        config = read(folder, "config.json")
        assert (config["command"], config["objective"]["kl_weight"]) == ("svi", point["beta"])
        assert config["batch"] == 100, "Echo's batch, for all curves"
        assert svi.load(folder).objective.kl_weight == point["beta"]
    assert len(weights(out / "diagonal-beta-3")) == len(weights(out / "echo-beta-3"))
    config = read(out, "config.json")
    assert (config["command"], config["options"]["beta"]) == ("rate_distortion", [3.0, 0.5])
    assert config["options"]["family"] == ["diagonal", "echo"]
    assert "ELBO" in (out / "rate_distortion.md").read_text()
    page = (out / "report.html").read_text()
    assert "echo, beta 0.5" in page
    assert "the marginal q(z)" in page
    assert "metrics.csv" not in page
    assert "result.json" not in page
    found = compare.main([str(out / "diagonal-beta-3"), str(out / "echo-beta-3"), "--images", "20"])
    assert list(found.elbo) == ["diagonal-beta-3", "echo-beta-3"]
    svi.main(["--resume", "--out", str(out / "echo-beta-3")])


def test_a_sweep_of_targets(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    main([*data, *TINY, "--target", "-90", "-110.5", "--multiplier", "moving-average", "--out", str(out)])
    points = read(out)
    assert [point["target"] for point in points] == [-110.5, -90]
    assert all(point["multiplier"] > 0 for point in points)
    described = read(out / "diagonal-target--110.5", "config.json")["objective"]
    assert (described["made by"], described["target"], described["rule"]) == ("Constrained", -110.5, "moving_average")


def test_resuming_reads_what_is_finished_and_adds_points(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sweep"
    main([*data, *TINY, "--beta", "1", "--out", str(out)])
    before, first = files(out / "diagonal-beta-1"), read(out)
    with monkeypatch.context() as patch:
        for name in ("run", "result", "restore"):
            patch.setattr(Fit, name, lambda *_, **__: pytest.fail("a finished point was not only read"))
        main(["--resume", "--out", str(out)])
        main(["--resume", "--beta", "1", "--out", str(out)])
    assert read(out) == first
    main(["--resume", "--beta", "4", "--family", "full-rank", "--out", str(out)])
    assert files(out / "diagonal-beta-1") == before
    found = [(point["family"], point["beta"]) for point in read(out)]
    assert found == [("diagonal", 1), ("diagonal", 4), ("full-rank", 1), ("full-rank", 4)]
    assert read(out, "config.json")["options"]["beta"] == [1.0, 4.0]
    assert read(out)[0] == first[0]


def test_points_measured_on_other_images_say_so(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    main([*data, *TINY, "--beta", "1", "--out", str(out)])
    assert "20 test images" in (out / "rate_distortion.md").read_text()
    curves = main(["--resume", "--beta", "2", "--images", "10", "--out", str(out)])
    assert [point["images"] for point in curves.points] == [20, 10]
    header = next(line for line in repr(curves).splitlines() if line.startswith("| family"))
    assert "images" in header
    assert "steps" not in header
    assert "test images" not in repr(curves)


def test_a_cut_sweep_ends_as_an_uncut_one(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command = [*data, *TINY, "--beta", "0", "10"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*command, "--out", str(whole)])
    record, calls = History.record, []

    def record_and_stop(history: History, scalars: dict[str, Tensor]) -> None:
        record(history, scalars)
        calls.append(history.step)
        if len(calls) == 6 + 3:
            os.kill(os.getpid(), signal.SIGINT)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(History, "record", record_and_stop)
        with pytest.raises(SystemExit) as ended:
            main([*command, "--out", str(cut)])
    assert ended.value.code == 130
    assert f"python runners/rate_distortion.py --resume --out {cut}" in capsys.readouterr().err
    assert read(cut) == read(whole)[:1], "what was finished is not lost"
    assert (cut / "rate_distortion.png").exists()
    main(["--resume", "--out", str(cut)])
    for name in ("rate_distortion.json", "rate_distortion.md", "rate_distortion.png"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("diagonal-beta-0", "diagonal-beta-10"):
        ours, theirs = weights(cut / name), weights(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_the_newest_sweep_is_resumed(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main([*data, *TINY, "--beta", "1"])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("rate_distortion-")
    main(["--resume", "--beta", "2"])
    assert len(read(folder)) == 2


def test_a_cut_point_that_was_assessed_is_gone_on_with(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assessment writes a report.html, too."""
    out = tmp_path / "sweep"
    main([*data, *TINY, "--beta", "1", "--out", str(out)])
    (out / "diagonal-beta-1" / "result.json").unlink()
    main(["--resume", "--out", str(out)])
    assert (out / "diagonal-beta-1" / "result.json").exists()


def test_what_resuming_does_is_said(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sweep"
    main([*data, *TINY, "--beta", "1", "--resume", "--out", str(out)])
    assert "no sweep to go on from" in capsys.readouterr().err
    main(["--resume", "--images", "5", "--out", str(out)])
    assert "all points are measured, --images changes nothing" in capsys.readouterr().err


def test_a_point_that_diverges_costs_no_other(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sweep"
    with pytest.raises(SystemExit) as ended:
        main([*data, *TINY, "--beta", "1e38", "1", "--lr", "1", "--out", str(out)])
    assert ended.value.code == 2
    assert "rate_distortion: diagonal-beta-1e+38: " in capsys.readouterr().err.splitlines()[-1]
    assert [point["beta"] for point in read(out)] == [1]


def test_a_guide_of_ones_own(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mine = tmp_path / "my.py"
    mine.write_text(
        "from guides import Amortized\n"
        "from ppl_models import MLPEncoder\n"
        "def build(latents):\n"
        "    return Amortized(latents=latents, encoder=MLPEncoder(hidden=(8,)))\n"
        "class Mine(Amortized):\n"
        "    def __init__(self, latents):\n"
        "        super().__init__(latents=latents, encoder=MLPEncoder(hidden=(8,)))\n"
    )
    out = tmp_path / "sweep"
    guide = ["--guide", f"{mine}:Mine"]
    main([*data, *TINY, *guide, "--beta", "1", "--out", str(out)])
    assert [point["family"] for point in read(out)] == ["Mine"]
    assert (out / "Mine-beta-1" / "result.json").exists()
    assert "name it again to resume" in small.refused(main, capsys, "--resume", "--out", str(out))
    main(["--resume", *guide, "--beta", "2", "--out", str(out)])
    assert [point["beta"] for point in read(out)] == [1, 2]


def test_svi_does_not_take_a_sweep_for_a_run(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sweep"
    main([*data, *TINY, "--beta", "1", "--steps", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        svi.main(["--resume", "--out", str(out)])
    assert ended.value.code == 2
    assert "was made by rate_distortion.py" in capsys.readouterr().err


def test_help_shows_the_lines_to_type(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "python runners/rate_distortion.py --beta 0.3 1 3 --quick" in said
    assert "(default: amortized)" in said
    assert "--objective" not in said
    words = [word.rstrip(",") for word in said.split() if word.startswith("--")]
    flags = {word.removeprefix("--no-").removeprefix("--").replace("-", "_") for word in words}
    assert DEFAULTS.keys() - flags == {"objective", "schedule", "gradient"}
