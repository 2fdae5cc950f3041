"""Figures show what they were given, where they should; the report holds everything and loads nothing."""

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from runners.figures import (
    curves,
    grid,
    interpolation,
    latent_plane,
    panels,
    png_bytes,
    reconstruction_rows,
    report,
    save,
)


def flat(*values: float | tuple[float, float, float], side: int = 28) -> Tensor:
    """Images of one grey each (numbers) or one colour each (triples)."""
    channels = torch.tensor([value if isinstance(value, tuple) else (value,) for value in values])
    return channels[..., None, None].expand(-1, -1, side, side).float()


def pixels(figure: Figure) -> np.ndarray:
    """The figure's file as (H, W, 3) bytes."""
    image = matplotlib.image.imread(io.BytesIO(png_bytes(figure)), format="png")
    return np.rint(image[..., :3] * 255).astype(int)


def colours(figure: Figure, row: int, *, of: int, columns: int) -> list[tuple[int, ...]]:
    """The colours in the middle of each image of a row of an untitled grid."""
    picture = pixels(figure)
    down = int(picture.shape[0] * (row + 0.5) / of)
    return [tuple(picture[down, int(picture.shape[1] * (i + 0.5) / columns)].tolist()) for i in range(columns)]


def test_grid_shows_the_images_in_reading_order() -> None:
    figure = grid(flat(0.0, 0.2, 0.4, 0.6, 0.8), columns=3)
    assert colours(figure, 0, of=2, columns=3) == [(0,) * 3, (51,) * 3, (102,) * 3]
    assert colours(figure, 1, of=2, columns=3) == [(153,) * 3, (204,) * 3, (255,) * 3]


def test_grid_shows_rgb_as_rgb() -> None:
    figure = grid(flat((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.2, 1.0)), columns=3)
    assert colours(figure, 0, of=1, columns=3) == [(255, 0, 0), (0, 255, 0), (0, 51, 255)]


@pytest.mark.parametrize(("side", "columns", "dpi"), [(28, 8, 150), (28, 7, 300), (32, 5, 150), (64, 3, 150)])
def test_every_image_pixel_is_equally_large(side: int, columns: int, dpi: int) -> None:
    checkers = (torch.arange(side)[:, None] + torch.arange(side)) % 2
    figure = grid(checkers.expand(columns, 1, side, side).float(), columns=columns)
    image = matplotlib.image.imread(io.BytesIO(png_bytes(figure, dpi=dpi)), format="png")[..., 0]
    assert set(np.unique(image)) == {0.0, 1.0}
    scale = image.shape[0] // (side + 2 * max(1, side // 14))
    middle = image[image.shape[0] // 2]
    runs = np.diff(np.flatnonzero(np.diff(middle)))
    assert scale >= 2
    assert image.shape[1] == scale * (columns * side + (columns + 1) * max(1, side // 14))
    # White runs next to the white separators are longer, black ones never are.
    assert runs.min() == scale
    assert (runs == scale).mean() > 0.9


def test_panels_are_titled_and_equally_large() -> None:
    black, grey, red = flat(*[0.0] * 6), flat(*[0.4] * 6), flat(*[(1.0, 0.0, 0.0)] * 6)
    figure = panels({"data": black, "reconstructions": grey, "samples": red}, columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["data", "reconstructions", "samples"]
    assert len({axes.bbox.size.round(3).tobytes() for axes in figure.axes}) == 1
    picture = pixels(figure)
    middle = picture[picture.shape[0] * 2 // 3]
    thirds = np.array_split(middle, 3)
    shown = [{tuple(pixel) for pixel in third.tolist()} - {(255, 255, 255)} for third in thirds]
    assert shown == [{(0, 0, 0)}, {(102, 102, 102)}, {(255, 0, 0)}]


def test_panels_of_unequal_numbers_stay_apart() -> None:
    figure = panels({"one image under a rather long title": flat(0.0), "nine": flat(*[0.0] * 9)}, columns=3)
    first, second = (axes.get_tightbbox() for axes in figure.axes)
    assert first.x0 >= 0
    assert first.x1 < second.x0
    assert second.x1 <= figure.bbox.x1


@pytest.mark.parametrize("label", ["q", "reconstruction", "a long label: reconstruction"])
def test_rows_carry_their_labels_at_their_height(label: str) -> None:
    data, reconstruction = flat(0.0, 0.2, 0.4), flat((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    figure = reconstruction_rows({"x": data, label: reconstruction})
    (axes,) = figure.axes
    labels = {text.get_text(): text for text in axes.get_yticklabels()}
    picture = pixels(figure)
    for name, expected in {"x": (0, 0, 0), label: (255, 0, 0)}.items():
        box = labels[name].get_window_extent()
        assert box.x0 >= 0
        line = picture[int(picture.shape[0] - (box.y0 + box.y1) / 2), int(box.x1) + 2 :]
        coloured = line[(line != 255).any(axis=1)]
        assert tuple(coloured[0].tolist()) == expected


def test_interpolation_labels_columns_with_their_weights() -> None:
    weights = torch.linspace(0, 1, 11)
    figure = interpolation(weights.view(1, 11, 1, 1, 1).expand(4, 11, 1, 28, 28), weights=weights)
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert "a" in axes.get_xlabel()
    picture = pixels(figure)
    assert axes.xaxis.label.get_window_extent().y0 >= 0
    for place, label in zip(axes.get_xticks(), labels, strict=True):
        across = int(axes.transData.transform((place, 0))[0])
        assert abs(picture[20, across, 0] - 255 * float(label)) <= 1


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 10, 12])
def test_interpolation_labels_both_ends_once(steps: int) -> None:
    weights = [i / max(1, steps - 1) for i in range(steps)]
    figure = interpolation(torch.zeros(2, steps, 3, 8, 8), weights=weights)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == len(set(labels)) <= 6
    assert (labels[0], float(labels[-1])) == ("0", weights[-1])


@pytest.mark.parametrize(
    "images",
    [torch.zeros(28, 28), torch.zeros(2, 2, 28, 28), torch.zeros(0, 1, 28, 28), torch.zeros(1, 1, 8, 8).byte()],
)
def test_what_is_no_batch_of_images_is_refused_with_its_shape(images: Tensor) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tuple(images.shape)))):
        grid(images)


def test_mismatched_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="3 weights"):
        interpolation(torch.zeros(2, 4, 1, 8, 8), weights=[0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=re.escape("(2, 8, 8)")):
        reconstruction_rows({"data": torch.zeros(2, 1, 8, 8), "sample": torch.zeros(3, 1, 8, 8)})
    with pytest.raises(ValueError, match="no rows"):
        reconstruction_rows({})
    with pytest.raises(ValueError, match="none"):
        panels({})


def logged(count: int = 101, **columns: Callable[[int], float]) -> list[dict[str, float]]:
    """A run whose ELBO starts with a spike at -5,000 and ends at -100."""
    rows = []
    for i in range(count):
        likelihood = -80 - 40 * math.exp(-i / 10) - 4880 * (i == 0)
        kl = 20 + math.exp(-i / 10)
        row = {"step": 100 * i, "loss": kl - likelihood, "elbo": likelihood - kl}
        row |= {"log_likelihood": likelihood, "kl": kl, "seconds": float(i)}
        rows.append(row | {name: column(i) for name, column in columns.items()})
    return rows


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_curves_draw_the_terms_against_the_step() -> None:
    rows = logged(kl_weight=lambda i: 1.0)
    figure = curves(rows)
    elbo, likelihood, kl = figure.axes
    assert (elbo.get_title(), kl.get_title()) == ("ELBO", "KL")
    assert "log p(x | z)" in likelihood.get_title()
    assert elbo.get_ylabel() == "nats per image"
    line = elbo.lines[0]
    assert line.get_xdata()[-1] == 10_000
    assert line.get_ydata()[-1] == rows[-1]["elbo"]
    png_bytes(figure)
    assert "10,000" in [label.get_text() for label in elbo.get_xticklabels()]


def test_curves_draw_other_columns_only_where_they_vary() -> None:
    figure = curves(logged(kl_weight=lambda i: min(1.0, i / 50), lagrange_multiplier=lambda i: 2.0))
    assert titles(figure)[3:] == ["KL weight"]
    assert figure.axes[3].get_ylabel() == ""
    loss_only = curves([{"step": i, "loss": 1.0 / (i + 1), "critic_gap": float(i)} for i in range(5)])
    assert titles(loss_only) == ["loss", "critic gap"]


def test_an_initial_spike_leaves_the_view_and_the_rest_stays() -> None:
    rows = logged()
    low, high = curves(rows).axes[0].get_ylim()
    late = [row["elbo"] for row in rows if row["step"] > 500]
    assert rows[0]["elbo"] < low < min(late)
    assert max(late) < high
    assert high - low < 1.3 * (max(late) - min(late))


def test_without_a_spike_everything_is_in_view() -> None:
    ramp = logged(kl_weight=lambda i: min(1.0, i / 50), warm=lambda i: min(1.0, i / 3))
    for axes, lowest in zip(curves(ramp).axes[3:], (0.0, 0.0), strict=True):
        low, high = axes.get_ylim()
        assert low < lowest < 1.0 < high


def test_a_legend_only_where_there_are_several_runs() -> None:
    alone = curves(logged())
    assert not alone.legends
    assert all(axes.get_legend() is None for axes in alone.axes)
    published = [{"step": 1000 * i, "elbo": -100.0 - i} for i in range(4)]
    figure = curves({"VAE": logged(), "published": published, "later": []})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["VAE", "published", "later (no rows yet)"]
    assert list(figure.axes[0].lines[1].get_ydata()) == [row["elbo"] for row in published]
    assert len(figure.axes[1].lines[1].get_ydata()) == 0


def test_references_are_labelled_levels_in_view() -> None:
    figure = curves(logged(), references={"elbo: published": -50.0, "kl": 20.5, "fid": 3.0})
    elbo, likelihood, kl = figure.axes
    assert [text.get_text() for text in elbo.get_legend().get_texts()] == ["published -50.00"]
    assert set(elbo.lines[1].get_ydata()) == {-50.0}
    assert elbo.get_ylim()[0] < -50.0 < elbo.get_ylim()[1]
    assert likelihood.get_legend() is None
    assert [text.get_text() for text in kl.get_legend().get_texts()] == ["reference 20.50"]


def test_a_reference_of_a_run_has_its_colour() -> None:
    figure = curves({"a": logged(), "b": logged()}, references={"kl: b": 20.5, "kl: other": 21.0})
    kl = figure.axes[2]
    lines = {tuple(set(line.get_ydata())): line for line in kl.lines[2:]}
    assert lines[(20.5,)].get_color() == kl.lines[1].get_color()
    assert lines[(20.5,)].get_linestyle() == "--"
    assert [text.get_text() for text in kl.get_legend().get_texts()] == ["other 21.00"]
    assert [line.get_label() for line in figure.legends[0].legend_handles] == ["a", "b"]


def test_the_latent_plane_has_the_priors_circles_and_all_but_stray_codes() -> None:
    codes = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    labels, samples = torch.arange(500) % 3, {"far": torch.zeros(7, 2)}
    figure = latent_plane({"near": codes, "far": 20 * codes}, labels=labels, samples=samples, image=torch.rand(1, 5, 5))
    near, far = figure.axes
    for axes, spread in ((near, 1), (far, 20)):
        assert [patch.radius for patch in axes.patches] == [1, 2, 3]
        low, high = axes.get_xlim()
        assert axes.get_ylim() == (low, high) == (-high, high)
        assert ((spread * codes).abs().amax(1) < high).double().mean() >= 0.99
    assert len(far.collections) == len(near.collections) + 1
    assert len({tuple(colour) for colour in near.collections[0].get_facecolors()}) == 3
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["0", "1", "2", "prior, radius 1, 2, 3", "posterior samples of one image"]


@pytest.mark.parametrize("rows", [[], {}, {"VAE": [], "free": []}])
def test_without_rows_the_figure_says_so(rows: Any) -> None:
    figure = curves(rows, title="VAE")
    assert "no rows yet" in [text.get_text() for text in figure.texts]
    assert png_bytes(figure)


def test_one_row_is_a_visible_point_over_its_step() -> None:
    figure = curves(logged(1), references={"elbo": -90.0})
    line = figure.axes[0].lines[0]
    assert (len(line.get_xdata()), line.get_marker()) == (1, "o")
    png_bytes(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0"]


def test_what_is_not_finite_is_left_out() -> None:
    rows = logged(20)
    rows[7]["elbo"], rows[8]["elbo"] = math.nan, -math.inf
    figure = curves(rows)
    assert len(figure.axes[0].lines[0].get_ydata()) == 18
    assert png_bytes(curves([row | {"kl": math.nan} for row in rows]))


def test_save_writes_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    figure = grid(flat(0.0, 1.0))
    save(figure, tmp_path / "samples.png")
    written = (tmp_path / "samples.png").read_bytes()
    assert written == png_bytes(grid(flat(0.0, 1.0)))
    assert b"Software" not in written
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with everything in it, some of it hostile."""
    config = {
        "settings": {"model": "vae", "guide": "amortized", "objective": "elbo", "data": "auto", "lr": 0.001},
        "seed": 1234,
        "name": "<script>alert('x')</script>",
        "nested": {"hidden": [200, 200], "none": {}},
    }
    test = {"elbo": -103.456, "elbo_se": 0.312, "log_likelihood": -84.2, "kl": 19.3, "images": 10_000}
    result = {
        "data": "mnist",
        "note": "a <b>bold</b> note",
        "steps": 10_000,
        "seconds": 612.34,
        "train": {"elbo": -104.2, "log_likelihood": -85.1, "kl": 19.1},
        "test": test,
        "evidence": {"log_px": -98.1, "log_px_se": 0.2},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "result.json").write_text(json.dumps(result))
    lines = ["step,elbo,kl,kl_weight", *(f"{100 * i},{-100 - i / 8},20.0,0.0125" for i in range(30))]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    for name in ("samples-1000.png", "samples-200.png", "train_curves.png"):
        save(grid(flat(*[0.5] * (4 if "curves" in name else 1), side=4)), tmp_path / name)
    return tmp_path


def cells(page: str) -> list[str]:
    return re.findall(r"<t[dh]>(.*?)</t[dh]>", page)


def test_report_holds_the_run(folder: Path) -> None:
    path = report(folder)
    page = path.read_text(encoding="utf-8")
    assert path == folder / "report.html"
    assert "<h1>vae · amortized guide · elbo objective · mnist · 10,000 steps</h1>" in page
    for text in ("-103.46 ± 0.31", "-104.20", "19.30", "10,000", "612.34", "-98.10 ± 0.20", "settings.lr", "0.001"):
        assert text in cells(page)
    assert "[200, 200]" in cells(page)
    assert "1234" in cells(page)
    # The last ten of thirty rows: 2,000 to 2,900.
    assert "2,900" in cells(page)
    assert "2,000" in cells(page)
    assert "1,900" not in cells(page)
    assert "0.0125" in cells(page)


def test_report_names_parts_by_what_they_are_made_by(folder: Path) -> None:
    config = {
        "model": {"decoder": {"made by": "ConvDecoder"}, "made by": "VAE"},
        "guide": {"made by": "Free", "data": 55_000, "family": {"made by": "Diagonal"}},
        "data": {"name": "asked", "binarize": "none"},
        "options": {"model": "conv", "guide": "free"},
        "steps": 20_000,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert "<h1>VAE · Free guide · mnist · 10,000 steps</h1>" in report(folder).read_text(encoding="utf-8")
    (folder / "result.json").unlink()
    assert "<h1>VAE · Free guide · asked · 20,000 steps</h1>" in report(folder).read_text(encoding="utf-8")


def test_report_holds_every_figure_in_order(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["Samples 200", "Samples 1000", "Train curves"]
    assert page.count('src="data:image/png;base64,iVBOR') == 3


def test_report_lets_broad_figures_scroll_on_a_phone(folder: Path) -> None:
    save(curves([]), folder / "broad.png")
    page = report(folder).read_text(encoding="utf-8")
    assert re.findall(r'<figure class="broad"><img alt="(.*?)"', page) == ["Broad", "Train curves"]


def test_report_escapes_what_it_is_given(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page


def test_report_loads_nothing(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page))
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "@import" not in page
    assert "url(" not in page


def test_report_is_deterministic_and_leaves_nothing_behind(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    first = report(folder).read_bytes()
    assert report(folder).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.csv"])
def test_report_says_what_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    page = report(folder).read_text(encoding="utf-8")
    assert f"No {name} in this folder." in page
    assert page.count("in this folder.") == 1


def test_report_of_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    page = report(tmp_path).read_text(encoding="utf-8")
    assert page.count("in this folder.") == 4
    assert f"<h1>{tmp_path.name}</h1>" in page


def test_report_of_a_run_that_has_logged_nothing(folder: Path) -> None:
    for text in ("", "step,elbo\n"):
        (folder / "metrics.csv").write_text(text)
        assert "the last 0 of 0 rows" in report(folder).read_text(encoding="utf-8")


def test_figures_do_without_pyplot() -> None:
    code = "import sys, runners.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
