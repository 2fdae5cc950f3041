"""The study of inner updates finds what theory fixes: more of them cost more, and bring rows nearer to the best."""

from pathlib import Path

import pytest
from toy_study import answered

from runners.studies import inner_updates
from runners.studies.point import of_svi
from runners.studies.rows import at


def test_more_updates_are_ahead_at_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_updates, "UPDATES", (1, 20))
    monkeypatch.setattr(inner_updates, "BATCHES", ())
    found = answered("inner-updates", tmp_path, monkeypatch, steps=40)
    one, twenty = found.table
    assert twenty["after 40 steps"] > one["after 40 steps"]
    (seconds,) = (name for name in one if name.endswith(" s"))
    assert one[seconds] == one["after 40 steps"]  # where the shortest run ended


def test_a_batch_of_another_size_sees_as_many_images() -> None:
    made = {name: point.options for name, point in inner_updates.runs(quick=False).items()}
    images = {options.get("batch", 64) * options["steps"] for options in made.values()}
    assert images == {64 * 3000}
    assert inner_updates.runs(quick=False)["1 update"] == of_svi(guide="free", local_steps=1, steps=3000, images=500)


def test_between_two_rows_a_figure_is_on_the_line_between_them() -> None:
    rows = [{"seconds": second, "elbo": 3.0 * second - 100} for second in (2.0, 3.0, 7.0)]
    for seconds in (2.0, 2.5, 3.0, 4.2, 7.0):
        assert at(rows, "seconds", seconds) == pytest.approx(3 * seconds - 100)
    assert at(rows, "seconds", 1.9) is None
    assert at(rows, "seconds", 7.1) is None
