"""The study of balance: more steps of one put it ahead; and what its worksheet says of the discriminator's loss."""

import math
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import small
import torch
from toy_study import answered

from ppl_models.adversarial import cross_entropy
from runners import gan
from runners.loop.folder import RunFolder
from runners.studies import STUDIES, adversaries, balance
from runners.studies.inquiry import folder_name
from runners.studies.point import Made, all_options, of_gan


def test_more_steps_put_their_player_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered("balance", tmp_path, monkeypatch, steps=20, networks="mlp")
    rows = {row["run"]: row for row in found.table}
    losses = {name: row["held_out"] for name, row in rows.items()}
    assert losses["5 discriminator steps"] < losses["S12"] < losses["10 generator steps"]
    assert (rows["5 discriminator steps"]["critic_updates"], rows["S12"]["critic_updates"]) == (100, 20)
    assert rows["10 generator steps"]["generator_updates"] == 70  # 7 steps, in proportion
    assert losses["generator ×3"] != losses["generator ÷3"]
    low = min(rows, key=lambda name: rows[name]["critic_loss"])
    assert f"lowest under {low}" in found.finding[0]
    assert list(found.pictures) == ["balance", "samples"]


@pytest.mark.parametrize("module", STUDIES.values(), ids=list(STUDIES))
@pytest.mark.parametrize("quick", [True, False])
def test_every_run_has_a_folder_of_its_own(module: ModuleType, quick: bool) -> None:
    folders = [folder_name(name) for name in module.runs(quick=quick)]
    assert len(set(folders)) == len(folders)
    assert all(folders)


def test_log_2_less_the_best_discriminator_s_loss_is_the_jensen_shannon_divergence() -> None:
    real, fake = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])  # p = (3, 1) / 4, g = (1, 3) / 4
    best = torch.tensor([3.0, 1 / 3], dtype=torch.float64).log()
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    least = cross_entropy(best[real], best[fake])
    torch.testing.assert_close(math.log(2) - least, torch.tensor(divergence, dtype=torch.float64))
    for other in best + 0.3 * torch.randn(20, 2, dtype=torch.float64):
        assert cross_entropy(other[real], other[fake]) > least


def test_looks_at_the_generator_are_what_runs_are_compared_by() -> None:
    rows = [{"critic_loss": loss, "held_out": loss, "generator_loss": 1.0, "diversity": 0.5} for loss in range(10)]
    settings = {"critic_steps": 5, "generator_steps": 1}
    fit = SimpleNamespace(history=SimpleNamespace(rows=rows, step=1000), settings=settings)
    looks = {"best": {"step": 700, "frechet_distance": 3.0}, "last": {"step": 1000, "frechet_distance": 4.0}}
    row = adversaries.ended(Made(fit, {"seconds": 1.0} | looks))
    assert row["critic_loss"] == 8.5
    assert (row["frechet_distance"], row["best"], row["best_at_step"]) == (4.0, 3.0, 700)
    assert (row["critic_updates"], row["generator_updates"]) == (5000, 1000)
    others = [{"run": "a"} | row, {"run": "b"} | row | {"frechet_distance": 9.0, "best": 2.0}]
    assert adversaries.distance(others)[0] == "frechet_distance"
    (said,) = balance._nearest(others)
    assert "nearest to the data under a, 4" in said
    assert "the best of all looks is 2, under b at step 700" in said


def test_a_critic_alone_leaves_the_generator(tmp_path: Path) -> None:
    options = all_options(of_gan(networks="mlp", steps=3, batch=20, selection=0, pictures=0), {}, quick=True)
    fit = gan.build(options, RunFolder(tmp_path / "run"), data=small.data_set())
    kept, critic = small.weights(fit.generator), small.weights(fit.critic)
    on = adversaries.alone(fit).run(3)
    assert not small.changed(on.generator, kept)
    assert small.changed(on.critic, critic)
    assert not small.changed(fit.critic, critic)
