"""The study of temperatures: what theory fixes of the entropy, and that low temperatures repeat what is known."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from toy_study import answered

LINES = "".join(f"{n} men went to mow, went to mow a meadow;\n" for n in range(200))


def test_the_entropy_grows_with_the_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.text_summary.LENGTH", 100)
    (tmp_path / "mow.txt").write_text(LINES)
    text = {"data": None, "text": str(tmp_path / "mow.txt")}
    small = {"batch": 20, "length": 20, "hidden": 48, "lr": 0.01}
    answer = answered("temperature", tmp_path, monkeypatch, steps=120, **text, **small)
    *rows, real = answer.table
    uniform = math.log(len(set(LINES)))
    read = [row["entropy_reading"] for row in rows]
    assert all(before < after for before, after in pairwise(read))
    assert 0 <= read[0] < read[-1] < uniform
    assert 0 <= rows[0]["entropy"] < rows[-1]["entropy"] < uniform
    assert rows[0]["known_words_%"] > rows[-1]["known_words_%"]
    assert rows[0]["repeated_%"] >= rows[-1]["repeated_%"]
    assert real["known_words_%"] > 95
    assert "went to mow" in real["text"]
    assert "\n" not in "".join(row["text"] for row in rows)
    assert f"{uniform:.2f}" in answer.finding[0]
