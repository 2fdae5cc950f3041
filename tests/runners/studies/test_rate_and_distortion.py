"""The study of rate and distortion finds what theory fixes: the rate falls with its weight, the distortion rises."""

import math
from pathlib import Path

import pytest
from toy_study import answered

from runners import figures
from runners.rate_distortion import RateDistortion
from runners.studies import rate_and_distortion


def test_the_rate_falls_to_nothing_as_it_grows_dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_and_distortion, "QUICK_BETAS", {"diagonal": (0.01, 1.0, 100.0), "echo": (0.3, 1.0)})
    found = answered("rate-and-distortion", tmp_path, monkeypatch, steps=200, lr=3e-3)
    rows = {(row["family"], row["beta"]): row for row in found.table}
    free, even, dear = (rows["diagonal", beta] for beta in (0.01, 1.0, 100.0))
    assert free["rate"] > even["rate"] > dear["rate"]
    assert dear["rate"] < 0.1
    assert free["distortion"] < dear["distortion"]
    assert next(iter(found.pictures)) == "rate_and_distortion"
    assert "marginal of its own codes" in found.finding[-1]


def test_chords_of_a_known_curve_have_slopes_between_their_weights() -> None:
    """Of D = a exp(-R) the slope is -D: at β the distortion is β and the rate log(a / β)."""
    betas, a = (0.5, 2.0, 8.0, 50.0), 100.0

    def result(beta: float) -> dict[str, object]:
        test = {"kl": math.log(a / beta), "log_likelihood": -beta, "elbo": 0.0, "images": 1}
        return {"test": test, "train": {}, "steps": 1, "data": "none"}

    curves = RateDistortion.from_results(({"family": "known", "beta": beta}, result(beta)) for beta in betas)
    chords = curves.chords()
    assert [(chord["beta"], chord["next_beta"]) for chord in chords] == [(0.5, 2.0), (2.0, 8.0), (8.0, 50.0)]
    assert all(chord["beta"] < chord["slope"] < chord["next_beta"] for chord in chords)
    assert len(figures.slopes(chords).axes[0].lines) == 5  # a line each, one for the legend, the diagonal
    assert len(figures.slopes([chord | {"slope": -1.0} for chord in chords]).axes[0].lines) == 1
    assert chords[0]["slope"] == pytest.approx(1.5 / math.log(4))
