"""The command that inverts a run's generator, and what it says of minima."""

import json
from pathlib import Path

import pytest
import small
import torch

from ppl_models import Critic, Generator, Inversion, MLPDecoder, MLPEncoder, UsageError
from runners import gan, svi
from runners.gan_fit import GanFit
from runners.invert import invert, main
from runners.local_minima import planted_evidence, sentences

LINE = ["--images", "3", "--planted", "4", "--restarts", "6", "--steps", "20"]
SMALL = {"images": 3, "planted": 4, "restarts": 6, "steps": 20}


@pytest.fixture(scope="module")
def adversarial() -> GanFit:
    torch.manual_seed(0)
    networks = Generator(MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(8,))), Critic(MLPEncoder(shape=(1, 8, 8)))
    return gan.fit(*networks, small.data_set(), steps=1, batch=16, progress=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    line = ["--data", str(small.write_npz(tmp_path / "blobs.npz")), "--guide", "amortized", "--latents", "2"]
    svi.main(
        [*line, "--model", "mlp", "--hidden", "8", "--steps", "4", "--images", "12", "--out", str(tmp_path / "run")]
    )
    return tmp_path / "run"


def test_a_gan_is_inverted(adversarial: GanFit) -> None:
    before, state = small.weights(adversarial.generator), torch.get_rng_state()
    found = invert(adversarial, **SMALL)
    assert not small.changed(adversarial.generator, before)
    assert torch.equal(torch.get_rng_state(), state)
    planted, targets = found["planted"], found["targets"]
    assert planted["runs"] == 24
    assert planted["recovered"] == 4
    assert planted["success"] == pytest.approx(1 - planted["failed"] / 24)
    assert targets["runs"] == 18
    assert found.codes["targets"].z.shape == (6, 3, 2)
    assert [image["best_loss"] for image in targets["each"]] == found.codes["targets"].loss.amin(0).tolist()
    assert repr(found) == "\n".join([f"bars, {found['steps']} steps", *found["verdict"].values()])
    assert "4 of 4 planted images were recovered" in repr(found)
    assert found.pictures.keys() == {"inversion"}
    again = invert(adversarial, **SMALL)
    assert {k: v for k, v in again.items() if k != "settings"} == {k: v for k, v in found.items() if k != "settings"}
    mine = invert(adversarial, **SMALL | {"planted": 0}, targets=torch.rand(2, 1, 8, 8))
    assert mine["targets"]["images"] == 2
    assert mine["verdict"].keys() == {"targets"}


def test_runs_that_fail_the_control_are_told_apart() -> None:
    """One recovered, one at a local minimum, one on its way."""

    def wells(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 + 0.2 * (z.square() - 1), 0.5 + 0.2 * 0.18**0.5 * (z - 1)], -1)

    image = torch.full((1, 2), 0.5, dtype=torch.float64)
    z = torch.tensor([1.0, -0.9, 0.4], dtype=torch.float64).view(3, 1, 1)
    loss = (wells(z) - image).square().mean(-1)
    ones = torch.ones(3, 1, dtype=torch.float64)
    found = planted_evidence(wells, image, Inversion(z, loss, 0 * ones, loss, ones))
    assert (found["recovered"], found["failed"], found["minima"], found["smooth_minima"]) == (1, 2, 1, 1)
    assert found["restarts_for_95_percent"] == 8
    assert found["failed_loss"] == [loss[1].item(), loss[2].item()]
    said = sentences({"planted": found})["planted"]
    assert "33.3% of 3 runs" in said
    assert "the other 2 runs ended at no global minimum: 1 at local minima" in said
    nothing = planted_evidence(wells, image, Inversion(z[1:], loss[1:], 0 * ones[1:], loss[1:], ones[1:]))
    assert nothing["restarts_for_95_percent"] is None
    assert "restarts" not in sentences({"planted": nothing})["planted"]


@pytest.mark.parametrize("words", [{"images": 0}, {"restarts": 0}, {"planted": -1}, {"label": 3}, {"out": "nowhere"}])
def test_words_that_mean_nothing_are_refused_in_python(words: dict[str, object], adversarial: GanFit) -> None:
    (name,) = words
    with pytest.raises(UsageError, match="not a run folder" if name == "out" else name):
        invert(adversarial, **SMALL | words)


def test_targets_that_do_not_fit_are_refused(adversarial: GanFit) -> None:
    for targets in (torch.rand(2, 1, 8, 9), torch.rand(2, 1, 8, 8) + 1):
        with pytest.raises(UsageError, match="images"):
            invert(adversarial, **SMALL | {"planted": 0}, targets=targets)


def test_the_command_writes_into_the_run_folder(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != "report.html"}
    found = main([str(run), *LINE])
    said = capsys.readouterr().out
    assert "planted images were recovered" in said
    assert said.rstrip().endswith("report.html")
    assert {path.name for path in run.iterdir()} - before.keys() == {"inversion.json", "inversion.png", "report.html"}
    assert all((run / name).read_bytes() == content for name, content in before.items())
    assert json.loads((run / "inversion.json").read_text()) == found
    page = (run / "report.html").read_text()
    assert "Inversion at step 4: planted" in page
    assert "Inversion at step 4: targets" in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nowhere", "not a run folder"),
        ("RUN --images 0", "--images"),
        ("RUN --planted -1", "--planted"),
        ("RUN --restarts none", "--restarts"),
        ("RUN --device tpu", "--device"),
        ("RUN --label 3", "label"),
        ("RUN --model my.py:MyVAE", "--model: the model of"),
    ],
)
def test_bad_input_ends_in_one_line(line: str, message: str, run: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    places = {"RUN": str(run), "nowhere": str(run.parent / "nowhere")}
    assert message in small.refused(main, capsys, *(places.get(word, word) for word in line.split()))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
