"""Paths between the codes of a run: against the identity in closed form, and as a command."""

import json
import math
import shutil
from pathlib import Path

import pytest
import small
import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides import Amortized, Diagonal
from ppl_models import Critic, Generator, MLPDecoder, MLPEncoder, UsageError
from runners import gan, svi
from runners.interpolate import interpolate, main
from runners.interpolation import KINDS, figures_of, paths_between, table
from runners.loop.checkpoint import digest
from runners.metrics.measures import SETTINGS

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
    found = {}
    for count in (128, 256):
        found[count], lower = paths_between(identity, a, -a, nodes=count + 1, starts=1, subpoints=count + 1)
        torch.testing.assert_close(lower, {"path_energy": 8 * r2**2, "pullback_energy": 4 * r2})
        line = 8 * r2**2 * (1 + (1 - 1 / count**2) / 3)
        torch.testing.assert_close(found[count]["straight"].path_speed.mean(-1), line, rtol=1e-8, atol=0)
    coarse, fine = (found[count]["least energy"].path_speed.mean(-1) for count in found)
    least = 2 * r2**2 * (math.sqrt(2) + math.asinh(1)) ** 2
    torch.testing.assert_close((4 * fine - coarse) / 3, least, rtol=1e-8, atol=0)
    for kind in ("straight", "pull-back"):
        torch.testing.assert_close(found[256][kind].image_speed.mean(-1), 4 * r2, rtol=1e-8, atol=0)
        torch.testing.assert_close(found[256][kind].norm, torch.zeros_like(r2), rtol=0, atol=1e-8)
    figures = figures_of(found[256], lower)
    assert [figures["bounds"][name]["held"] for name in figures["bounds"]] == [2, 2]
    gain = 100 * (1 - least / (32 / 3 * r2**2))
    assert figures["kinds"]["least energy"]["path_energy_gain_percent"] == pytest.approx(gain.mean().item(), abs=0.01)
    assert figures["kinds"]["least energy"]["path_energy_speed_variation"] < 1e-3
    # The same for both pairs: the distance cancels.
    bound = figures["bounds"]["path_energy"]
    assert bound["straight_over_lower"] == pytest.approx(4 / 3, abs=1e-4)
    assert bound["least_over_lower"] == pytest.approx((math.sqrt(2) + math.asinh(1)) ** 2 / 4, abs=1e-4)
    assert bound["straight_over_lower_se"] == pytest.approx(0, abs=1e-9)


def test_variance_preserving_codes_at_right_angles_keep_their_norm_at_an_even_rate() -> None:
    a, b = torch.eye(2, dtype=torch.float64).unsqueeze(1) * 2
    found, _ = paths_between(identity, a, b, nodes=40, steps=3, starts=1)
    for kind in ("variance-preserving", "spherical"):
        assert found[kind].image_variation < 1e-6
        torch.testing.assert_close(found[kind].norm, torch.tensor([math.sqrt(2)]).double())
        # A quarter of a circle of radius 2.
        torch.testing.assert_close(
            found[kind].image_speed.mean(-1), torch.tensor([math.pi**2]).double(), rtol=1e-3, atol=0
        )
    torch.testing.assert_close(found["straight"].norm, torch.ones(1).double(), rtol=1e-3, atol=0)


def test_many_pairs_are_found_as_few() -> None:
    generator = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).double().eval()
    z_a, z_b = torch.randn(2, 20, 2, dtype=torch.float64)
    several = {"nodes": 6, "steps": 4, "starts": 2, "subpoints": 20}
    every, last = (paths_between(generator, a, b, **several) for a, b in ((z_a, z_b), (z_a[17:], z_b[17:])))
    for kind in KINDS:
        for whole, part in zip(every[0][kind], last[0][kind], strict=True):
            torch.testing.assert_close(whole[17:], part)
    torch.testing.assert_close({name: bound[17:] for name, bound in every[1].items()}, last[1])


def test_path_energies_are_between_images_that_are_given() -> None:
    """Of the identity, at codes that are no images: in closed form along the line, and in the bound."""
    a = torch.tensor([[0.6, 0.3]], dtype=torch.float64)
    x_a, x_b = torch.tensor([[[1.0, 0.2]], [[-0.4, 0.8]]], dtype=torch.float64)
    found, lower = paths_between(identity, a, -a, x_a, x_b, nodes=4, steps=2, starts=1, subpoints=4000)
    length, middle, apart = 4 * a.square().sum(), (x_a + x_b) / 2, (x_a - x_b).square().sum()
    # The mean of |z - m|² over z = (1 - 2t) a is |a|² / 3 + |m|².
    weight = 2 * (a.square().sum() / 3 + middle.square().sum()) + apart / 2
    torch.testing.assert_close(found["straight"].path_speed.mean(), weight * length, rtol=1e-6, atol=0)
    torch.testing.assert_close(lower["path_energy"].squeeze(), apart * length / 2)
    torch.testing.assert_close(lower["pullback_energy"].squeeze(), length)


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
    with pytest.raises(UsageError, match="label: the run is conditional, found None, expected 0 to 1"):
        interpolate(fit, **SMALL)
    ones = fit.data.test.labels.nonzero().squeeze(1)[:2].tolist()
    assert interpolate(fit, **SMALL, images=ones, label=1)["pairs_of_codes"] == 1
    with pytest.raises(UsageError, match=f"images: found {ones[0]} of class 1, expected class 0"):
        interpolate(fit, **SMALL, images=ones, label=0)


def test_paths_between_images(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[dict[str, Tensor]]] = []
    monkeypatch.setattr("runners.figures.filmstrips", lambda groups: drawn.append(groups) or Figure())
    fit, images = fitted(), [3, 1, 0, 4]
    x = fit.data.test.gather(torch.tensor(images)).x
    networks = Generator(MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(8,))), Critic(MLPEncoder(shape=(1, 8, 8)))
    adversarial = gan.fit(*networks, small.data_set(), steps=1, batch=16, progress=False)
    for of in (fit, adversarial):
        state = torch.get_rng_state()
        found = interpolate(of, **SMALL, images=images)
        assert torch.equal(torch.get_rng_state(), state)
        assert (found["images"], found["pairs_of_codes"], found["latents"]) == (images, 2, 2)
        assert found["bounds"]["path_energy"]["held"] == 2
        for pair, group in enumerate(drawn.pop()):
            for strip in group.values():
                assert torch.equal(strip[[0, -1]], x[2 * pair : 2 * pair + 2])
                if of is adversarial:
                    among = (adversarial.samples(200) - x[2 * pair]).square().mean((1, 2, 3))
                    assert (strip[1] - x[2 * pair]).square().mean() < among.min()
    for wrong in ([1], [], [0, 50], [-1, 0]):
        with pytest.raises(UsageError, match="images"):
            interpolate(fit, **SMALL, images=wrong)


def test_several_runs_end_in_a_table(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    samples = {of: of for of in SETTINGS} | {"frechet_distance": 12.5, "reverse_kl": 0.25, "classes_percent": 9}
    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / name)
    same = {"state": digest(*gan.load(run).pieces.values()), "samples": samples}
    (tmp_path / "a" / "assessment.json").write_text(json.dumps(same))
    (tmp_path / "b" / "assessment.json").write_text(json.dumps(same | {"state": "another"}))
    found = main([*(str(tmp_path / name) for name in ("a", "b")), *LINE])
    assert len(found) == 2
    said = capsys.readouterr().out.splitlines()
    header, _, first, second = (line for line in said if line.startswith("|"))
    assert header.count("|") == first.count("|") == 9
    bound, kinds = found[0]["bounds"]["path_energy"], found[0]["kinds"]
    cells = first.strip("| ").split(" | ")
    assert cells[0] == "a"
    assert cells[1] == f"{bound['straight_over_lower']:.3g} ± {bound['straight_over_lower_se']:.1g}"
    gain = kinds["least energy"]["path_energy_gain_percent"], kinds["least energy"]["path_energy_gain_percent_se"]
    assert cells[3] == f"{gain[0]:.3g} ± {gain[1]:.1g}"
    assert cells[4].startswith(f"{kinds['pull-back']['pullback_energy_gain_percent']:.3g} ± ")
    assert cells[5:] == ["12.5", "0.25", "9"]
    assert second.endswith("– | – | – |"), "samples of other weights"
    assert "3 pairs" in said[-1]
    assert "–: no samples" in said[-1]
    other = samples | {"images": 7}
    rows = table([("a", found[0], samples), ("b", found[1], other)])
    assert rows[3].endswith("– | – | – |"), "figures that are not comparable"


def test_a_generator_that_was_not_kept_is_refused(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert "best: no generator was selected" in small.refused(main, capsys, run, *LINE, "--which", "best")
    with pytest.raises(UsageError, match="which: found 'best' for a run that is no GAN"):
        interpolate(fitted(), **SMALL, which="best")


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
    assert found["state"] == digest(*gan.load(run).pieces.values())
    assert (found["steps"], found["latents"], found["nodes"], found["descent_steps"]) == (4, 3, 8, 6)
    page = (run / "report.html").read_text()
    assert "Paths at step 4: kinds" in page
    assert "<tr><td>least energy</td><td>" in page
    assert "Paths at step 4: pairs" not in page, "lists are in the file"


@pytest.mark.parametrize("words", [{"pairs": 0}, {"nodes": 2}, {"starts": 0}, {"steps": 0}, {"label": 1}])
def test_words_that_mean_nothing_are_refused_in_python(words: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(words))):
        interpolate(fitted(), **SMALL | words)


def test_damaged_looks_of_before_stop_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, broken in (("a", "{broken"), ("b", "[1]"), ("c", '{"state": "x", "samples": null}')):
        shutil.copytree(run, tmp_path / name)
        (tmp_path / name / "assessment.json").write_text(broken)
    main([*(str(tmp_path / name) for name in "abc"), *LINE])
    said = capsys.readouterr()
    assert sum(line.endswith("– | – | – |") for line in said.out.splitlines()) == 3
    assert said.err.count("assessment.json: not as a run writes it") == 2


def test_no_run_is_changed_before_all_are_known_to_fit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fit = svi.fit(small.model(), small.amortized(), small.data_set(), steps=1, batch=50, progress=False)
    fit.save(tmp_path / "vae")
    monkeypatch.setattr("runners.loading.svi.load", lambda folder, **_: fit)
    assert "which" in small.refused(main, capsys, run, tmp_path / "vae", "--which", "last", *LINE)
    assert not (run / "paths.json").exists()
