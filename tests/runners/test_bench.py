from functools import partial

import pytest
import torch

from runners import bench
from runners.bench import importance, main, measure


def test_contenders_take_turns_and_ratios_are_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def contender(name: str, seconds: float, units: int) -> int:
        turns.append(name)
        now[0] += seconds * len(turns)  # the machine gets slower and slower
        return units

    contenders = {"ours": partial(contender, "ours", 1.0, 10), "theirs": partial(contender, "theirs", 3.0, 1)}
    timing = measure("work", contenders, unit="image", rounds=2, device=torch.device("cpu"))
    assert turns == ["ours", "theirs"] * 3
    assert timing.seconds == {"ours": [0.3, 0.5], "theirs": [12.0, 18.0]}  # the first turns do not count
    assert timing.ratios("theirs") == pytest.approx([40, 36])
    assert repr(timing).splitlines()[0] == "work"
    assert "× 38.00  (36.00 to 40.00)" in repr(timing)


def test_the_command_runs_every_workload(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(bench.WORKLOADS, "importance", partial(importance, samples=200))
    (timing,) = main(["--rounds", "1"])
    assert "a loop over images" in capsys.readouterr().out
    assert all(len(seconds) == 1 for seconds in timing.seconds.values())


@pytest.mark.parametrize(("line", "message"), [("speed", "speed"), ("--rounds 0", "--rounds")])
def test_bad_input_ends_in_one_line(line: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
