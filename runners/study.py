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

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_models import UsageError
from runners.data import DataSet
from runners.data.corpora import TEXTS
from runners.data.sources import NAMES
from runners.loop.command import Options, command, fresh, options_of
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, add_image_options, add_run_options
from runners.origin import readable
from runners.studies import STUDIES
from runners.studies.answer import Answer
from runners.studies.inquiry import Inquiry, name_of, question_of
from runners.studies.point import ANY

__all__ = ["listing", "main", "study"]

ALL = "all"

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
    module = _found(name)
    folder = RunFolder(Path(out) if out else fresh(f"study-{name_of(module)}"))
    options = options | {"study": name_of(module), "quick": quick}
    asked = Inquiry(module, options, folder.path, {} if data is None else {ANY: data})
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
        lines.append(f"{number:4} {name_of(module):20} {quick:5g} {full:5g}  {question_of(module)}")
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
        given["study"] = name_of(_found(given["study"]))
    options, folder, resume = options_of(given, name="study", defaults=DEFAULTS, presets={"": {}}, quick={})
    if options["study"] is None:
        raise UsageError("--resume: found no study to go on with under runs/; expected a NAME")
    going_on, loaded = resume and folder.holds_run, {}
    if going_on and (images := folder.read_json("config.json").get("images")):
        raise UsageError(f"{folder.path}: was given {images} in Python; study(…, data=…, resume=True) goes on with it")
    with readable(folder, read=going_on):
        every = options["study"] == ALL
        asked = [
            Inquiry(module, options, folder.path / name_of(module) if every else folder.path, loaded, alone=not every)
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
                failed.append(f"{name_of(each.module)}: {error}" if every else str(error))
    finally:
        folder.unlock()
    if failed:
        raise UsageError("; ".join(failed))
    return answers if every else answers[0]


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
    by_name = {name_of(module): module for module in STUDIES.values()} | STUDIES
    if name not in by_name:
        raise UsageError(f"{name}: no such study; {_expected()}")
    return by_name[name]


def _expected() -> str:
    return f"expected {', '.join(map(name_of, STUDIES.values()))} or {ALL}"


if __name__ == "__main__":
    answer = main()
