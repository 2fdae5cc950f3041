"""The study of inversions: its control, and what its table says of images that were inverted."""

from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_rgba
from toy_study import answered

from runners import figures
from runners.studies import inversion
from runners.studies.inversion import _in_short, _row

BARRIERS = [
    {"loss": 0.02, "relaxed": 0.01, "relative": 0.5, "found": True},
    {"loss": 0.04, "relaxed": 0.0, "relative": 0.0, "found": False},
]
IMAGE = {"best_loss": 0.01, "settled": 6, "at_best": 3, "clusters": 3, "clusters_of_images": 2}
IMAGE |= {"cluster_losses": [0.01, 0.02, 0.04], "barriers": BARRIERS}


def test_planted_images_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "QUICK", {"images": 2, "planted": 3, "restarts": 4, "steps": 40})
    answer = answered("inversion", tmp_path, monkeypatch, steps=5)
    *images, planted = answer.table
    assert [row["inverted"] for row in images] == ["test image 0", "test image 1"]
    assert planted["best_loss"] < 1e-6
    assert 0 < planted["at_the_best"] <= planted["settled"] <= 1
    assert "3 of 3 planted images were recovered" in " ".join(answer.finding)
    assert answer.pictures.keys() == {"inversion", "places"}


def test_of_an_image_whose_places_are_known() -> None:
    """Three places, of which a rise is found to one."""
    row = _row("test image 0", IMAGE, 8)
    assert (row["settled"], row["at_the_best"], row["places"], row["barriers"]) == (0.75, 0.375, 3, "1 of 2")
    assert row["highest_rise"] == 0.5
    nothing = {"highest_barrier_inside_a_cluster": None, "median_barrier_to_another_image": None}
    flat = IMAGE | {"barriers": BARRIERS[1:]}
    said = _in_short({"images": 2, "each": [IMAGE, flat]} | nothing)
    assert said.startswith("Different starts find different minima of 1 of 2 images")
    assert "highest_rise" not in _row("test image 1", flat, 8)


def test_places_are_drawn_with_the_rise_between_them() -> None:
    (axes,) = figures.places(torch.tensor([[0.01], [0.02], [0.04]]), [IMAGE]).axes
    by_colour = {to_rgba(line.get_color()): line.get_ydata().tolist() for line in axes.lines}
    assert by_colour[to_rgba("tab:red")] == pytest.approx([0.02, 0.03])
    assert by_colour[to_rgba("0.4")] == pytest.approx([0.04, 0.04])
    assert len([line for line in axes.lines if to_rgba(line.get_color()) == to_rgba("tab:blue")]) == 3
