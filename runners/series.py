"""A series: several runs, each in a folder of its own within another, trained one after the other."""

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ppl_models import UsageError
from runners.loop.command import interrupted
from runners.loop.folder import RunFolder
from runners.run import Run

__all__ = ["finished", "train"]


def finished(folder: RunFolder, *needed: str) -> dict[str, Any] | None:
    """The result of a run that has come to its end, with the figures that are needed; the report is written last.

    An assessment writes a report of a run that was cut, too, but then there is no result.

    Raises:
        UsageError: The result is not as a run writes it.
    """
    if not all((folder.path / file).exists() for file in ("result.json", "report.html")):
        return None
    found = folder.read_json("result.json")
    sound = isinstance(found, dict) and found.keys() >= {"data", "steps", *needed}
    if not sound or not all(_is_figure(found[name]) for name in needed):
        raise UsageError(f"{folder.path / 'result.json'}: not as a run writes it")
    return found


def _is_figure(found: Any) -> bool:
    """Whether this is a number, or numbers by their names."""
    if isinstance(found, dict):
        return bool(found) and all(map(_is_figure, found.values()))
    return isinstance(found, int | float) and math.isfinite(found)


def train(
    names: Iterable[str],
    built: Callable[[str], Run],
    *,
    folder: RunFolder,
    command: str,
    on_end: Callable[[str, Run], None],
) -> None:
    """Run each to its end, those that were cut from where they were.

    Args:
        names: Of the runs.
        built: A run by its name, with its folder, not yet run.
        folder: The series', of which is spoken where a signal ends the process.
        command: What says how to go on, where a signal ends the process.
        on_end: Called with a name and its finished run, before the next one starts.

    Raises:
        UsageError: A run does not fit together; or, after all others have been run, one left the finite numbers.
    """
    failed = []
    for name in names:
        run = built(name).resume()
        print(f"{run!r} → {run.folder.path}", file=sys.stderr)
        try:
            run.run()
        except UsageError as error:  # where numbers left the finite ones, the others are still worth having
            failed.append(f"{name}: {error}")
            print(failed[-1], file=sys.stderr)
            continue
        if run.stopped:
            interrupted(run.stopped, folder.path, command)
        on_end(name, run)
    if failed:
        raise UsageError("; ".join(failed))
