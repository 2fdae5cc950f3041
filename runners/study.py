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
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_models import UsageError
from runners import series
from runners.data import DataSet
from runners.loop.command import Options, command, fresh, options_of
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, add_image_options, add_run_options
from runners.studies import STUDIES
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, all_options, built, reported

__all__ = ["listing", "main", "study"]

ALL = "all"

DEFAULTS: Options = {"study": None, "quick": False} | dict.fromkeys(
    ("data", "data_root", "binarize", "text", "steps", "batch", "seed", "device", "precision")
)
"""Options that were not typed are None: each run has its own."""


def study(
    name: str, *, quick: bool = False, out: Path | str | None = None, data: DataSet | None = None, **options: Any
) -> Answer:
    """Answer a question: make its runs, measure, draw and conclude; all of it is in the folder.

    Args:
        name: Of the study, or its number, "q5".
        quick: Whether fewer steps, on drawn digits, will do.
        out: The folder; by default a new one under runs/.
        data: The images, in place of those that `data=` names as on the command line.
        options: Those of the command line, for all runs.

    Raises:
        UsageError: There is no such study, the folder holds something, or an option does not fit the runs.
    """
    module, folder = _found(name), RunFolder(Path(out) if out else fresh(f"study-{_name(_found(name))}"))
    options = options | {"study": _name(module), "quick": quick}
    points = _points(module, options)
    folder.create({"command": "study", "options": _written(options)})
    return _answer(module, points, folder.path, home=folder, quick=quick, data=data)


def listing() -> str:
    """All studies with their questions, and the minutes that they take on two cores, quick and in full."""
    lines = [f"{'':4} {'':20} {'quick':>5} {'full':>5}  minutes on two cores"]
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
            raise UsageError(
                f"--{min(given)}: of which study? expected {', '.join(map(_name, STUDIES.values()))} or all"
            )
        print(listing())
        return None
    if "study" in given and given["study"] != ALL:
        given["study"] = _name(_found(given["study"]))
    options, folder, resume = options_of(given, name="study", defaults=DEFAULTS, presets={"": {}}, quick={})
    if options["study"] is None:
        raise UsageError("--resume: found no study to go on with under runs/; expected a NAME")
    every = options["study"] == ALL
    asked = {module: _points(module, options) for module in (STUDIES.values() if every else [_found(options["study"])])}
    if resume and folder.holds_run:
        folder.lock()
    else:
        folder.create({"command": "study", "options": _written(options)})
    answers = []
    for module, points in asked.items():
        path = folder.path / _name(module) if every else folder.path
        answers.append(_answer(module, points, path, home=folder, quick=options["quick"]))
        print(answers[-1], path / "report.html", sep="\n")
    return answers if every else answers[0]


def _points(module: ModuleType, options: Options) -> dict[str, Point]:
    """The runs of a study with all of their options.

    Raises:
        UsageError: Something was typed that some of them have no use for.
    """
    given = {name: value for name, value in options.items() if value is not None and name not in ("study", "quick")}
    return {
        name: point._replace(options=all_options(point, given, quick=options["quick"]))
        for name, point in module.runs(quick=options["quick"]).items()
    }


def _answer(
    module: ModuleType,
    points: dict[str, Point],
    path: Path,
    *,
    home: RunFolder,
    quick: bool,
    data: DataSet | None = None,
) -> Answer:
    """The answer of a study whose runs are in folders under `path`; `home` is what `--resume` is told of."""
    print(f"{_name(module)}: {_question(module)}", file=sys.stderr)
    folders = {name: RunFolder(path / _folder_name(name)) for name in points}
    loaded: dict[Any, DataSet] = {}

    def build(name: str) -> Any:
        return built(points[name], folders[name], loaded=loaded, data=data)

    made = {}
    for name, folder in folders.items():
        if (result := series.finished(folder)) is not None:
            made[name] = Made(build(name).restore(folder), result)

    def ended(name: str, run: Any) -> None:
        made[name] = Made(run, reported(run, points[name]))

    series.train([name for name in points if name not in made], build, folder=home, command="study", on_end=ended)
    answer = module.answer({name: made[name] for name in points}, quick=quick)
    about = ", ".join(dict.fromkeys(one.fit.data.name for one in made.values()))
    answer = replace(answer, question=_question(module), data=about or answer.data)
    answer.write(RunFolder(path))
    return answer


def _written(options: Options) -> Options:
    """Options as config.json has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


def _folder_name(run: str) -> str:
    """What the folder of a run is called; × and ÷ stay, which may be all that tells two runs apart."""
    return re.sub(r"[^\w.×÷]+", "-", run).strip("-")


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
