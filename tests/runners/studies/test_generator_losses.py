"""The study of the generator's losses: their gradients against the chain rule by hand, and which one vanishes."""

from pathlib import Path

import pytest
import torch
from torch import nn
from toy_study import answered

from ppl_models.adversarial import NON_SATURATING, SATURATING, generator_gradient

BOTH = (NON_SATURATING, SATURATING)


def test_an_image_s_share_is_its_score_s_gradient_times_d_or_1_less_d() -> None:
    generator, weight, z = nn.Linear(3, 4, bias=False).double(), torch.randn(4), torch.randn(5, 3)
    weight, z = weight.double(), z.double()
    shares = weight[:, None] * z[:, None]  # of l = w · Wz, by W: (B, 4, 3)
    chance = (generator(z) @ weight).detach().sigmoid()[:, None, None]
    for loss, slope in zip(BOTH, (chance - 1, -chance), strict=True):
        found = generator_gradient(generator, lambda x: x @ weight, loss, z)
        torch.testing.assert_close(found, (slope * shares).mean(0).flatten())


def test_both_agree_in_direction_and_where_the_discriminator_is_fooled_in_length() -> None:
    generator, z = nn.Linear(3, 4).double(), torch.randn(1, 3, dtype=torch.float64)
    for logit in (-4.0, 0.0, 2.0):
        level = generator(z).sum().detach() - logit
        lively, sated = (generator_gradient(generator, lambda x, c=level: x.sum(1) - c, loss, z) for loss in BOTH)
        torch.testing.assert_close(sated, torch.tensor(logit).double().exp() * lively)


def test_frozen_weights_are_left_out() -> None:
    generator = nn.Linear(3, 4)
    generator.bias.requires_grad_(False)
    assert generator_gradient(generator, lambda x: x.sum(1), NON_SATURATING, torch.randn(2, 3)).shape == (12,)


def test_the_saturating_gradient_vanishes_as_the_discriminator_grows_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answered("generator-losses", tmp_path, monkeypatch, steps=10, networks="mlp")
    assert [row["discriminator_alone"] for row in found.table] == 2 * [0, 3, 10, 30, 100]
    for first, last in ((found.table[0], found.table[4]), (found.table[5], found.table[9])):
        assert last["D(G(z))"] < first["D(G(z))"] < 0.9
        assert last["ratio"] < 0.5 * first["ratio"]
        assert last["ratio"] == pytest.approx(last["odds"], rel=0.5)
    *_, measured = found.show().axes
    assert measured.get_yscale() == "log"
    drawn = sorted((row["D(G(z))"], row["gradient of −log D"]) for row in found.table[:5])
    assert list(zip(*measured.lines[0].get_data(), strict=True)) == drawn
