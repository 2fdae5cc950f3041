"""The study of the data set's size finds what theory fixes: a step touches a batch's rows, a table has all of them."""

from pathlib import Path

import pytest
import torch
from toy_study import answered

from guides import Free
from runners.contenders import Setting
from runners.contenders.free_rows import BATCH, LATENTS, ours
from runners.studies import data_size


def test_memory_grows_by_the_row_and_there_are_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_size, "QUICK_SIZES", (100, 10_000))
    monkeypatch.setattr(data_size, "MOST", 1000)
    monkeypatch.setattr(data_size, "QUICK_BUDGET", 0.0)
    monkeypatch.setattr(data_size, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(data_size, "peak_memory", lambda workload, name, setting: len(name) * 10**6)
    found = answered("data-size", tmp_path, monkeypatch, steps=None, batch=None)
    small, large = found.table
    # Means, log scales, two moments of each, a count of steps, visits, and where the row is.
    assert small["bytes_a_row"] == 4 * (6 * LATENTS + 3)
    assert large["table_MB"] == pytest.approx(2.52)
    assert large["toolkit_MB"] == len("toolkit")
    assert all(row["alone_ms"] > 0 and row["toolkit_ms"] > 0 for row in found.table)
    assert found.data == "tables of 100 to 10,000 rows"


def test_a_step_moves_the_rows_of_its_batch_alone() -> None:
    contender = ours(Setting(torch.device("cpu"), count=100), rows=5000)
    contender(1)
    guide = contender.modules["guide"]
    assert isinstance(guide, Free)
    assert int((guide.table_visits > 0).sum()) == BATCH
    assert int(guide.table_loc.any(1).sum()) == BATCH
