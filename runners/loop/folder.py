"""Run folders: config.json, metrics.csv, result.json, checkpoint.pt, pictures and report.html of one run."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppl_models import UsageError
from runners.loop.atomic import named, write_atomically
from runners.loop.processes import first_alone

try:
    import fcntl
except ImportError:  # where there is no such thing (Windows), nobody watches
    fcntl = None

__all__ = ["RunFolder"]


class RunFolder:
    """One run on disk, in which of several processes rank 0 alone writes: what others write goes nowhere.

    Args:
        path: The folder; made, with its parents, by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def holds_run(self) -> bool:
        """Whether there is a run in it, finished or not."""
        return (self.path / "config.json").exists() or self.checkpoint.exists()

    @first_alone
    def create(self, config: dict[str, Any], *, restart: bool = False) -> None:
        """Begin a run here; with `restart`, also where one was cut off before its first checkpoint.

        Raises:
            UsageError: The folder holds a run or anything else, is in use, or cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock()
            found = {path.name for path in self.path.iterdir() if not path.name.endswith(".partial")}
            if self.holds_run and not (restart and found <= {"config.json"}):
                raise UsageError(
                    f"{self.path}: holds a run already; --resume goes on with it, or choose another folder"
                )
            if found - {"config.json"}:
                raise UsageError(f"{self.path}: is not empty ({min(found)}); choose another folder")
            self.write_json("config.json", config)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written to ({error.strerror})") from error

    @first_alone
    def lock(self) -> None:
        """Keep others from training into this folder, until `unlock` or the end of the process.

        Raises:
            UsageError: Somebody is.
        """
        if fcntl is None or self._lock is not None:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.unlock()
            raise UsageError(f"{self.path}: another run is training into this folder") from error

    def unlock(self) -> None:
        """Let others in again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __del__(self) -> None:
        self.unlock()

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file of the run.

        Raises:
            UsageError: It is missing or broken.
        """
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError as error:
            raise UsageError(f"{self.path}: no {name} in it, so not a run folder") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.path / name}: not readable ({error})") from error

    @first_alone
    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    @first_alone
    def append(self, row: dict[str, float]) -> None:
        """Add a row to metrics.csv, numbers to their last bit, under a header if it is the first."""
        path = self.path / "metrics.csv"
        text = _csv([row.values()] if path.exists() else [row.keys(), row.values()])
        with named(path), path.open("a") as file:
            file.write(text)

    @first_alone
    def write_rows(self, rows: Sequence[dict[str, float]]) -> None:
        """Make metrics.csv hold these rows and no others."""
        path = self.path / "metrics.csv"
        if rows:
            text = _csv([rows[0].keys(), *(row.values() for row in rows)])
            write_atomically(path, lambda file: file.write(text.encode()))
        else:
            path.unlink(missing_ok=True)


def _csv(lines: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
