"""The study of losses as stopping rules: what it makes of looks that are known, and what losses are at the optimum."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_study import answered

from ppl_models.adversarial import NON_SATURATING
from runners.adversarial_losses import LOSSES
from runners.studies.point import Made
from runners.studies.stopping import answer


def made(loss: str, losses: list[tuple[float, float]], distances: list[float]) -> Made:
    """A finished run that was looked at so often, with the generator's and the critic's losses."""
    rows = [
        {"step": 10 * (place + 1), "frechet_distance": distance, "generator_loss": generator, "critic_loss": critic}
        for place, ((generator, critic), distance) in enumerate(zip(losses, distances, strict=True))
    ]
    selection = SimpleNamespace(rows=rows, figure="frechet_distance")
    return Made(SimpleNamespace(selection=selection, loss=loss, fooled=LOSSES[loss].fooled), {})


def test_a_loss_that_says_when_to_stop_is_told_from_one_that_does_not() -> None:
    distances = [9.0, 4.0, 2.0, 1.0, 3.0]
    # The generator's loss falls throughout; minus the critic's falls and rises with the distance.
    good = made("wasserstein", [(5.0 - i, -distance) for i, distance in enumerate(distances)], distances)
    # The discriminator's stands between the first three looks, and is fooled in the end.
    losses = [(3.0, 0.4), (2.0, 0.4), (1.0, 0.4), (2.0, 0.6), (4.0, math.log(2))]
    found = answer({"S12": made("gan", losses, distances), "S13": good}, quick=True)
    rows = {(row["run"], row["loss"]): row for row in found.table}
    estimate = rows["S13", "Wasserstein estimate"]
    assert estimate["rank_correlation"] == pytest.approx(1)
    assert (estimate["least_at_step"], estimate["distance_there"]) == (40, 1.0)
    generator = rows["S13", "generator's loss"]
    assert generator["rank_correlation"] == pytest.approx(0.7)  # 1 - 6 Σ d² / n (n² - 1) of 5 4 3 1 2 and 5 4 3 2 1
    assert (generator["least_at_step"], generator["distance_there"], generator["best_distance"]) == (50, 3.0, 1.0)
    assert rows["S12", "log 2 − discriminator's loss"]["least_at_step"] == 50
    assert "fell between 2 pairs of looks while the critic's moved by no more than its median" in found.finding[-1]
    assert "the distance fell in 2 of them" in found.finding[-1]


def test_a_loss_that_stands_has_no_rank() -> None:
    looked = made("gan", [(1.0, 0.7), (1.0, 0.6), (1.0, 0.5)], [3.0, 2.0, 1.0])
    assert math.isnan(answer({"S12": looked}, quick=True).table[0]["rank_correlation"])


def test_the_best_look_is_at_least_as_good_as_any_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = answered("stopping", tmp_path, monkeypatch, steps=20).table
    assert [row["run"] for row in table] == ["S12", "S12", "S13", "S13"]
    assert all(row["looks"] > 2 for row in table)
    assert all(row["best_distance"] <= min(row["distance_there"], row["last_distance"]) for row in table)


def test_losses_at_the_best_discriminator() -> None:
    """The worksheet's: log 2 - JSD, and KL(g | d) - KL(g | m) + log 2, here of counts of four kinds of images."""
    d, g = torch.tensor([1.0, 5.0, 3.0, 7.0]).double(), torch.tensor([6.0, 2.0, 4.0, 4.0]).double()
    logits = d.log() - g.log()
    real, fake = (logits.repeat_interleave(counts.long()) for counts in (d, g))
    d, g = d / d.sum(), g / g.sum()
    m = (d + g) / 2

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p * (p / q).log()).sum()

    divergence = (kl(d, m) + kl(g, m)) / 2
    torch.testing.assert_close(NON_SATURATING.critic(real, fake), math.log(2) - divergence)
    torch.testing.assert_close(NON_SATURATING.generator(fake), kl(g, d) - kl(g, m) + math.log(2))
