import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ranks
import small
import torch

from ppl_models import UsageError
from runners import svi
from runners.loop.history import Diverged, History
from runners.loop.processes import SaidElsewhere

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pair() -> Iterator[ranks.Pair]:
    with ranks.pair() as made:
        yield made


@pytest.mark.parametrize("kind", ranks.KINDS)
def test_two_with_half_batches_make_the_steps_of_one_with_whole_batches(pair: ranks.Pair, kind: str) -> None:
    whole = ranks.trained(kind)
    first, second = pair(ranks.trained, kind)
    assert first.keys() == second.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def test_a_run_that_is_cut_off_goes_on_to_the_same_bits_and_one_process_loads_all_of_it(
    pair: ranks.Pair, tmp_path: Path
) -> None:
    cut, through = tmp_path / "cut", tmp_path / "through"
    assert pair(ranks.stopped, cut) == [(15, 3), (15, 3)], "both stop, though one alone was told to"
    resumed, whole = pair(ranks.ended, cut), pair(ranks.ended, through)
    for name, value in whole[0].items():
        for other in (whole[1], *resumed):
            np.testing.assert_array_equal(other[name], value, err_msg=name)
    texts = [(folder / "metrics.csv").read_text() for folder in (cut, through)]
    rows = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [row["step"] for row in rows[0]] == ["3", "6", "7"]
    assert [{**row, "seconds": ""} for row in rows[0]] == [{**row, "seconds": ""} for row in rows[1]]
    assert {path.name for path in cut.iterdir()} == {"config.json", "metrics.csv", "checkpoint.pt"}
    assert json.loads((cut / "config.json").read_text())["processes"] == 2

    loaded = svi.load(cut, data=ranks.data(), device="cpu")
    table = loaded.guide.double().table_loc
    np.testing.assert_allclose(table, whole[0]["guide.table_loc"], rtol=1e-6)
    moved = table.abs().sum(1) > 0
    assert moved[:20].all()
    assert not moved[20], "the datum that is in no shard"
    with pytest.raises(UsageError, match="a run of 2 processes, found 1; it goes on by torchrun --nproc-per-node 2"):
        ranks.made("free", out=cut).resume()


def test_networks_are_the_same_down_to_batch_norm_and_data_and_noise_are_not(pair: ranks.Pair) -> None:
    (first, data, noise), (second, other_data, other_noise) = pair(ranks.normed)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert first["generator.norm.num_batches_tracked"] == 4
    assert max(data) < 100 <= min(other_data), "each draws from its own shard"
    assert [index + 100 for index in data] != other_data
    assert noise != other_noise


def test_images_that_are_shared_out_are_judged_as_by_one_process(pair: ranks.Pair) -> None:
    alone, together = ranks.judged(), pair(ranks.judged)
    for found in together:
        for value, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("saved", [False, True])
def test_what_diverges_on_one_rank_stops_both(pair: ranks.Pair, tmp_path: Path, saved: bool) -> None:
    found = {type(error): str(error) for error in pair(ranks.diverged, tmp_path / "run" if saved else None)}
    assert found.keys() == {UsageError, SaidElsewhere}
    assert "step 0" in found[UsageError]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("batch", "found 9, expected a multiple of 2"),
        ("carried", "carried: "),
        ("free_bits", "free_bits: "),
        ("echo", "needs batches of 10 or more, found 5"),
    ],
)
def test_what_needs_whole_batches_is_refused(pair: ranks.Pair, kind: str, line: str) -> None:
    found = pair(ranks.refused, kind)
    assert any(line in str(error) for error in found)
    assert all(isinstance(error, UsageError) for error in found)


@pytest.mark.parametrize("failing", [["0"], ["1"], ["0", "1"]])
def test_bad_input_on_any_rank_ends_all_in_one_line(pair: ranks.Pair, failing: list[str]) -> None:
    codes, lines = zip(*pair(ranks.said, "failing", failing, joined=False), strict=True)
    assert codes == (2, 2)
    assert sorted(lines) == ["", "ranks: what was given is wrong\n"]


def test_a_text_is_for_one_process(pair: ranks.Pair) -> None:
    codes, lines = zip(*pair(ranks.said, "text", [], joined=False), strict=True)
    assert codes == (2, 2)
    assert sorted(lines) == ["", "text: runs in one process, found 2: start it without torchrun\n"]


def test_torchrun_makes_one_run(tmp_path: Path) -> None:
    data, out = small.write_npz(tmp_path / "blobs.npz", train=40, other=20), tmp_path / "run"
    line = f"--data {data} --guide amortized --model mlp --hidden 8 --steps 4 --batch 8 --out {out} --device cpu"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*torchrun, str(ROOT / "runners" / "svi.py"), *line.split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert len([line for line in ended.stdout.splitlines() if line.endswith("report.html")]) == 1
    assert ended.stderr.count("Fit(") == ended.stderr.count("| 0/4 [") == 1, "one line and one bar"
    found = json.loads((out / "result.json").read_text())
    assert found["steps"] == 4
    assert found["test"]["images"] == 20
    assert {"config.json", "metrics.csv", "checkpoint.pt", "report.html", "images.png"} <= {
        path.name for path in out.iterdir()
    }
    again = svi.load(out, device="cpu")
    assert again.bounds(again.data.test).elbo.mean().item() == pytest.approx(found["test"]["elbo"], abs=1e-3)


def test_history_averages_each_step_once() -> None:
    seen = []

    def averaged(values: torch.Tensor) -> torch.Tensor:
        seen.append(len(values))
        return values + 1

    history = History(averaged=averaged)
    for step in range(5):
        history.record({"loss": torch.tensor(float(step))})
        if step == 2:
            history.check()
            history.check()
    assert history.log()["loss"] == 3.0
    assert history.final() == {"loss": 3.0}
    assert seen == [3, 2]
    history.record({"loss": torch.tensor(float("nan"))})
    with pytest.raises(Diverged):
        history.check()
