"""Paths between the codes of a run: against the identity in closed form, and as a command."""

import json
import math
import shutil
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor

from guides import Amortized, Diagonal
from ppl_models import MLPEncoder, UsageError
from runners import gan, svi
from runners.interpolate import interpolate, main
from runners.interpolation import KINDS, figures_of, lower_bounds, paths_between

SMALL = {"pairs": 3, "nodes": 8, "steps": 6, "starts": 2}
LINE = ["--pairs", "3", "--nodes", "8", "--steps", "6", "--starts", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gan")
    line = ["--data", str(small.write_npz(place / "blobs.npz")), "--networks", "mlp", "--latents", "3", "--batch", "16"]
    gan.main([*line, "--steps", "4", "--pictures", "0", "--selection", "0", "--out", str(place / "run")])
    return place / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def fitted() -> svi.Fit:
    return svi.fit(small.model(), small.amortized(), small.data_set(), steps=3, batch=20, progress=False)


def identity(z: Tensor) -> Tensor:
    return 1 * z


def test_identity_in_closed_form() -> None:
    a = torch.tensor([[0.6, 0.3, -0.2], [1.0, 0.0, 0.5]], dtype=torch.float64)
    r2 = a.square().sum(-1)
    lower = lower_bounds(identity, a, -a)
    torch.testing.assert_close(lower["path_energy"], 8 * r2**2)
    found = {}
    for count in (128, 256):
        found[count] = paths_between(identity, a, -a, nodes=count + 1, starts=1, subpoints=count + 1)
        line = 8 * r2**2 * (1 + (1 - 1 / count**2) / 3)
        torch.testing.assert_close(found[count]["straight"].path_energy.mean(-1), line, rtol=1e-8, atol=0)
    coarse, fine = (found[count]["least energy"].path_energy.mean(-1) for count in found)
    least = 2 * r2**2 * (math.sqrt(2) + math.asinh(1)) ** 2
    torch.testing.assert_close((4 * fine - coarse) / 3, least, rtol=1e-8, atol=0)
    for kind in ("straight", "pull-back"):
        torch.testing.assert_close(found[256][kind].pullback_energy.mean(-1), 4 * r2, rtol=1e-8, atol=0)
        torch.testing.assert_close(found[256][kind].norm, torch.zeros_like(r2), rtol=0, atol=1e-8)
    figures = figures_of(found[256], lower)
    assert [figures["bounds"][name]["held"] for name in figures["bounds"]] == [2, 2]
    gain = 100 * (1 - least / (32 / 3 * r2**2))
    assert figures["kinds"]["least energy"]["path_energy_gain_percent"] == pytest.approx(gain.mean().item(), abs=0.01)
    assert figures["kinds"]["least energy"]["path_energy_speed_variation"] < 1e-3


def test_variance_preserving_codes_at_right_angles_keep_their_norm_at_an_even_rate() -> None:
    a, b = torch.eye(2, dtype=torch.float64).unsqueeze(1) * 2
    found = paths_between(identity, a, b, nodes=40, steps=3, starts=1)
    for kind in ("variance-preserving", "spherical"):
        assert found[kind].pullback_variation < 1e-6
        torch.testing.assert_close(found[kind].norm, torch.tensor([math.sqrt(2)]).double())
        # A quarter of a circle of radius 2.
        torch.testing.assert_close(
            found[kind].pullback_energy.mean(-1), torch.tensor([math.pi**2]).double(), rtol=1e-3, atol=0
        )
    torch.testing.assert_close(found["straight"].norm, torch.ones(1).double(), rtol=1e-3, atol=0)


def test_many_pairs_are_found_as_few() -> None:
    generator = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).double().eval()
    z_a, z_b = torch.randn(2, 20, 2, dtype=torch.float64)
    several = {"nodes": 6, "steps": 4, "starts": 2, "subpoints": 20}
    every, last = (paths_between(generator, a, b, **several) for a, b in ((z_a, z_b), (z_a[17:], z_b[17:])))
    for kind in KINDS:
        for whole, part in zip(every[kind], last[kind], strict=True):
            torch.testing.assert_close(whole[17:], part)


def test_bounds_and_gains_of_a_vae() -> None:
    fit = fitted()
    state, before = torch.get_rng_state(), small.weights(fit.model)
    found = interpolate(fit, **SMALL | {"nodes": 24, "steps": 40})
    assert torch.equal(torch.get_rng_state(), state)
    assert not small.changed(fit.model, before)
    assert found["kinds"].keys() == set(KINDS)
    for name, kind in (("path_energy", "least energy"), ("pullback_energy", "pull-back")):
        bound = found["bounds"][name]
        assert bound["held"] == bound["pairs"] == 3
        assert bound["lower"] <= bound["least"] <= bound["straight"]
        gains = found["pairs"][kind][f"{name}_gain_percent"]
        assert found["kinds"][kind][f"{name}_gain_percent"] == pytest.approx(sum(gains) / 3)
    assert found["kinds"]["least energy"]["path_energy_speed_variation"] < 0.02
    assert "held by 3 of 3 pairs" in repr(found)
    assert found.pictures.keys() == {"paths", "path_energies"}
    few = interpolate(fit, **SMALL | {"nodes": 24, "steps": 40, "pairs": 1})
    assert few["pairs"]["straight"]["path_energy"] == pytest.approx(found["pairs"]["straight"]["path_energy"][:1])
    assert "path_energy_se" not in few["kinds"]["straight"]


def test_a_conditional_model_is_asked_for_a_class() -> None:
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,), classes=2), family=Diagonal(2))
    fit = svi.fit(small.conditional(), guide, small.data_set(), steps=2, batch=20, progress=False)
    one, other = (interpolate(fit, **SMALL, label=label) for label in (0, 1))
    assert one["label"] == 0
    assert one["kinds"] != other["kinds"]
    with pytest.raises(UsageError, match="label"):
        interpolate(fit, **SMALL)


def test_the_command_writes_into_the_run_folder(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != "report.html"}
    main([str(run), *LINE])
    said = capsys.readouterr().out
    assert "held by" in said
    assert said.rstrip().endswith("report.html")
    made = {"paths.json", "paths.png", "path_energies.png", "report.html"}
    assert {path.name for path in run.iterdir()} - before.keys() == made
    assert all((run / name).read_bytes() == content for name, content in before.items())
    found = json.loads((run / "paths.json").read_text())
    assert (found["steps"], found["latents"], found["nodes"], found["descent_steps"]) == (4, 3, 8, 6)
    page = (run / "report.html").read_text()
    assert "Paths at step 4: kinds" in page
    assert "<tr><td>least energy</td><td>" in page
    assert "Paths at step 4: pairs" not in page, "lists are in the file"


@pytest.mark.parametrize("words", [{"pairs": 0}, {"nodes": 2}, {"starts": 0}, {"steps": 0}, {"label": 1}])
def test_words_that_mean_nothing_are_refused_in_python(words: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(words))):
        interpolate(fitted(), **SMALL | words)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nowhere", "not a run folder"),
        ("RUN --nodes 2", "nodes: found 2"),
        ("RUN --pairs 0", "--pairs"),
        ("RUN --label 1", "label: the run is not conditional"),
        ("RUN --device tpu", "--device"),
        ("RUN --seed -1", "--seed"),
        ("RUN --model my.py:Mine", "--model"),
    ],
)
def test_bad_input_ends_in_one_line(line: str, message: str, run: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    words = [str(run) if word == "RUN" else word for word in line.split()]
    assert message in small.refused(main, capsys, *words)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
