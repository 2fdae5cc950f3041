"""The command that inverts a run's generator, and what it says of minima."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import small
import torch

import ppl_models
from guides import Amortized
from ppl_models import Critic, Generator, Inversion, MLPDecoder, MLPEncoder, UsageError
from runners import gan, svi
from runners.gan_fit import GanFit
from runners.invert import invert, main
from runners.local_minima import images_evidence, planted_evidence, sentences
from runners.loop.checkpoint import digest

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
    last = invert(adversarial, **SMALL | {"planted": 0}, which="last")
    assert last["settings"]["which"] == "last"
    assert last["state"] == found["state"] == digest(*adversarial.pieces.values())


def test_images_of_a_conditional_model_are_inverted_under_their_own_labels() -> None:
    """Of a decoder that draws one kind of bar for each label whatever the code: the wrong label would be seen."""
    torch.manual_seed(0)
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(8,), classes=2), latents=2)
    fit = svi.fit(small.conditional(), guide, small.data_set(), steps=150, batch=50, progress=False)
    few = SMALL | {"images": 7, "planted": 5}
    labels, x = fit.data.test.labels[:7], fit.data.test.gather(torch.arange(7)).x
    assert set(labels.tolist()) == {0, 1}
    found = invert(fit, **few)
    parts = {f"{part} of class {y}" for part in ("planted", "targets") for y in (0, 1)}
    assert found.codes.keys() == found["verdict"].keys() == parts
    assert found["planted of class 0"]["images"] + found["planted of class 1"]["images"] == 5
    for y in (0, 1):
        codes, own = found.codes[f"targets of class {y}"], x[labels == y]
        assert found[f"targets of class {y}"]["images"] == len(own)
        made = fit.model.double().decode(codes.z, torch.full(codes.z.shape[:-1], y)).mean
        fit.model.float()
        torch.testing.assert_close((made - own).square().mean((2, 3, 4)), codes.loss)
    assert repr(found).splitlines()[1].startswith("Class 0: ")
    of_class = fit.data.test.pixels[fit.data.test.labels == 1][:7] / 255
    one = invert(fit, **few, label=1)
    assert one.keys() >= {"planted", "targets"}
    mine = invert(fit, **few, label=1, targets=of_class)
    assert torch.equal(one.codes["targets"].z, mine.codes["targets"].z)
    with pytest.raises(UsageError, match="label: the run is conditional"):
        invert(fit, **few, targets=of_class)
    with pytest.raises(UsageError, match="label: the run is conditional, found 2, expected 0 to 1"):
        invert(fit, **few, label=2)


def test_without_a_run_a_gan_is_trained(
    adversarial: GanFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Trained(Exception):  # noqa: N818
        pass

    def quick(line: list[str]) -> None:
        raise Trained(line)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gan, "main", quick)
    with pytest.raises(Trained, match="--quick"):
        main(LINE)
    assert "training a quick GAN" in capsys.readouterr().err


DOUBLE = torch.float64


def wells(z: torch.Tensor) -> torch.Tensor:
    """For grey targets the loss is ((z² - 1)² + 0.18 (z - 1)²) / 50: minima at 1 and -0.9, a maximum at -0.1."""
    return torch.cat([0.5 + 0.2 * (z.square() - 1), 0.5 + 0.2 * 0.18**0.5 * (z - 1)], -1)


def wells_loss(z: float) -> float:
    return ((z * z - 1) ** 2 + 0.18 * (z - 1) ** 2) / 50


def test_runs_that_fail_the_control_are_told_apart() -> None:
    """One recovered, one at a local minimum, one on its way."""
    image = torch.full((1, 2), 0.5, dtype=DOUBLE)
    z = torch.tensor([1.0, -0.9, 0.4], dtype=DOUBLE).view(3, 1, 1)
    loss = (wells(z) - image).square().mean(-1)
    ones = torch.ones(3, 1, dtype=DOUBLE)
    found = planted_evidence(wells, image, Inversion(z, loss, 0 * ones, loss, ones))
    assert (found["recovered"], found["failed"], found["minima"], found["smooth_minima"]) == (1, 2, 1, 1)
    assert found["restarts_for_95_percent"] == 3, "the three that were made have one success for certain"
    assert found["restarts_at_pooled_rate"] == 8
    assert found["failed_loss"] == [loss[1].item(), loss[2].item()]
    said = sentences({"planted": found})["planted"]
    assert "33.3% of 3 runs, and 33.3% of the hardest image's; 3 restarts recover one" in said
    assert "the other 2 runs ended at no global minimum: 1 at local minima" in said
    assert "and 1 short of one" in said
    nothing = planted_evidence(wells, image, Inversion(z[1:], loss[1:], 0 * ones[1:], loss[1:], ones[1:]))
    assert nothing["restarts_for_95_percent"] is nothing["restarts_at_pooled_rate"] is None
    assert "all 2 restarts leave out more than 5 %" in sentences({"planted": nothing})["planted"]


def test_restarts_are_those_that_images_need_on_average() -> None:
    """Against all subsets of 8 runs: one easy image and one hard one need more than their pooled rate says."""
    solved = torch.zeros(8, 2, dtype=torch.bool)
    solved[:, 0], solved[[2, 5], 1] = True, True
    loss = torch.where(solved, 0.0, 1.0).double()
    z, image = torch.full((8, 2, 1), 0.4, dtype=DOUBLE), torch.full((2, 2), 0.5, dtype=DOUBLE)
    found = planted_evidence(wells, image, Inversion(z, loss, loss, loss, 1 + loss))

    def missed(count: int) -> float:
        drawn = [solved[list(some)].any(0) for some in combinations(range(8), count)]
        return 1 - float(torch.stack(drawn).double().mean())

    least = min(count for count in range(1, 9) if missed(count) <= 0.05)
    assert found["restarts_for_95_percent"] == least == 6
    assert found["restarts_at_pooled_rate"] == 4
    assert found["hardest_success"] == 0.25


def test_two_wells_are_said_to_be_two_minima() -> None:
    images = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=DOUBLE)
    z = torch.tensor([0.4, -0.9, 1.0, 1.0 + 1e-9], dtype=DOUBLE).view(4, 1, 1).expand(4, 2, 1)
    loss = (wells(z) - images).square().mean(-1)
    found = images_evidence(wells, images, Inversion(z, loss, loss, loss, torch.ones_like(loss)))
    assert (found["runs"], found["minima"], found["smooth_minima"], found["flat"]) == (8, 6, 6, 0)
    assert (found["with_several_clusters"], found["pairs"], found["pairs_with_barrier"]) == (2, 2, 2)
    for image in found["each"]:
        assert (image["settled"], image["clusters"], image["clusters_of_images"], image["at_best"]) == (3, 2, 2, 2)
        assert image["cluster_losses"] == pytest.approx([0, wells_loss(-0.9)])
        (rise,) = image["barriers"]
        assert rise["loss"] == pytest.approx(wells_loss(-0.9))
        assert rise["relaxed"] == pytest.approx(wells_loss(-0.1) - wells_loss(-0.9), rel=1e-3)
        assert rise["relative"] == pytest.approx(rise["relaxed"] / rise["loss"])
        assert rise["found"]
        assert rise["found_on_the_line"]
    assert found["median_relative_barrier"] == pytest.approx(wells_loss(-0.1) / wells_loss(-0.9) - 1, rel=1e-3)
    said = sentences({"targets": found})["targets"]
    assert "6 of 8 runs on 2 images ended at minima, 6 by gradient and Hessian, 0 at kinks" in said
    assert "rises in 2 of 2 pairs on the best path found (on the line in 2), there by" in said
    assert "different starts find different local minima" in said


@pytest.mark.parametrize("latents", [2, 10])
def test_a_ring_is_not_said_to_be_different_minima(latents: int) -> None:
    """A valley round the origin, in the first two latents, with a pixel that is never met."""

    def ring(z: torch.Tensor) -> torch.Tensor:
        radius = z[..., :2].square().sum(-1, keepdim=True)
        return torch.cat([0.5 + 0.2 * (radius - 1), 0.5 + 0.2 * z[..., 2:], 0.51 + 0 * radius], -1)

    images = torch.full((2, latents), 0.5, dtype=DOUBLE)
    inverted = ppl_models.invert(ring, images, latents=latents, restarts=10, steps=60)
    found = images_evidence(ring, images, inverted)
    assert (found["minima"], found["flat"], found["with_several_clusters"]) == (0, 20, 2)
    assert found["pairs"] == 6
    assert found["pairs_with_barrier"] == 0
    assert found["pairs_with_straight_barrier"] > 0
    assert found["median_relative_barrier"] is None
    said = sentences({"targets": found})["targets"]
    assert "0 of 20 runs on 2 images ended at minima" in said
    assert "20 more where it is flat in some direction" in said
    assert "no two are shown to be different minima, and they may be one valley" in said
    assert "different starts" not in said


def test_a_linear_generator_has_one_cluster_and_no_pairs() -> None:
    weight = torch.randn(2, 5, dtype=DOUBLE) / 10
    images = torch.rand(1, 5, dtype=DOUBLE)
    inverted = ppl_models.invert(lambda z: 0.5 + z @ weight.to(z), images, latents=2, restarts=5, steps=20)
    found = images_evidence(lambda z: 0.5 + z @ weight.to(z), images, inverted)
    assert (found["smooth_minima"], found["with_several_clusters"], found["pairs"]) == (5, 0, 0)
    (image,) = found["each"]
    assert (image["clusters"], image["at_best"], image["best_is_minimum"]) == (1, 5, True)
    assert found["highest_barrier_inside_a_cluster"] == pytest.approx(0, abs=1e-9)
    assert found["median_relative_barrier"] is found["median_barrier_to_another_image"] is None
    said = sentences({"targets": found})["targets"]
    assert "The runs of 0 of 1 images ended in several places. The least loss" in said


def test_what_did_not_settle_has_no_clusters() -> None:
    images = torch.full((2, 2), 0.5, dtype=DOUBLE)
    z = torch.tensor([0.4, 0.3], dtype=DOUBLE).view(2, 1, 1).expand(2, 2, 1)
    loss = (wells(z) - images).square().mean(-1)
    found = images_evidence(wells, images, Inversion(z, loss, loss, loss, torch.ones_like(loss)))
    assert (found["minima"], found["pairs"], found["each"][0]["clusters"]) == (0, 0, 0)
    assert not found["each"][1]["best_is_minimum"]
    assert "0 of 4 runs" in sentences({"targets": found})["targets"]


@pytest.mark.parametrize(
    "words",
    [
        {"images": 0},
        {"restarts": 0},
        {"planted": -1},
        {"steps": -1},
        {"label": 3},
        {"which": "best"},
        {"out": "nowhere"},
    ],
)
def test_words_that_mean_nothing_are_refused_in_python(words: dict[str, object], adversarial: GanFit) -> None:
    (name,) = words
    with pytest.raises(UsageError, match={"out": "not a run folder", "which": "best: no"}.get(name, name)):
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


def test_runs_that_slide_down_a_tail_for_ever_are_at_no_minimum() -> None:
    """The loss of an exponential falls to no end, where its gradient is 0 to rounding and its curvature positive."""

    def tail(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.3 + 0.02 * (-z).exp() * (z + 1.5), 0 * z + 0.2], -1)

    images = tail(torch.tensor([[-2.0], [-1.8]], dtype=DOUBLE))
    found = ppl_models.invert(tail, images, latents=1, restarts=16)
    assert 0 < (found.z > 2).sum() < 32
    control = planted_evidence(tail, images, found)
    assert (control["minima"], control["flat"]) == (0, 0)
    assert control["outside"] == control["failed"] > 0
    assert "0 at local minima" in sentences({"planted": control})["planted"]
    targets = images_evidence(tail, images, found)
    assert targets["outside"] == control["outside"]
    assert targets["minima"] + targets["flat"] + targets["outside"] <= targets["runs"]
    said = sentences({"targets": targets})["targets"]
    assert f"{targets['outside']} ran off to more than twice the length" in said


def test_nothing_settled_is_said_as_it_is() -> None:
    image, z = torch.full((1, 2), 0.5, dtype=DOUBLE), torch.full((1, 1, 1), 0.4, dtype=DOUBLE)
    loss = (wells(z) - image).square().mean(-1)
    said = sentences({"targets": images_evidence(wells, image, Inversion(z, loss, loss, loss, torch.ones_like(loss)))})
    assert "0 of 1 runs" in said["targets"]
    assert "several places" not in said["targets"]
