"""Where a run comes from: its data, device and length from options, and its config.json read again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppl_models import UsageError
from runners import data as sources
from runners.data import DataSet
from runners.loop import processes
from runners.loop.command import Options
from runners.loop.errors import first_line, is_out_of_memory
from runners.loop.folder import RunFolder
from runners.loop.history import WINDOW

__all__ = ["SOURCE", "as_written", "config_in", "data_again", "data_of", "length_of", "origin_of", "readable"]

SOURCE = ("data", "data_root", "binarize", "all_train")
"""The options that say which data a run is on."""


def config_in(run: RunFolder, *, command: str) -> dict[str, Any]:
    """The config.json of a run of a command, or of a fit that was saved in Python.

    Raises:
        UsageError: It is none.
    """
    config = run.read_json("config.json")
    if not isinstance(config, dict):
        raise UsageError(f"{run.path / 'config.json'}: not as a run writes it")
    if config.get("command", command) != command:
        raise UsageError(f"{run.path}: was made by {config['command']}.py, expected a run of {command}.py")
    return config


@contextmanager
def readable(run: RunFolder, *, read: bool = True) -> Iterator[None]:
    """Say of what goes wrong inside that a run's config.json is not as the run wrote it, if that is `read` there.

    Raises:
        UsageError: Something went wrong.
    """
    try:
        yield
    except UsageError as error:
        if not str(error).startswith("config.json"):
            raise
        raise UsageError(f"{run.path}/{error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        if not read:
            raise
        config, line = run.path / "config.json", first_line(error)
        if is_out_of_memory(error):
            raise UsageError(f"{config}: describes more than memory holds ({line})") from error
        raise UsageError(f"{config}: {line} is missing or not as a run writes it") from error


def as_written(options: Options, *, file: str, names: Sequence[str]) -> Options:
    """Options as config.json has them: paths as text, that of the data's `file` from anywhere, unless it is a name."""
    written = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if written[file] not in names and Path(written[file]).exists():
        written[file] = str(Path(written[file]).resolve())
    return written


def data_of(options: Options) -> DataSet:
    """The data set that options name; of several processes rank 0 downloads or decodes it, for all.

    Raises:
        UsageError: There is none, or it lacks the labels that `--conditional` needs.
    """
    names = {"root": "data_root", "binarize": "binarize", "all_train": "all_train"}
    given = {name: options[option] for name, option in names.items()}
    data = processes.first_then_rest(lambda: sources.load(options["data"], **given))
    if options.get("conditional") and data.train.labels is None:
        raise UsageError(f"--conditional: {data.name} has no labels")
    return data


def data_again(config: dict[str, Any], *, data_root: Path | None) -> tuple[DataSet, dict[str, Any]]:
    """The data set of a run from its config.json, and what of its origin a fit of that keeps.

    Args:
        config: The contents.
        data_root: Where data sets are now, if not where the run had them.
    """
    named = {"data": config["data"]["name"], "binarize": config["data"]["binarize"]}
    source = config.get("options") or config.get("source") or named
    moved = {} if data_root is None else {"data_root": data_root}
    if not Path(source.get("data_root") or ".").exists():
        moved = {"data_root": data_root}  # gone from where the run had it
    kept = {name: source[name] for name in SOURCE if name in source}
    return data_of({"data_root": None, "all_train": False} | kept | moved), {"source": kept}


def length_of(options: Options, data: DataSet, *, batches: int = 1) -> tuple[int, int]:
    """The steps of a run, each of so many batches, and how many steps there are between two rows of its history.

    Raises:
        UsageError: A batch is larger than the training set.
    """
    if not options["epochs"]:
        return options["steps"], 100
    epoch = len(data.train) // (options["batch"] * batches)
    if not epoch:
        most = len(data.train) // batches
        raise UsageError(
            f"--batch: found {options['batch']}, expected at most {most}, so that an epoch of {len(data.train)} "
            f"training images has a step{f' of {batches} batches' if batches > 1 else ''}"
        )
    return options["epochs"] * epoch, epoch if epoch <= WINDOW else 100


def origin_of(options: Options, data: DataSet, *, command: str) -> dict[str, Any]:
    """What config.json says of a run's command: its options, as they can be read again wherever it is resumed."""
    # What it was this time, whatever is on disk when the run is resumed.
    written = as_written(
        options | ({"data": data.name} if options["data"] == "auto" else {}), file="data", names=sources.NAMES
    )
    return {"command": command, "options": written, "source": {name: written[name] for name in SOURCE}}
