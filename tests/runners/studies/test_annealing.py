"""The study of annealing finds what theory fixes: free codes are used, dear ones are not."""

from pathlib import Path

import pytest
from toy_study import answered


def test_the_kl_is_large_where_it_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = answered("annealing", tmp_path, monkeypatch, steps=120).table
    rows = {row["weight"]: row for row in table}
    assert rows["rising"]["kl_in_first_tenth"] > rows["falling"]["kl_in_first_tenth"]
    assert rows["falling"]["kl_in_last_tenth"] > rows["rising"]["kl_in_last_tenth"]
