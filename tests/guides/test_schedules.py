import math

import pytest

from guides import CyclicalSchedule, LinearSchedule, SigmoidSchedule
from ppl_models import UsageError
from runners.blueprint import describe, rebuild


def test_linear_is_n_over_n_and_can_fall_or_end_early() -> None:
    assert [LinearSchedule()(n, 8) for n in (0, 2, 8)] == [0.0, 0.25, 1.0]
    assert [LinearSchedule(start=1.0, end=0.0)(n, 8) for n in (0, 2, 8)] == [1.0, 0.75, 0.0]
    assert [LinearSchedule(over=0.5)(n, 8) for n in (0, 2, 4, 6)] == [0.0, 0.5, 1.0, 1.0]


def test_sigmoid_starts_and_ends_exactly_and_is_symmetric() -> None:
    schedule = SigmoidSchedule(steepness=10)
    values = [schedule(n, 10) for n in range(11)]
    assert (values[0], values[-1]) == (0.0, 1.0)
    assert values[5] == pytest.approx(0.5)
    for left, right in zip(values, reversed(values), strict=True):
        assert left + right == pytest.approx(1.0)
    slope = (schedule(5001, 10_000) - schedule(4999, 10_000)) / 2e-4
    assert slope == pytest.approx(10 / 4 / (1 - 2 / (1 + math.exp(5))), rel=1e-4)


def test_cyclical_rises_again_and_again() -> None:
    schedule = CyclicalSchedule(cycles=2, rise=0.5)
    assert [schedule(n, 80) for n in (0, 10, 20, 30, 40, 50, 60, 80)] == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0]


def test_settings_that_give_no_schedule_are_refused() -> None:
    for make in (
        lambda: LinearSchedule(over=0.0),
        lambda: CyclicalSchedule(cycles=0),
        lambda: CyclicalSchedule(rise=0),
    ):
        with pytest.raises(UsageError, match="expected"):
            make()


@pytest.mark.parametrize(
    "schedule", [LinearSchedule(over=0.2), SigmoidSchedule(midpoint=0.3), CyclicalSchedule(cycles=3)]
)
def test_a_run_folder_can_hold_them(schedule: object) -> None:
    assert rebuild(describe(schedule)) == schedule
