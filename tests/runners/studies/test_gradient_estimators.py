"""The study of gradient estimators finds what theory fixes: the same mean, and the most noise by the bare score."""

from pathlib import Path

import pytest
from toy_study import answered


def test_the_score_varies_most_and_none_is_biased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered("gradient-estimators", tmp_path, monkeypatch, steps=60)
    rows = {row["estimator"]: row for row in found.table}
    bare, based, pathwise = (rows[name]["variance"] for name in ("score", "score, baseline", "pathwise"))
    assert bare > based > pathwise
    for row in found.table:
        assert abs(row["mean_along"] - 1) < 4 * row["mean_along_se"]
    assert list(found.pictures) == ["gradient_estimators"]
