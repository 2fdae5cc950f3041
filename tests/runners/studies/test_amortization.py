"""The study of amortization: on one frozen decoder a posterior of each image's own is better than an encoder's."""

from pathlib import Path

import pytest
from toy_study import answered


def test_on_one_decoder_a_posterior_of_its_own_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answered("amortization", tmp_path, monkeypatch, steps=30)
    own, frozen = answer.table[:3], answer.table[3:]
    encoder, refined, free = frozen
    assert encoder["elbo"] == pytest.approx(own[0]["elbo"], abs=1e-5)  # the same decoder and noise
    for row in (refined, free):
        assert row["minus_the_encoder"] > 2 * row["minus_the_encoder_se"]
        assert row["minus_the_encoder"] == pytest.approx(row["elbo"] - encoder["elbo"])
    assert "nats more" in answer.finding[0]
