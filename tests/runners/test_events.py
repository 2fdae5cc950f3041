"""TensorBoard's events: the rows of metrics.csv and the pictures, also after a resume; and what is said without it."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import small
import torch

from ppl_models import UsageError
from runners import gan, svi, text
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.loop.train import train
from runners.text_fit import TextFit

quiet: dict[str, Any] = {"batch": 20, "every": 3, "progress": False, "tensorboard": True}


def read(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[int]]]:
    """What TensorBoard itself reads: scalars by name, and at which steps there are pictures."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}
    return scalars, {name: [event.step for event in found.Images(name)] for name in found.Tags()["images"]}


def in_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    values = {name: [(int(row["step"]), float(row[name])) for row in rows] for name in rows[0] if name != "step"}
    return {name: [(step, pytest.approx(value, rel=1e-6)) for step, value in column] for name, column in values.items()}


def fits(kind: str, out: Path, **settings: Any) -> Fit | GanFit | TextFit:
    torch.manual_seed(0)
    settings = quiet | {"out": out} | settings
    if kind == "svi":
        return Fit(small.model(), small.amortized(), small.data_set(), **settings)
    if kind == "gan":
        return GanFit(*small.networks(), small.data_set(), **settings)
    data = small.text()
    return TextFit(small.reader(data), data, **settings)


@pytest.mark.parametrize("kind", ["svi", "gan", "text"])
def test_events_are_the_rows_of_metrics(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit = fits(kind, tmp_path / "run", steps=9, **({"pictures": 3} if kind != "text" else {})).run()
    scalars, images = read(tmp_path / "run")
    assert scalars == in_metrics(tmp_path / "run")
    assert [step for step, _ in scalars["loss" if kind == "svi" else "seconds"]] == [3, 6, 9]
    drawn = {"svi": {"predictive": [3, 6, 9]}, "gan": {"samples": [3, 6, 9]}, "text": {}}
    assert images == drawn[kind]
    fit.run(6)  # further in the same process
    assert read(tmp_path / "run")[0] == in_metrics(tmp_path / "run")
    assert "tensorboard" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_what_came_after_the_checkpoint_is_forgotten_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run dies at step 11 with its last checkpoint at 7; its rows at 9 are of a future that never was."""
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    whole = fits("svi", tmp_path / "whole", steps=15).run()
    fits("svi", out, steps=7).run()

    class Died(Exception):
        pass

    def dying(step: Any, stream: Any, history: Any, **settings: Any) -> None:
        settings["save"] = None
        after = settings["on_step"]

        def on_step(done: int) -> None:
            if done == 11:
                raise Died
            after(done)

        train(step, stream, history, **settings | {"on_step": on_step})

    first = fits("svi", out, steps=15)
    first.resume()
    with monkeypatch.context() as patched:
        patched.setattr("runners.run.train", dying)
        with pytest.raises(Died):
            first.run()
    first.folder.unlock()
    assert [step for step, _ in read(out)[0]["loss"]] == [3, 6, 7, 9]
    second = fits("svi", out, steps=15)
    second.resume().run()
    assert [step for step, _ in read(out)[0]["loss"]] == [3, 6, 7, 9, 12, 15]
    assert read(out)[0] == in_metrics(out)
    assert not small.changed(second.model, small.weights(whole.model))


def test_the_command_can_begin_with_it_at_any_time(tmp_path: Path) -> None:
    """Events begun on resume have the rows from before; without the option there are none."""
    pytest.importorskip("tensorboard")
    out = str(tmp_path / "run")
    line = ["--data", str(small.write_npz(tmp_path / "blobs.npz")), "--guide", "amortized", "--model", "mlp"]
    svi.main([*line, "--hidden", "8", "--steps", "5", "--batch", "16", "--images", "8", "--out", out])
    assert not list(Path(out).glob("events*"))
    resumed = svi.main(["--resume", "--out", out, "--tensorboard"])
    resumed.run(3)
    assert read(Path(out))[0] == in_metrics(Path(out))
    assert [step for step, _ in read(Path(out))[0]["elbo"]] == [5, 8]
    assert (Path(out) / "report.html").exists()


def test_without_the_package_one_line_before_anything_is_trained_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    story = tmp_path / "story.txt"
    story.write_text("the cat bit the hen. " * 300)
    blobs = ["--data", small.write_npz(tmp_path / "blobs.npz")]
    for main, line in ((svi.main, [*blobs, "--guide", "amortized"]), (gan.main, blobs)):
        said = small.refused(main, capsys, *line, "--tensorboard", "--out", tmp_path / "run")
        assert "pip install tensorboard" in said
    with pytest.raises(SystemExit) as ended:
        text.main(["--text", str(story), "--tensorboard", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert not (tmp_path / "run").exists()


def test_events_need_a_run_folder() -> None:
    with pytest.raises(UsageError, match="tensorboard: .* run folder, expected out="):
        fits("svi", None)
