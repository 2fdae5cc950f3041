"""The study of samples finds what theory fixes: a likelihood does not see noise, a distance of samples does."""

import math
from pathlib import Path

import pytest
import small
import torch
from toy_study import answered

from runners.studies.samples import KEPT, _drawn


def test_noise_costs_few_nats_and_all_of_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small.data_set(train=400, test=150)
    table = answered("samples", tmp_path, monkeypatch, steps=25, data=data).table
    rows = {row["samples"]: row for row in table}
    assert list(rows) == ["real images", "VAE means", "VAE pixels", "VAE in 99 % noise", "GAN", "WGAN-GP"]
    vae, noise = rows["VAE pixels"], rows["VAE in 99 % noise"]
    assert vae["elbo"] - noise["elbo"] == pytest.approx(math.log(100))
    assert noise["frechet_distance"] > vae["frechet_distance"]
    assert min(row["frechet_distance"] for row in table) == rows["real images"]["frechet_distance"]
    assert {name for name, row in rows.items() if row["elbo"] is not None} == {"VAE pixels", "VAE in 99 % noise"}


def test_the_mixture_keeps_one_in_a_hundred() -> None:
    """So that its density is at least a hundredth of the VAE's everywhere."""
    means = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = _drawn(means)
    assert drawn["VAE means"] is means
    pixels, mixed = drawn["VAE pixels"], drawn["VAE in 99 % noise"]
    assert set(pixels.unique().tolist()) == {0.0, 1.0}
    assert float(pixels.mean() - means.mean()) == pytest.approx(0, abs=0.03)
    assert int((mixed == pixels).flatten(1).all(1).sum()) == len(means) // KEPT
