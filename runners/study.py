"""The studies: questions that courses ask, each answered with a picture, a table and a few sentences.

    python runners/study.py --list                   all of them, with how long they take, as without a name
    python runners/study.py annealing                what annealing does, on MNIST; or by its number, q5
    python runners/study.py annealing --quick        in two minutes at most, on digits drawn here
    python runners/study.py all --quick              all of them in one folder
    python runners/study.py --resume                 go on with the newest, where it was cut
    python runners/study.py annealing --data fashion --steps 1000 --seed 1

Each is a module of runners/studies/, with a worksheet beside it: the question, what theory says, what to look for. Its
folder holds a run folder of svi.py, gan.py or text.py for each of its runs, which those commands and `load` take.

In Python: `study("annealing", quick=True)`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_models import UsageError
from runners import gan, series, svi, text
from runners.blueprint import config_of
from runners.data import DataSet
from runners.data.corpora import TEXTS
from runners.data.sources import NAMES
from runners.gan_fit import GanFit
from runners.loop.command import Options, command, fresh, options_of
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, add_image_options, add_run_options
from runners.origin import readable
from runners.run import Run
from runners.studies import STUDIES
from runners.studies.answer import Answer
from runners.studies.point import ANY, Made, built, planned, reported

__all__ = ["folder_name", "listing", "main", "study"]

ALL = "all"

NEEDED = {svi: ("test",), gan: ("train",), text: ("test",)}
"""Figures of a finished run that answers are made of."""

SAME = ("model", "guide", "objective", "generator", "critic", "steps", "batch", "seed")
"""What of config.json tells one run of a study from another."""

DEFAULTS: Options = {"study": None, "quick": False} | dict.fromkeys(
    ("data", "data_root", "binarize", "text", "steps", "batch", "seed", "device", "precision", "tensorboard")
)
"""Options that were not typed are None: each run has its own."""


def study(
    name: str,
    *,
    quick: bool = False,
    out: Path | str | None = None,
    data: DataSet | None = None,
    resume: bool = False,
    **options: Any,
) -> Answer:
    """Answer a question: make its runs, measure, draw and conclude; all of it is in the folder.

    Args:
        name: Of the study, or its number, "q5".
        quick: Whether fewer steps, on drawn digits, will do.
        out: The folder; by default a new one under runs/.
        data: The images, in place of the study's own.
        resume: Whether to go on with what is in the folder.
        options: Those of the command line, for all runs.

    Raises:
        UsageError: There is no such study, the folder holds something, or an option does not fit the runs.
    """
    module, folder = _found(name), RunFolder(Path(out) if out else fresh(f"study-{_name(_found(name))}"))
    options = options | {"study": _name(module), "quick": quick}
    asked = _Asked(module, options, folder.path, {} if data is None else {ANY: data})
    asked.rehearse()
    config = {"command": "study", "options": _written(options), "images": None if data is None else data.name}
    if resume and folder.holds_run:
        if folder.read_json("config.json") != config:
            raise UsageError(f"{folder.path}: was begun as another study or with other options")
        folder.lock()
    else:
        folder.create(config)
    try:
        return asked.answer(home=folder)
    finally:
        folder.unlock()


def listing() -> str:
    """All studies with their questions, and the minutes that they take on one core, quick and in full."""
    lines = [f"{'':4} {'':20} {'quick':>5} {'full':>5}  minutes on one core"]
    for number, module in STUDIES.items():
        quick, full = module.MINUTES
        lines.append(f"{number:4} {_name(module):20} {quick:5g} {full:5g}  {_question(module)}")
    return "\n".join(lines)


@command
def main(argv: Sequence[str] | None = None) -> Answer | list[Answer] | None:
    """Run the command; returns the answer, or all of them."""
    parser = Parser("Questions about deep generative models, answered.", __doc__)
    parser.usage = "%(prog)s [NAME] [options]"
    parser.add_argument("study", nargs="?", metavar="NAME", help="a study, its number, or all; without one, a list")
    add_image_options(parser)
    parser.add_argument("--text", help="what text studies read: as text.py has it")
    add_run_options(parser)
    parser.add_argument("--list", action="store_true", help="the studies and how long they take")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    if given.pop("list", False) or ("study" not in given and not given.get("resume")):
        if given:
            raise UsageError(f"--{min(given)}: of which study? {_expected()}")
        print(listing())
        return None
    if "study" in given and given["study"] != ALL:
        given["study"] = _name(_found(given["study"]))
    options, folder, resume = options_of(given, name="study", defaults=DEFAULTS, presets={"": {}}, quick={})
    if options["study"] is None:
        raise UsageError("--resume: found no study to go on with under runs/; expected a NAME")
    going_on, loaded = resume and folder.holds_run, {}
    if going_on and (images := folder.read_json("config.json").get("images")):
        raise UsageError(f"{folder.path}: was given {images} in Python; study(…, data=…, resume=True) goes on with it")
    with readable(folder, read=going_on):
        every = options["study"] == ALL
        asked = [
            _Asked(module, options, folder.path / _name(module) if every else folder.path, loaded)
            for module in (STUDIES.values() if every else [_found(options["study"])])
        ]
        for each in asked:
            each.rehearse()  # before anything is written
    if going_on:
        folder.lock()
    else:
        folder.create({"command": "study", "options": _written(options)})
    answers, failed = [], []
    try:
        for each in asked:
            try:
                answers.append(each.answer(home=folder))
                print(answers[-1], each.path / "report.html", sep="\n")
            except UsageError as error:  # the other studies are still worth having
                failed.append(f"{_name(each.module)}: {error}" if every else str(error))
    finally:
        folder.unlock()
    if failed:
        raise UsageError("; ".join(failed))
    return answers if every else answers[0]


class _Asked:
    """A study that is asked for: its runs with all of their options, and where they go.

    Args:
        module: The study.
        options: Those of the command; where all studies are asked for, each takes those that it has a use for.
        path: The study's folder.
        loaded: Data sets that were loaded already, by what they were loaded from.

    Raises:
        UsageError: Something was typed that the study has no use for.
    """

    def __init__(self, module: ModuleType, options: Options, path: Path, loaded: dict[Any, DataSet]) -> None:
        self.module, self.path, self.loaded, self.quick = module, path, loaded, options["quick"]
        given = {name: value for name, value in options.items() if value is not None and name not in ("study", "quick")}
        self.points = planned(module.runs(quick=self.quick), given, quick=self.quick, refuse=options["study"] != ALL)

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
        for name in list(self.points)[:1]:
            run = self.build(name)
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
        answer = replace(answer, question=_question(self.module), data=about or answer.data)
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


def _written(options: Options) -> Options:
    """Options as config.json has them, paths from anywhere."""
    written = dict(options)
    for name, known in {"data": NAMES, "text": TEXTS, "data_root": ()}.items():
        value = options.get(name)
        if value is not None and value not in known and Path(value).exists():
            written[name] = str(Path(value).resolve())
    return {name: str(value) if isinstance(value, Path) else value for name, value in written.items()}


def _found(name: str) -> ModuleType:
    """A study by its name or number.

    Raises:
        UsageError: There is none.
    """
    by_name = {_name(module): module for module in STUDIES.values()} | STUDIES
    if name not in by_name:
        raise UsageError(f"{name}: no such study; {_expected()}")
    return by_name[name]


def _expected() -> str:
    return f"expected {', '.join(map(_name, STUDIES.values()))} or {ALL}"


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", "-")


def _question(module: ModuleType) -> str:
    return (module.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    answer = main()
