"""The command of the studies: what it lists, refuses, leaves behind, and how it goes on."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import small
import torch

from ppl_models import UsageError
from runners import figures
from runners.fit import Fit
from runners.loop.folder import RunFolder
from runners.loop.train import train
from runners.studies import STUDIES
from runners.studies.answer import Answer
from runners.studies.point import all_options, of_svi
from runners.study import listing, main, study
from runners.table import cell, markdown, text_csv

HERE = Path(__file__).parents[2] / "runners" / "studies"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fit, "final_figures", lambda self, found: {})


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A study on random blobs, three steps a run."""
    return ["annealing", "--data", str(small.write_npz(tmp_path / "blobs.npz")), "--steps", "3", "--batch", "16"]


def digests(folder: Path) -> dict[str, list[float]]:
    """The last training figures of each run of a study's folder."""
    files = sorted(folder.glob("*/result.json"))
    return {path.parent.name: list(json.loads(path.read_text())["train"].values()) for path in files}


def test_every_study_is_listed_with_its_time_and_has_a_worksheet() -> None:
    said = listing().splitlines()[1:]
    assert len(said) == len(STUDIES)
    for text, (number, module) in zip(said, STUDIES.items(), strict=True):
        quick, full = module.MINUTES
        assert text.split()[0] == number
        assert 0 < quick <= 2
        assert quick < full
        name = module.__name__.rpartition(".")[2]
        page = (HERE / f"{name}.md").read_text()
        assert f"({number.upper()})" in page.splitlines()[0]
        assert module.__doc__.splitlines()[0] in page
        assert "![" in page
        assert f"({name}.png)" in page


@pytest.mark.parametrize("number", STUDIES)
@pytest.mark.parametrize("quick", [True, False])
def test_every_run_has_options_that_its_command_knows(number: str, quick: bool) -> None:
    for point in STUDIES[number].runs(quick=quick).values():
        made = all_options(point, {}, quick=quick)
        if "check_options" in vars(point.command):
            typed = {name: value for name, value in point.options.items() if value != point.command.DEFAULTS[name]}
            point.command.check_options(typed, made)


def test_without_a_name_the_studies_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main([]) is None
    assert main(["--list"]) is None
    assert capsys.readouterr().out == f"{listing()}\n" * 2


def test_a_study_leaves_tables_pictures_and_run_folders(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    answer = main([*line, "--out", str(tmp_path / "study")])
    folder = tmp_path / "study"
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [float(row["kl"]) for row in rows] == [row["kl"] for row in answer.table]
    assert markdown(answer.table) == (folder / "table.md").read_text().rstrip("\n")
    assert answer.finding[0] in (folder / "finding.md").read_text()
    assert (folder / "annealing.png").stat().st_size > 10_000
    page = (folder / "report.html").read_text()
    assert "cyclical" in page
    assert answer.question in page
    assert {path.parent.name for path in folder.glob("*/checkpoint.pt")} == {row["weight"] for row in answer.table}
    assert repr(answer) in capsys.readouterr().out


def test_a_study_that_was_cut_ends_as_one_that_was_not(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    main([*line, "--out", str(tmp_path / "whole")])
    calls = []

    def cut(*args: object, **settings: object) -> object:
        calls.append(0)
        if len(calls) == 3:  # in the third run, after its second step
            on_step = settings["on_step"]
            settings["on_step"] = lambda step: (on_step(step), step == 2 and os.kill(os.getpid(), signal.SIGTERM))
        return train(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("runners.run.train", cut)
        with pytest.raises(SystemExit) as ended:
            main([*line, "--out", str(tmp_path / "cut")])
    assert ended.value.code == 128 + signal.SIGTERM
    assert f"study.py --resume --out {tmp_path / 'cut'}" in capsys.readouterr().err
    assert len(digests(tmp_path / "cut")) == 2
    resumed = main(["--resume", "--out", str(tmp_path / "cut")])
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    again = main(["--resume", "--out", str(tmp_path / "cut")])  # nothing left to train: the same answer
    assert [row["elbo"] for row in again.table] == [row["elbo"] for row in resumed.table]


def test_what_was_typed_wins_over_quick_and_the_studys_own() -> None:
    point = of_svi(guide="amortized", steps=500, objective="constrained", target=-100.0)
    assert all_options(point, {}, quick=True)["steps"] == 500
    assert all_options(point, {}, quick=True)["data"] == "digits"
    assert all_options(point, {}, quick=False)["data"] == "auto"
    assert all_options(point, {"steps": 7, "data": "fashion"}, quick=True)["steps"] == 7
    assert all_options(point, {"data": "fashion"}, quick=True)["data"] == "fashion"
    assert all_options(of_svi(preset="s7", steps=5), {}, quick=False)["epochs"] is None
    with pytest.raises(UsageError, match="--text: changes nothing in runs of svi.py"):
        all_options(point, {"text": "a.txt"}, quick=True)


def test_in_python_a_study_takes_images_and_a_number(tmp_path: Path) -> None:
    answer = study("q5", data=small.data_set(), steps=2, batch=16, out=tmp_path / "study", quick=True)
    assert answer.data == "bars"
    assert answer.show() is next(iter(answer.pictures.values()))


def test_what_is_wrong_is_said_in_one_line(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "no such study; expected" in small.refused(main, capsys, "q99")
    assert "of which study?" in small.refused(main, capsys, "--steps", 3)
    assert "--text: changes nothing" in small.refused(main, capsys, *line, "--text", "x", "--out", tmp_path / "a")
    held = tmp_path / "held"
    held.mkdir()
    (held / "config.json").write_text("{}")
    assert "holds a run already" in small.refused(main, capsys, *line, "--out", held)
    assert "not made by a command" in small.refused(main, capsys, "--resume", "--out", held)


def test_images_given_in_python_are_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given = {"data": small.data_set(), "steps": 2, "batch": 16, "quick": True, "out": tmp_path / "study"}
    first = study("annealing", **given)
    assert "was given bars in Python" in small.refused(main, capsys, "--resume", "--out", tmp_path / "study")
    assert study("annealing", resume=True, **given).table == first.table
    with pytest.raises(UsageError, match="with other options"):
        study("annealing", resume=True, **given | {"steps": 3})


def test_a_study_goes_on_from_another_folder_and_knows_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    small.write_npz(tmp_path / "blobs.npz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    first = main(["annealing", "--data", "blobs.npz", "--steps", "2", "--batch", "16", "--out", "study"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["--resume", "--out", "../study"]
    assert main(again).table == first.table
    run = tmp_path / "study" / "rising"
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"test": {"elbo": "high"}}))
    assert "result.json: not as a run writes it" in small.refused(main, capsys, *again)
    (run / "result.json").write_text(json.dumps(result))
    run.rename(tmp_path / "study" / "kept")
    (tmp_path / "study" / "falling").rename(run)
    assert "found a run with the objective" in small.refused(main, capsys, *again)


def test_an_answer_without_runs_makes_its_folder(tmp_path: Path) -> None:
    answer = Answer([{"rows": 3}], {"empty": figures.curves([])}, ["Nothing."], question="Why?", data="tables")
    answer.write(RunFolder(tmp_path / "all" / "study"))
    assert json.loads((tmp_path / "all" / "study" / "result.json").read_text())["finding"] == ["Nothing."]


def test_tables_share_a_column_with_standard_errors() -> None:
    rows = [{"run": "a", "elbo": -100.123, "elbo_se": 0.456, "lr": 1e-3}, {"run": "b", "elbo": -99.0, "n": 12345}]
    assert markdown(rows).splitlines() == [
        "| run |           ELBO |    lr |      n |",
        "| :-- | -------------: | ----: | -----: |",
        "| a   | -100.12 ± 0.46 | 0.001 |        |",
        "| b   |            -99 |       | 12,345 |",
    ]
    assert text_csv(rows).splitlines()[:2] == ["run,elbo,elbo_se,lr,n", "a,-100.123,0.456,0.001,"]
    assert cell(float(torch.tensor(1 / 3))) == "0.33"
    assert cell(0.0123456) == "0.0123"
    assert cell(123456.789) == "123,457"
