"""The study of observation variances finds what theory fixes: a small one is a small weight on the KL."""

import math
from pathlib import Path

import pytest
from PIL import Image
from toy_study import answered

from runners.studies import observation_variance
from runners.studies.point import all_options


def test_a_small_variance_buys_reconstructions_with_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation_variance, "VARIANCES", (0.01, 1.0))
    found = answered("observation-variance", tmp_path, monkeypatch, steps=300, lr=3e-3)
    rows = {row["run"]: row for row in found.table}
    low, high = rows["0.01"], rows["1"]
    assert low["kl"] > high["kl"]
    assert low["squared_error"] < high["squared_error"]
    learned = rows["learned"]
    assert learned["variance"] == pytest.approx(learned["error_in_training"], rel=0.3)  # the best variance is the error
    for row in rows.values():
        assert row["variance"] == pytest.approx(64 * row["course_variance"])
        by_error = -32 * (math.log(2 * math.pi * row["variance"]) + row["squared_error"] / row["variance"]) - row["kl"]
        assert by_error == pytest.approx(row["elbo"], abs=0.2 + 5 * row["elbo_se"])  # other samples of the codes
        assert row["elbo_at_its_error"] >= by_error - 1e-4


def test_photographs_are_for_the_deep_networks(tmp_path: Path) -> None:
    for number in range(10):
        Image.new("RGB", (70, 64), (20 * number, 100, 50)).save(tmp_path / f"{number}.png")
    for quick in (False, True):
        points = observation_variance.runs(quick=quick)
        faces = {name: all_options(point, {"data": str(tmp_path)}, quick=quick) for name, point in points.items()}
        digits = {name: all_options(point, {"data": "digits"}, quick=quick) for name, point in points.items()}
        assert {options["model"] for options in faces.values()} == {"deep"}
        assert "deep" not in {options["model"] for options in digits.values()}
        assert {options["latents"] for options in faces.values()} == {32}
        for chosen in (faces, digits):
            assert [name for name, options in chosen.items() if options["learn_sigma2"]] == ["learned"]
            assert chosen["0.01"]["sigma2"] == 0.01
