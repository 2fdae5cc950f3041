import json
from pathlib import Path

import pytest
import small
import torch
from torch import nn
from toys import Off, general_ppca, points, sampled

from guides import Amortized, AmortizedLadder, Diagonal, Echo, Flow, Free, FullRank, Refinement
from ppl_models import Batch, Ladder, MLPDecoder, MLPEncoder, UsageError
from runners import assess as command
from runners import gan, sample_quality, svi
from runners.assess import PARTS, assess, main
from runners.assessment import lines
from runners.data import Images
from runners.fit import Fit

SMALL = {"images": 12, "samples": 20, "chains": 2, "temperatures": (4,), "updates": 5}
LINE = ["--images", "12", "--samples", "20", "--chains", "2", "--temperatures", "4", "--updates", "5"]
PICTURES = {"assessment_gaps.png", "assessment_codes.png"}


@pytest.fixture(autouse=True)
def _few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.fit.REPORT", Refinement(steps=3))
    monkeypatch.setattr("guides.annealing.TUNING", 20)
    monkeypatch.setattr("runners.metrics.classifiers.LEAST_STEPS", 5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    line = ["--data", str(small.write_npz(tmp_path / "blobs.npz")), "--guide", "amortized", "--latents", "2"]
    svi.main(
        [*line, "--model", "mlp", "--hidden", "8", "--steps", "4", "--images", "12", "--out", str(tmp_path / "run")]
    )
    return tmp_path / "run"


def encoder() -> MLPEncoder:
    return MLPEncoder(shape=(1, 8, 8), hidden=(16,))


def fitted(guide: nn.Module, model: nn.Module | None = None) -> Fit:
    return svi.fit(model or small.model(), guide, small.data_set(), steps=3, batch=20, progress=False)


def test_everything_is_told_of_ppca() -> None:
    """Evidence by three ways, and the gaps, against closed forms; the guide is too wide."""
    model = general_ppca()
    x = sampled(model, 60)
    fit = Fit(model, Off(model, x, wider=0.4), points(x, x), train_model=False, progress=False, batch=20)
    parts = ["importance", "annealing", "gaps", "codes"]
    found = assess(fit, parts=parts, split="train", images=60, samples=2000, temperatures=(20, 200), updates=300)
    exact = model.evidence(x).mean().item()
    assert found["importance"]["log_evidence"] == pytest.approx(exact, abs=0.02)
    annealed = found["annealing"]["by_temperatures"]
    assert annealed["200"]["log_evidence"] == pytest.approx(exact, abs=0.05)
    assert annealed["200"]["minus_importance"] == pytest.approx(0, abs=0.05)
    assert 0 < annealed["200"]["simulated"]["gap"] < annealed["20"]["simulated"]["gap"]
    split, mean_field = found["gaps"], model.mean_field_gap().item()
    assert split["best"]["full-rank"]["approximation"] == pytest.approx(0, abs=0.02)
    assert split["approximation"] == pytest.approx(mean_field, abs=4 * split["approximation_se"])
    assert split["approximation"] + split["amortization"] == pytest.approx(split["gap"])
    full, own = split["best"]["full-rank"], split["best"][split["family"]]
    assert full["minus_own"] == pytest.approx(full["elbo"] - own["elbo"])
    assert full["minus_own_se"] < 0.5 * full["elbo_se"]
    assert "minus_own" not in own
    limit = torch.tensor(60.0).log().item()
    assert found["codes"]["limit"] == pytest.approx(limit)
    assert 0 < found["codes"]["mutual_information"] < limit
    assert found.pictures.keys() == {"annealing", "gaps", "codes"}
    for part in parts:
        assert found[part]["images"] == 60


GUIDES = {
    "free": lambda: Free(small.data_set().train, latents=2),
    "semi-amortized": small.semi_amortized,
    "full rank": lambda: Amortized(encoder=encoder(), family=FullRank(2)),
    "flow": lambda: Amortized(encoder=encoder(), family=Flow(2, hidden=(8,), context=3)),
}


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_with_a_density_is_assessed(guide: str) -> None:
    found = assess(fitted(GUIDES[guide]()), **SMALL, start="prior")
    assert not any("refused" in found[part] for part in PARTS)
    assert all(torch.tensor(found["gaps"][name]).isfinite() for name in ("gap", "amortization", "approximation"))
    families = {"full rank": "full-rank", "flow": "flow"}
    assert found["gaps"]["family"] == families.get(guide, "diagonal")
    assert {"diagonal", "full-rank"} <= found["gaps"]["best"].keys()
    assert str(found) == repr(found) == "\n".join(lines(found))


def test_several_layers_have_gaps_of_their_own_family_alone() -> None:
    decoder = MLPDecoder(latents=3, shape=(1, 8, 8), hidden=(8,))
    guide = AmortizedLadder(latents=(3, 2), hidden=(8,), encoder=encoder())
    found = assess(fitted(guide, Ladder(latents=(3, 2), hidden=(8,), decoder=decoder)), **SMALL)
    assert not any("refused" in found[part] for part in PARTS)
    assert found["gaps"]["best"].keys() == {"diagonal"}
    assert found["codes"]["active_units"].keys() == {"z1", "z2"}


def test_class_conditional_models_are_assessed() -> None:
    guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,), classes=2), family=Diagonal(2))
    found = assess(fitted(guide, small.conditional()), **SMALL)
    assert not any("refused" in found[part] for part in PARTS)


def test_echo_has_codes_and_the_rest_says_why_not() -> None:
    fit = fitted(Amortized(encoder=encoder(), family=Echo(2, depth=9)))
    found = assess(fit, **SMALL)
    assert {part for part in PARTS if "refused" in found[part]} == {"importance", "annealing", "gaps"}
    assert found["codes"]["marginal_kl"] == 0
    assert found["codes"]["limit"] is None
    assert "no density" in repr(found)
    for part in ("importance", "annealing", "gaps"):
        with pytest.raises(UsageError, match="density"):
            assess(fit, parts=[part], **SMALL)


def test_assessing_changes_nothing_in_a_fit() -> None:
    fit = fitted(small.amortized())
    before, state = {**small.weights(fit.model), **small.weights(fit.guide)}, torch.get_rng_state()
    first = assess(fit, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    again = assess(fit, **SMALL)
    for part in PARTS:
        assert first[part] | {"seconds": 0} == again[part] | {"seconds": 0}
    other = assess(fit, parts=["importance"], **SMALL, seed=1)
    assert other["importance"]["log_evidence"] != first["importance"]["log_evidence"]
    assert not small.changed(fit.model, before)
    assert not small.changed(fit.guide, before)


def test_free_rows_start_where_training_left_them_on_training_images_alone() -> None:
    data = small.data_set()
    fit = svi.fit(small.model(), Free(data.train, latents=2), data, steps=40, batch=20, progress=False)
    found = {
        split: assess(fit, parts=["importance"], split=split, **SMALL)["importance"] for split in ("train", "test")
    }
    kept, anew = (
        fit.evidence(data.train.first(12), samples=20, rows=rows).elbo.mean().item() for rows in (True, False)
    )
    assert found["train"]["elbo"] == pytest.approx(kept)
    assert kept != pytest.approx(anew)
    assert found["test"]["elbo"] == pytest.approx(fit.evidence(data.test.first(12), samples=20).elbo.mean().item())


def test_figures_go_into_a_folder_that_is_named(run: Path, tmp_path: Path) -> None:
    fit = svi.load(run)
    assess(fit, parts=["importance"], **SMALL, out=run)
    found = json.loads((run / "assessment.json").read_text())["importance"]
    assert (found["seed"], found["device"], found["split"]) == (0, str(fit.device), "test")
    assert fit.folder is None


def test_all_parts_are_about_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though those of training images are drawn anew for each batch."""
    data = small.data_set(fresh=True)
    fit = svi.fit(small.model(), small.amortized(), data, steps=3, batch=20, progress=False)
    seen: list[torch.Tensor] = []
    gather = Images.gather

    def noted(images: Images, rows: torch.Tensor) -> Batch:
        batch = gather(images, rows)
        seen.append(batch.x[batch.index == 7].flatten())
        return batch

    monkeypatch.setattr(Images, "gather", noted)
    settings = SMALL | {"images": 30, "temperatures": (2, 3)}
    for chains, seed in ((2, 0), (300, 1)):  # all images at once, or two of them
        assess(
            fit,
            parts=["importance", "annealing", "codes"],
            split="train",
            **settings | {"chains": chains, "seed": seed},
        )
    pixels = [x for x in seen if len(x)][1:]  # the first is asked for whether values are grey
    assert len(pixels) > 10
    assert all(torch.equal(x, pixels[0]) for x in pixels)


def test_a_guides_start_may_hold_what_cannot_be_searched() -> None:
    """Labels, or what its sample does not use."""

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Amortized(encoder=encoder(), family=Diagonal(2))
            self.family = self.inner.family

        def start(self, batch: Batch) -> dict[str, torch.Tensor]:
            return self.inner.start(batch) | {"y": batch.y, "idle": torch.zeros(len(batch.index), 3)}

        def sample(self, batch: Batch, params: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.inner.sample(batch, params)

        def forward(self, batch: Batch) -> torch.Tensor:
            return self.sample(batch, self.start(batch))

    found = assess(fitted(Mine()), **SMALL)
    assert not any("refused" in found[part] for part in PARTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"parts": ["everything"]}, "parts: found 'everything'"),
        ({"parts": []}, "parts: found ''"),
        ({"split": "valid"}, "split: found 'valid'"),
        ({"start": "encoder"}, "start: found 'encoder'"),
        ({"precision": "fp16"}, "precision: found 'fp16'"),
        ({"images": 0}, "images: found 0"),
        ({"samples": 0}, "samples: found 0"),
        ({"temperatures": ()}, "temperatures: found"),
        ({"temperatures": 5}, "temperatures: found 5"),
        ({"out": "nowhere/new"}, "nowhere/new: not a run folder"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_python(words: dict[str, object], message: str) -> None:
    parts = {"parts": ["annealing"]} if "temperatures" in words else {}
    with pytest.raises(UsageError, match=message):
        assess(fitted(small.amortized()), **SMALL | parts | words)


def test_figures_of_another_fit_are_dropped(run: Path) -> None:
    fit = svi.load(run)
    assess(fit, parts=["importance"], **SMALL, out=run)
    assess(fit, parts=["codes"], **SMALL, out=run)
    assert {"importance", "codes"} <= json.loads((run / "assessment.json").read_text()).keys()
    other = svi.load(run)
    with torch.no_grad():
        next(other.guide.parameters()).add_(0.1)
    assess(other, parts=["gaps"], **SMALL, out=run)
    assert json.loads((run / "assessment.json").read_text()).keys() == {"data", "steps", "state", "gaps"}


def test_a_broken_assessment_is_written_anew(run: Path, capsys: pytest.CaptureFixture) -> None:
    (run / "assessment.json").write_text("{")
    main([str(run), "--parts", "codes", "--images", "12"])
    assert "written anew" in capsys.readouterr().err
    assert "codes" in json.loads((run / "assessment.json").read_text())


def test_samples_of_a_vae_and_a_gan_in_one_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    make = sample_quality.classifier

    def brief(data: object, **settings: object) -> object:
        trained.append(settings["seed"])
        return make(data, **settings)

    monkeypatch.setattr(sample_quality, "classifier", brief)
    line = ["--data", str(tmp_path / "blobs.npz"), "--networks", "mlp", "--latents", "3", "--batch", "16"]
    gan.main([*line, "--steps", "4", "--selection", "2", "--pictures", "0", "--out", str(tmp_path / "gan")])
    capsys.readouterr()
    first, second = main([str(run), str(tmp_path / "gan"), "--parts", "samples", "--images", "20"])
    said = capsys.readouterr().out.splitlines()
    table = [text for text in said if text.startswith("| ")]
    names = [text.split(" | ")[0].removeprefix("| ").partition(",")[0] for text in table]
    assert names[2:] == ["real", "run", "gan", "gan"]
    assert first["samples"]["images"] == second["samples"]["images"] == 20
    assert first["samples"]["real"] == second["samples"]["real"]
    assert first["samples"]["classifier"] == second["samples"]["classifier"]
    assert set(trained) == {0}, "what reports has not chosen"
    assert {path.name.rpartition("-")[2] for path in (tmp_path / "classifiers").iterdir()} == {"0.pt", "1.pt"}
    found = json.loads((tmp_path / "gan" / "assessment.json").read_text())
    assert found["samples"]["best"]["step"] in (2, 4)
    assert "importance: a GAN has no density" in small.refused(main, capsys, tmp_path / "gan", "--parts", "importance")
    assert "--model" in small.refused(main, capsys, tmp_path / "gan", "--model", "my.py:Mine")


def test_runs_that_differ_in_their_seed_alone_are_one_row() -> None:
    same = [{"loss": "gan", "seed": seed, "options": {"seed": seed, "init": "glorot"}, "done": 9} for seed in range(3)]
    other = same[0] | {"loss": "hinge"}
    found = [{"recall": value, "reverse_kl": None, "images": 10} for value in (0.2, 0.4, 0.9, 0.1)]
    ((name, row),) = sample_quality.over_seeds(list(zip([*same, other], found, strict=True)))
    assert name == "mean ± standard deviation of 3 seeds"
    assert row["recall"] == pytest.approx(0.5)
    assert row["recall_se"] == pytest.approx(0.13**0.5)
    assert row["reverse_kl"] is None
    first = same[0]
    unlike = {"seed": 1, "done": 5}, {"seed": 1, "options": {"init": "torch"}}, {}
    for change in unlike:
        assert sample_quality.over_seeds([(first, found[0]), (first | change, found[1])]) == []


def test_samples_are_the_models(run: Path) -> None:
    fit = svi.load(run)
    drawn = fit.samples(600)
    assert drawn.shape == (600, 1, 28, 28)
    assert torch.equal(drawn, fit.samples(600))
    assert not torch.equal(drawn, fit.samples(600, seed=1))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}, "the data are binary"
    grey = fitted(small.amortized())
    assert 0 < grey.samples(5).unique().numel() != 2
    labelled = fitted(
        Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,), classes=2), family=Diagonal(2)), small.conditional()
    )
    assert labelled.samples(70).shape == (70, 1, 8, 8)


def test_half_precision_is_near() -> None:
    fit = fitted(small.amortized())
    full, half = (assess(fit, parts=["importance"], **SMALL, precision=p) for p in ("float32", "bf16"))
    difference = full["importance"]["log_evidence"] - half["importance"]["log_evidence"]
    assert 0 < abs(difference) < 0.5


def test_the_command_writes_into_the_run_folder(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != "report.html"}
    main([str(run), *LINE])
    said = capsys.readouterr().out
    assert "log p(x)" in said
    assert said.rstrip().endswith("report.html")
    assert {path.name for path in run.iterdir()} - before.keys() == {"assessment.json", "report.html"} | PICTURES
    assert all((run / name).read_bytes() == content for name, content in before.items())
    page = (run / "report.html").read_text()
    assert "Assessment at step 4: gaps" in page
    found = json.loads((run / "assessment.json").read_text())
    assert found.keys() == {"data", "steps", "state", *PARTS}

    main([str(run), "--parts", "importance", "--images", "5", "--samples", "10"])
    later = json.loads((run / "assessment.json").read_text())
    assert (later["importance"]["images"], later["importance"]["samples"]) == (5, 10)
    assert {part: later[part] for part in PARTS if part != "importance"} == {
        part: found[part] for part in PARTS if part != "importance"
    }


def test_figures_of_an_older_checkpoint_are_dropped(run: Path) -> None:
    main([str(run), "--parts", "codes", "--images", "12"])
    found = json.loads((run / "assessment.json").read_text())
    (run / "assessment.json").write_text(json.dumps(found | {"steps": 3}))
    main([str(run), "--parts", "importance", *LINE])
    assert json.loads((run / "assessment.json").read_text()).keys() == {"data", "steps", "state", "importance"}
    assert not (run / "assessment_codes.png").exists()


def test_what_was_found_survives_a_later_failure(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "annealing", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([str(run), *LINE])
    assert ended.value.code == 130
    assert json.loads((run / "assessment.json").read_text()).keys() == {"data", "steps", "state", "importance"}


def test_the_newest_run_or_a_quick_one(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    trained = []

    def quick(line: list[str]) -> Fit:
        trained.append(line)
        fit = svi.load(run)
        fit.save(tmp_path / "runs" / "quick")
        return fit

    monkeypatch.setattr(svi, "main", quick)
    main(["--parts", "codes", "--images", "12"])
    assert trained == [["--guide", "amortized", "--quick"]]
    assert (tmp_path / "runs" / "quick" / "assessment.json").exists()
    run.rename(tmp_path / "runs" / "a")
    main(["--parts", "codes", "--images", "12"])
    assert len(trained) == 1
    assert (tmp_path / "runs" / "a" / "assessment.json").exists()


def test_a_users_own_model_is_named_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from ppl_models import VAE, MLPDecoder\n"
        "def made(): ...\n"
        "class Mine(VAE):\n"
        "    def __init__(self):\n"
        "        super().__init__(decoder=MLPDecoder(latents=2, hidden=(4,)))\n"
    )
    line = ["--data", str(small.write_npz(tmp_path / "blobs.npz")), "--model", f"{mine}:Mine", "--guide", "amortized"]
    svi.main([*line, "--steps", "2", "--images", "12", "--out", str(tmp_path / "own")])
    assert "Mine" in small.refused(main, capsys, tmp_path / "own", *LINE)
    found = main([str(tmp_path / "own"), "--model", f"{mine}:Mine", *LINE])
    assert not any("refused" in found[part] for part in PARTS)
