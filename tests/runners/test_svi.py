import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
import torch

from guides import Refinement
from runners import compare, svi
from runners.loop.history import History

ROOT = Path(__file__).parents[2]
TINY = ["--steps", "16", "--batch", "16", "--images", "20"]
VARIANTS = {
    "s1": [],
    "s1 as in the course": ["--preset", "s1-course"],
    "s1 from cold starts": ["--cold"],
    "s1 by one optimiser": ["--joint"],
    "s2": ["--preset", "s2", "--clip", "5", "--particles", "2"],
    "s2 in bf16": ["--guide", "amortized", "--precision", "bf16"],
    "s6": ["--preset", "s6", "--binarize", "none", "--hidden", "20", "20", "--pictures", "2"],
    "s7 without labels": ["--preset", "s7-unlabelled", "--binarize", "none", "--hidden", "20", "20", "--batch", "10"],
    "gaussian, carried": ["--likelihood", "gaussian", "--carried"],
    "gaussian": ["--likelihood", "gaussian", "--sigma2", "0.1", "--guide", "amortized", "--learn-sigma2"],
    "s3": ["--preset", "s3", "--schedule", "cyclical"],
    "s4": ["--preset", "s4"],
    "s4 by the moving average": ["--preset", "s4", "--multiplier", "moving-average", "--family", "full-rank"],
    "s5": ["--preset", "s5", "--local-steps", "2"],
    "s10": ["--preset", "s10", "--batch", "16"],
    "flow and iwae": ["--guide", "amortized", "--family", "flow", "--objective", "iwae", "--evidence", "20"],
    "free flow": ["--family", "flow", "--local-steps", "2", "--free-bits", "1"],
    "ladder": ["--model", "ladder", "--guide", "amortized", "--objective", "beta", "--beta", "2"],
}


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    return ["--data", str(small.write_npz(tmp_path / "blobs.npz"))]


@pytest.fixture(autouse=True)
def _few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.fit.REPORT", Refinement(steps=3))


def without_seconds(folder: Path) -> list[list[str]]:
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    assert lines[0][-1] == "seconds"
    return [line[:-1] for line in lines]


def states(folder: Path) -> dict[str, object]:
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    for seconds in (found["history"], *found["history"]["rows"]):
        seconds.pop("seconds")
    return found


def assert_same(left: object, right: object, where: str = "") -> None:
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for position, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}/{position}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_runs_and_resumes_to_equal_bits(
    options: list[str], data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    epoch = "s7-unlabelled" in options  # in batches of 10, of all 200 images
    command = [*(["--epochs", "1", "--images", "20"] if epoch else TINY), *options, *data]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = svi.main([*command, "--out", str(whole)])
    assert run.history.step == (20 if epoch else 16)
    assert "nats per image" in capsys.readouterr().out

    record = History.record

    def record_and_stop(history: History, scalars: dict[str, torch.Tensor]) -> None:
        record(history, scalars)
        if history.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(History, "record", record_and_stop)
    with pytest.raises(SystemExit) as exit_code:
        svi.main([*command, "--out", str(cut)])
    assert exit_code.value.code == 130
    said = capsys.readouterr().err
    assert f"--resume --out {cut}" in said
    assert states(cut)["history"]["step"] == 7
    svi.main(["--resume", "--out", str(cut)])
    assert_same(states(cut), states(whole))
    assert without_seconds(cut) == without_seconds(whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, cut)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in cut.iterdir()}
    assert {"config.json", "metrics.csv", "result.json", "checkpoint.pt", "report.html", "curves.png"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_result_says_what_it_is(data: list[str], tmp_path: Path) -> None:
    svi.main([*data, *TINY, "--updates", "3", "--out", str(tmp_path / "free")])
    result = json.loads((tmp_path / "free" / "result.json").read_text())
    for part in ("train_refined", "test"):
        assert {"elbo", "elbo_se", "log_likelihood", "kl", "images"} <= result[part].keys()
        assert abs(result[part]["elbo"] - result[part]["log_likelihood"] + result[part]["kl"]) < 1e-4
    assert result["updates"] == 3
    assert result["steps"] == 16
    assert result["test"]["images"] == 20
    config = json.loads((tmp_path / "free" / "config.json").read_text())
    assert config["options"]["preset"] == "s1"
    assert config["versions"]["torch"] == torch.__version__


def test_grey_values_under_a_bernoulli_likelihood_are_labelled(tmp_path: Path) -> None:
    options = [*TINY, "--data", "digits", "--guide", "amortized", "--model", "mlp", "--hidden", "10"]
    svi.main([*options, "--out", str(tmp_path / "grey")])
    svi.main([*options, "--out", str(tmp_path / "binary"), "--binarize", "static"])
    grey, binary = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("grey", "binary"))
    assert "not comparable" in grey["likelihood"]
    assert "likelihood" not in binary
    assert (grey["data"], binary["binarize"]) == ("digits", "static")


def test_load_gives_back_the_fit(data: list[str], tmp_path: Path) -> None:
    run = svi.main([*data, *TINY, "--out", str(tmp_path / "run")])
    again = svi.load(tmp_path / "run")
    assert again.history.rows == run.history.rows
    assert not small.changed(again.guide, small.weights(run.guide))
    assert again.result(images=20, updates=3) | {"seconds": 0} == run.result(images=20, updates=3) | {"seconds": 0}


def test_compare_command(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for guide in ("free", "amortized"):
        svi.main([*data, *TINY, "--guide", guide, "--out", str(tmp_path / guide)])
    capsys.readouterr()
    folders = [str(tmp_path / "amortized"), str(tmp_path / "free")]
    found = compare.main([*folders, "--free", "4", "--images", "30"])
    assert list(found.elbo) == ["amortized", "free", "free, 4 updates"]
    assert "30 images" in capsys.readouterr().out


def test_a_fit_in_ipython_is_called_run(data: list[str], tmp_path: Path) -> None:
    script = "import runpy; g = runpy.run_path('runners/svi.py', run_name='__main__'); print(repr(g['run']))"
    command = [sys.executable, "-c", script, *data, *TINY, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("Fit(Free for VAE on ")


def saved_at(folder: Path) -> int:
    checkpoint = folder / "checkpoint.pt"
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def test_killed_at_any_moment_it_resumes_to_equal_bits(data: list[str], tmp_path: Path) -> None:
    """SIGKILL while it trains and saves as often as it can, three times; then resume to the end."""
    options = [*data, "--steps", "400", "--batch", "16", "--model", "mlp", "--hidden", "20", "--images", "20"]
    script = (
        "import runners.loop.train as loop; loop.PAUSE, loop.SAVING = 0.0, 1.0; from runners import svi; svi.main()"
    )
    command = [sys.executable, "-c", script, *options, "--updates", "3", "--resume", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, str(whole)], env=environment, check=True, capture_output=True)
    at = [0]
    for moment in (0.3, 0.7, 0.5):
        process = subprocess.Popen(
            [*command, str(cut)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before, deadline = saved_at(cut), time.monotonic() + 60
        while saved_at(cut) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment)
        process.kill()
        process.wait()
        at.append(states(cut)["history"]["step"])
    assert max(at) > 0, "no checkpoint but the first was ever resumed"
    subprocess.run([*command, str(cut)], env=environment, check=True, capture_output=True)
    assert_same(states(cut), states(whole))
    assert without_seconds(cut) == without_seconds(whole)


def test_resume_without_a_checkpoint_starts_and_says_so(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    svi.main([*data, *TINY, "--resume", "--out", str(tmp_path / "new")])
    assert "no checkpoint to go on from" in capsys.readouterr().err
    assert (tmp_path / "new" / "result.json").exists()


def test_resume_takes_the_newest_run(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    svi.main([*data, *TINY])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("svi-")
    svi.main(["--resume"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]


def test_help_shows_the_lines_to_type(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_code:
        svi.main(["--help"])
    assert exit_code.value.code == 0
    assert "python runners/svi.py --guide amortized" in capsys.readouterr().out


def test_scalars_are_recorded_by_name() -> None:
    """A run that is resumed by another version may return them in another order."""
    history = History()
    history.record({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    history.record({"b": torch.tensor(4.0), "a": torch.tensor(3.0)})
    assert history.final() == {"a": 2.0, "b": 3.0}
