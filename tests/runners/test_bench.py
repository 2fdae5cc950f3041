import csv
import io
from functools import partial
from pathlib import Path

import pytest
import torch

from runners import bench, contenders
from runners.bench import Timing, main, measure, table
from runners.contenders import Contender, Setting, Workload, reach
from runners.contenders.costs import Floor, Rates
from runners.data import DataSet

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "QUICK", {"budget": 0.0, "rounds": 1, "target": -1e4, "count": 200})
    monkeypatch.setattr(bench, "rates_of", lambda device, dtype: Rates(1e9, 1e9))


def test_turns_are_taken_forwards_and_backwards_and_ratios_are_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    def contender(steps: int, *, name: str, seconds: float, units: int) -> int:
        turns.append((name, steps))
        now[0] += seconds * steps
        return units * steps

    made = {
        "ours": partial(contender, name="ours", seconds=1.0, units=10),
        "theirs": partial(contender, name="theirs", seconds=3.0, units=5),
    }
    seconds = measure(made, rounds=3, budget=12.0, device=CPU)
    assert turns[:4] == [("ours", 4), ("ours", 1), ("theirs", 4), ("theirs", 1)]
    assert (
        turns[4:] == [(name, {"ours": 12, "theirs": 4}[name]) for name in ("ours", "theirs", "theirs", "ours") * 2][:6]
    )
    assert seconds == {"ours": pytest.approx([0.1] * 3), "theirs": pytest.approx([0.6] * 3)}


def timing() -> Timing:
    seconds = {"toolkit": [0.1, 0.2, 0.1], "theirs": [0.2, 0.2, 0.3]}
    floor = Floor(2 * 10**9, 10**9, Rates(1e10, 1e10))
    return Timing("work", "images", 10, seconds, {"toolkit": 5_000_000}, floor)


def test_what_is_printed() -> None:
    first, ours, theirs, last = repr(timing()).splitlines()
    assert first == "work"
    assert "1000.00 ms" in ours
    assert "10 images/s" in ours
    assert ours.endswith("5 MB")
    assert "× 2.00  (1.00 to 3.00)" in theirs
    assert "200.00 ms for 2 GFLOP at 10 a second, 100.00 ms for 1000 MB at 1e+04; the larger is 20% of" in last


def test_tables_have_a_row_for_each_contender() -> None:
    (first, second) = csv.DictReader(io.StringIO(table([timing()], "a machine", markdown=False)))
    assert (first["contender"], first["memory MB"], first["ratio"]) == ("toolkit", "5", "1.00")
    assert (second["memory MB"], second["least"], second["ratio"], second["largest"]) == ("", "1.00", "2.00", "3.00")
    assert second["machine"] == "a machine"
    lines = table([timing(), timing()], "a machine", markdown=True).splitlines()
    assert lines[0] == "a machine"
    assert len(lines) == 4 + 4
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_workload_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "table.csv"
    (found,) = main(["gan", "--quick", "--device", "cpu", "--threads", "1", "--out", str(out)])
    assert list(found.seconds) == ["toolkit", "torch by hand"]
    assert all(len(seconds) == 1 for seconds in found.seconds.values())
    assert found.floor.flops > 0
    assert repr(found) in capsys.readouterr().out
    assert [row["contender"] for row in csv.DictReader(io.StringIO(out.read_text()))] == ["toolkit", "torch by hand"]
    assert torch.get_num_threads() == threads


def test_memory_is_measured_of_each_contender(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked = []
    monkeypatch.setattr(bench, "peak_memory", lambda workload, name, setting: asked.append(name) or 7_000_000)
    monkeypatch.setattr(bench, "BUDGET", 0.0)
    idle = Contender(lambda: None, 1)
    workload = Workload("work", "images", 1, {"toolkit": lambda: idle, "theirs": lambda: idle}, ("nobody else",))
    monkeypatch.setitem(contenders.WORKLOADS, "gan", lambda setting: workload)
    (found,) = main(["gan", "--rounds", "3", "--device", "cpu"])
    assert capsys.readouterr().err == "nobody else\n"
    assert asked == list(found.seconds) == ["toolkit", "theirs"]
    assert {len(seconds) for seconds in found.seconds.values()} == {3}
    assert set(found.memory.values()) == {7_000_000}


def digits() -> DataSet:
    return DataSet("bars", *(Setting(CPU, count=count).images() if count else None for count in (70, 0, 20)))


def test_training_goes_on_until_the_target_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "EVERY", 2)
    bounds = iter([-300.0] * 4 + [-90.0] + [-300.0] * 3 + [-90.0] * 2 + [-300.0])
    monkeypatch.setattr(reach, "_elbo", lambda *_: next(bounds))
    monkeypatch.setattr(reach, "_seconds", lambda contender, setting: contender(2) and 1.0)
    found = reach.reach(Setting(CPU), digits(), target=-110.0, rounds=1, most=6)
    assert found == {
        "toolkit": [2.0],
        "torch by hand": [3.0],
        "stock Pyro": [3.0],
        "stock Pyro, unchecked": [float("inf")],
    }


def test_reach_is_a_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "EVERY", 1)
    monkeypatch.setattr(bench.data, "load", lambda name, root: digits())
    (found,) = main(["reach", "--quick", "--device", "cpu"])
    assert "bars" in found.workload
    assert all(0 < seconds < 100 for (seconds,) in found.seconds.values())


def test_who_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders.vae, "installed", lambda package: False)
    workload = contenders.WORKLOADS["mlp-400"](Setting(CPU))
    assert not {"numpyro", "pythae"} & set(workload.contenders)
    assert [note.split()[0] for note in workload.notes] == ["numpyro", "pythae"]
