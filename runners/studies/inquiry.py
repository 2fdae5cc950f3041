"""An inquiry: a study that is asked for, with all options of its runs, from its runs to its answer."""

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_models import UsageError
from runners import gan, series, svi, text
from runners.blueprint import config_of
from runners.data import DataSet
from runners.gan_fit import GanFit
from runners.loop.command import Options
from runners.loop.folder import RunFolder
from runners.run import Run
from runners.studies.answer import Answer
from runners.studies.point import Made, built, planned, reported

__all__ = ["Inquiry", "folder_name", "name_of", "question_of"]

NEEDED = {svi: ("test",), gan: ("train",), text: ("test",)}
"""Figures of a finished run that answers are made of."""

SAME = ("model", "guide", "objective", "generator", "critic", "steps", "batch", "seed")
"""What of config.json tells one run of a study from another."""


class Inquiry:
    """A study that is asked for: its runs with all of their options, and where they go.

    Args:
        module: The study.
        options: Those of the command.
        path: The study's folder.
        loaded: Data sets that were loaded already, by what they were loaded from.
        alone: Whether options that the study has no use for are refused; beside other studies it leaves them out.

    Raises:
        UsageError: Something was typed that the study has no use for.
    """

    def __init__(
        self, module: ModuleType, options: Options, path: Path, loaded: dict[Any, DataSet], *, alone: bool = True
    ) -> None:
        self.module, self.path, self.loaded, self.quick = module, path, loaded, options["quick"]
        given = {name: value for name, value in options.items() if value is not None and name not in ("study", "quick")}
        self.points = planned(module.runs(quick=self.quick), given, quick=self.quick, refuse=alone)

    def folder(self, name: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.path / folder_name(name))

    def build(self, name: str) -> Run:
        """A run, not yet run."""
        return built(self.points[name], self.folder(name), loaded=self.loaded)

    def rehearse(self) -> None:
        """Try the first run, without a classifier, so that nothing is written for what does not fit.

        Raises:
            UsageError: It does not fit together.
        """
        if not self.points:
            return
        run = self.build(next(iter(self.points)))
        if not isinstance(run, GanFit):
            run.rehearse()

    def answer(self, *, home: RunFolder) -> Answer:
        """Train what is not trained yet, and answer; `home` is what `--resume` is told of.

        Raises:
            UsageError: A run does not fit together, or left the finite numbers.
        """
        made = {}
        for name in self.points:
            folder, command = self.folder(name), self.points[name].command
            if (result := series.finished(folder, "seconds", *NEEDED[command])) is not None:
                run = self.build(name)
                _check_same(run, folder)
                made[name] = Made(run.restore(folder), result)

        def ended(name: str, run: Run) -> None:
            made[name] = Made(run, reported(run, self.points[name]))

        pending = [name for name in self.points if name not in made]
        try:
            series.train(pending, self.build, folder=home, command="study", on_end=ended)
        except UsageError:
            if not {name for name in pending if name not in made} <= set(getattr(self.module, "MAY_DIVERGE", ())):
                raise
        answer = self.module.answer({name: made[name] for name in self.points if name in made}, quick=self.quick)
        about = ", ".join(dict.fromkeys(one.fit.data.name for one in made.values()))
        answer = replace(answer, question=question_of(self.module), data=about or answer.data)
        answer.write(RunFolder(self.path))
        return answer


def folder_name(run: str) -> str:
    """What the folder of a run is called; × and ÷ stay, which may be all that tells two runs apart."""
    return re.sub(r"[^\w.×÷]+", "-", run).strip("-")


def _check_same(run: Run, folder: RunFolder) -> None:
    """Refuse a finished run of another length or seed than is asked for, as when folders were renamed.

    Raises:
        UsageError: It is one.
    """
    now, was = config_of(run), folder.read_json("config.json")
    for name in SAME:
        if name in now and (not isinstance(was, dict) or was.get(name) != now[name]):
            found = was.get(name) if isinstance(was, dict) else was
            raise UsageError(f"{folder.path}: found a run with the {name} {found}, expected {now[name]}")


def name_of(module: ModuleType) -> str:
    """What a study is called on the command line."""
    return module.__name__.rpartition(".")[2].replace("_", "-")


def question_of(module: ModuleType) -> str:
    """What a study asks."""
    return (module.__doc__ or "").splitlines()[0]
