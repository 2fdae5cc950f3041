"""The study of training: annealed codes are used early, constrained ones reach their target; depth loses nothing."""

from pathlib import Path

import pytest
import torch
from toy_study import answered

from ppl_models import MLPDecoder
from runners.studies import training


def test_early_codes_and_longer_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TIMES", 5)
    monkeypatch.setattr(training, "QUICK_STEPS", {"systems": 40, "S6": 30})
    rows = {
        row["run"]: row
        for row in answered("training", tmp_path, monkeypatch, steps=None, lr=3e-3, multiplier_lr=0.1).table
    }
    free, constrained = rows["S2, encoder"], rows["S4, constrained"]
    assert rows["S3, annealed"]["kl"] > free["kl"] - 0.1  # weights below one all the way
    assert constrained["kl"] < 0.5 * free["kl"]  # a target below any log-likelihood of 64 pixels: the KL alone is left
    assert rows["S6, longer"]["steps"] == 5 * rows["S6"]["steps"]
    assert rows["S6, longer"]["train_elbo"] > rows["S6"]["train_elbo"] + 1
    assert rows["S6, longer"]["minus_S6"] == pytest.approx(rows["S6, longer"]["elbo"] - rows["S6"]["elbo"], abs=1e-4)


def test_a_deeper_decoder_can_be_a_shallower_one() -> None:
    shallow = MLPDecoder(latents=3, shape=(1, 4, 4), hidden=(6, 6)).double()
    deep = MLPDecoder(latents=3, shape=(1, 4, 4), hidden=(6, 6, 6, 6)).double()
    first, second, last = (layer for layer in shallow.body if isinstance(layer, torch.nn.Linear))
    layers = [layer for layer in deep.body if isinstance(layer, torch.nn.Linear)]
    for layer, source in zip([*layers[:2], layers[4]], (first, second, last), strict=True):
        layer.load_state_dict(source.state_dict())
    for layer in layers[2:4]:
        layer.load_state_dict({"weight": torch.eye(6), "bias": torch.zeros(6)})
    z = torch.randn(10, 3, dtype=torch.float64)
    torch.testing.assert_close(deep(z), shallow(z))
