"""Fits side by side: bounds on the same images, surprise by the same text, samples; what cannot be compared."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from matplotlib.text import Text
from toys import general_ppca, points

from guides import Free
from ppl_models import UsageError
from runners import compare as command
from runners import gan, svi, text
from runners.compare import compare
from runners.comparisons import surprise
from runners.comparisons.surprise import mean_and_block_error
from runners.data import DataSet
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.text_fit import TextFit

quiet: dict[str, Any] = {"batch": 20, "progress": False}


@pytest.fixture(autouse=True)
def _brief_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.metrics.classifiers.LEAST_STEPS", 5)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return small.data_set()


@pytest.fixture(scope="module")
def bounds(data: DataSet) -> list[Fit]:
    torch.manual_seed(0)
    first = svi.fit(small.model(), small.amortized(), data, steps=40, **quiet)
    return [first, first.swap(small.amortized(), train_model=False).run(5)]


@pytest.fixture(scope="module")
def gans(data: DataSet) -> list[GanFit]:
    torch.manual_seed(0)
    return [gan.fit(*small.networks(), data, loss, steps=3, **quiet) for loss in ("gan", "hinge")]


@pytest.fixture(scope="module")
def readers() -> list[TextFit]:
    torch.manual_seed(0)
    data = small.text()
    return [text.fit(small.reader(data), data, steps=steps, **quiet) for steps in (3, 40)]


def written_in(figure: Any) -> str:
    return " ".join(found.get_text() for found in figure.findobj(Text))


def test_bounds_are_split_and_their_differences_add_up(bounds: list[Fit]) -> None:
    found = compare(*bounds, names=["long", "short"], images=50)
    assert list(found.elbo) == ["long", "short"]
    torch.testing.assert_close(found.elbo["short"], found.log_likelihood["short"] - found.kl["short"])
    by_hand = bounds[1].bounds(bounds[1].data.test.first(50)).elbo.double()
    torch.testing.assert_close(found.elbo["short"], by_hand)
    difference = found.elbo["short"] - found.elbo["long"]
    mean, error = found.difference("short")
    assert (mean, error) == (pytest.approx(difference.mean()), pytest.approx(difference.std() / 50**0.5))
    head, *rows = repr(found).splitlines()[1:]
    assert head.split()[:4] == ["ELBO", "log", "p(x|z)", "KL"]
    assert rows[1].endswith(f"{mean:+.2f} ± {error:.2f}")


def test_no_fit_is_lost_to_a_name(bounds: list[Fit]) -> None:
    first, second = bounds[:2]
    assert list(compare(first, second, second, names=["a 3", "a", "a"]).elbo) == ["a 3", "a", "a 4"]


def test_bounds_have_a_picture_whose_points_are_the_differences(bounds: list[Fit]) -> None:
    found = compare(*bounds, names=["long", "short"])
    figure = found.show()
    images, plot = figure.axes
    assert images.images, "reconstructions"
    assert {name: len(x) for name, x in found.reconstructions.items()} == {"test images": 10, "long": 10, "short": 10}
    assert torch.equal(found.reconstructions["test images"], next(bounds[0].data.test.first(10).in_order(10)).x)
    drawn = {bar.get_label(): bar.lines[0].get_xdata()[0] for bar in plot.containers}
    assert drawn["ELBO"] == pytest.approx(found.difference("short")[0])
    assert drawn["ELBO"] == pytest.approx(drawn["log p(x given z)"] + drawn["−KL"], abs=1e-4)
    assert f"long\n{float(found.elbo['long'].mean()):.2f}" in written_in(figure)
    # Points are where the row of images of their fit is.
    rows = dict(zip([tick.get_text() for tick in plot.get_yticklabels()], plot.get_yticks(), strict=True))
    (place,) = [at for label, at in rows.items() if label.startswith("short")]
    assert plot.containers[1].lines[0].get_ydata()[0] == pytest.approx(place)
    assert plot.get_ylim() == images.get_ylim()
    assert found._repr_html_().count("<img") == 1


def test_a_single_fit_and_data_that_cannot_be_drawn_have_a_picture_too(
    bounds: list[Fit],
) -> None:
    alone = compare(bounds[0])
    assert "minus" not in repr(alone)
    assert alone.show().axes
    x = torch.rand(20, 6, dtype=torch.float64)
    vectors = [Fit(general_ppca(), free, points(x, x), **quiet) for free in (Free(20, latents=2).double(),) * 2]
    other = compare(*vectors, updates=2)
    assert not other.reconstructions
    (plot,) = other.show().axes
    assert len(plot.containers) == 3


def test_texts_are_paired_by_character(readers: list[TextFit]) -> None:
    found = compare(*readers)
    assert list(found.nats) == ["CharGRU", "CharGRU 2"]
    by_hand = [fit.surprise(which="last").flatten().double() for fit in readers]
    torch.testing.assert_close(found.nats["CharGRU 2"] - found.nats["CharGRU"], by_hand[1] - by_hand[0])
    mean, error = found.difference("CharGRU 2")
    assert mean == pytest.approx(float((by_hand[1] - by_hand[0]).mean()))
    assert mean < -2 * error < 0
    said = repr(found)
    assert f"{mean:+.4f} ± {error:.4f}" in said
    assert "over 7 blocks of 114 characters" in said
    assert f"{float(by_hand[0].mean()) / math.log(2):.4f}" in said
    left, right = found.show().axes
    assert left.containers[0].lines[0].get_xdata()[0] == pytest.approx(mean)
    assert len(right.lines) == 2
    assert left.containers[0].has_xerr


def test_errors_by_blocks_are_those_of_a_series_whose_neighbours_are_alike() -> None:
    r"""Of x_t = ρ x_{t-1} + ε the mean has the variance σ² (1 + ρ) / (1 - ρ) / n; blind to ρ it would be σ² / n."""
    draws, n, rho = 200, 8_000, 0.8
    noise = torch.randn(draws, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    series = noise.clone()
    for before, now in pairwise(series.T):
        now += rho * before
    found = torch.tensor([mean_and_block_error(row)[1] for row in series[:40]])
    true = ((1 + rho) / (1 - rho) / (1 - rho**2) / n) ** 0.5
    assert float(series.mean(1).std()) == pytest.approx(true, rel=0.15)
    assert float(found.mean()) == pytest.approx(true, rel=0.06)


def test_a_short_text_has_no_errors(readers: list[TextFit]) -> None:
    mean, error = mean_and_block_error(torch.arange(150.0))
    assert (mean, error != error) == (74.5, True)
    values = {"A": torch.ones(150), "B": torch.zeros(150)}
    found = surprise.SurpriseComparison(values, dict.fromkeys(values, 1e-3), "a text")
    assert "±" not in repr(found)
    assert "too few characters" in repr(found)
    found.show()


def test_samples_of_gans_and_of_a_model_are_measured_by_one_classifier(
    gans: list[GanFit], bounds: list[Fit], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    make = command.compare_samples.__globals__["reporting"]
    monkeypatch.setitem(
        command.compare_samples.__globals__, "reporting", lambda *a, **k: made.append(make(*a, **k)) or made[-1]
    )
    found = compare(*gans, bounds[0], images=20)
    assert len(made) == 1
    assert list(found.figures) == ["gan", "hinge", "Amortized"]
    assert {figures["classifier"]["hash"] for figures in found.figures.values()} == {made[0].hash}
    lines = repr(found).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| real", "| gan", "| hinge", "| Amortized"]
    for column in ("kernel_distance", "precision", "recall"):
        assert column in lines[0]
    assert torch.equal(found.samples["hinge"], gans[1].samples(10))
    labels = [label.get_text() for label in found.show().axes[0].get_yticklabels()]
    assert labels == ["test images", "gan", "hinge", "Amortized"]


def test_what_cannot_be_compared_is_refused_in_one_line(
    bounds: list[Fit], gans: list[GanFit], readers: list[TextFit]
) -> None:
    other = small.text(test=500)
    short = TextFit(small.reader(other), other, **quiet)
    for fits, settings, said in (
        ([bounds[0], readers[0]], {}, "no figure in common"),
        ([gans[0], readers[0]], {}, "no figure in common"),
        ([readers[0], short], {}, "the same test text"),
        ([gans[0], GanFit(*small.networks(), small.data_set(test=40), **quiet)], {}, "the same test images"),
        (readers, {"images": 10}, "images: changes nothing where texts"),
        (readers, {"updates": 10}, "updates: changes nothing where texts"),
        (gans, {"updates": 10}, "updates: changes nothing where samples"),
        (bounds, {"classifiers": "runs/classifiers"}, "classifiers: changes nothing where bounds"),
        (bounds, {"names": ["one"]}, "names: found 1, expected 2"),
        ([], {}, "at least one fit"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            compare(*fits, **settings)
        assert "\n" not in str(refused.value)


def test_the_command_takes_every_kind_of_run_and_writes_where_it_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.text_summary.LENGTH", 20)
    for kind in ("summary", "gan_summary", "text_summary"):
        monkeypatch.setattr(f"runners.{kind}.final_figures", lambda *fit: {})
    blobs = ["--data", str(small.write_npz(tmp_path / "blobs.npz"))]
    tiny = ["--latents", "3", "--batch", "16", "--steps", "3", "--pictures", "0"]
    story = tmp_path / "story.txt"
    story.write_text("the cat bit the hen. " * 300)
    runs = {name: str(tmp_path / name) for name in ("vae", "gan", "text")}
    svi.main([*blobs, *tiny, "--guide", "amortized", "--model", "mlp", "--hidden", "8", "--out", runs["vae"]])
    gan.main([*blobs, *tiny, "--networks", "mlp", "--selection", "0", "--out", runs["gan"]])
    text.main(["--text", str(story), "--hidden", "8", "--steps", "3", "--out", runs["text"]])
    capsys.readouterr()
    samples = command.main([runs["gan"], runs["vae"], "--images", "20"])
    assert list(samples.figures) == ["gan", "vae"]
    before = {path for path in tmp_path.rglob("*") if "classifiers" not in path.parts}
    command.main([runs["text"], runs["text"]])
    assert before == {path for path in tmp_path.rglob("*") if "classifiers" not in path.parts}
    out = tmp_path / "deep" / "out"
    capsys.readouterr()
    found = command.main([runs["vae"], "--refine", "2", "--images", "12", "--out", str(out)])
    assert (out / "comparison.md").read_text() == f"{found!r}\n"
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out / "comparison.md"), str(out / "comparison.png")]
    assert "is not empty" in small.refused(command.main, capsys, runs["vae"], "--out", out)
    with pytest.raises(SystemExit):
        command.main([runs["vae"], runs["text"]])
    assert capsys.readouterr().err.splitlines()[-1].startswith("compare: found fits of a text and of images")
    assert "--free: is for runs of svi.py" in small.refused(command.main, capsys, runs["gan"], "--free", "3")
