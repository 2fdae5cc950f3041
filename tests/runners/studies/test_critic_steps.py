"""The study of critic steps: with more of them the critic is further, and each run has as many as it says."""

from pathlib import Path

import pytest
from toy_study import answered


def test_five_updates_bring_the_critic_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered("critic-steps", tmp_path, monkeypatch, steps=15, networks="mlp")
    rows = {row["run"]: row for row in found.table}
    for game in ("S13", "S12"):
        one, five = rows[f"{game}, 1 critic step"], rows[f"{game}, 5 critic steps"]
        assert five["held_out"] < one["held_out"]
        assert (one["critic_updates"], five["critic_updates"]) == (15, 75)
        assert one["generator_updates"] == five["generator_updates"] == 15
        assert one["critic_behind"] > 0
    assert rows["S12, 5 critic steps"]["critic_behind"] < rows["S12, 1 critic step"]["critic_behind"]
    assert "In S13, after 15 generator updates" in found.finding[0]
