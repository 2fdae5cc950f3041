"""Run folders: config.json, metrics.csv, result.json, checkpoint.pt, pictures and report.html of one run."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppl_models import UsageError
from runners.loop.atomic import write_atomically

__all__ = ["RunFolder"]


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; made, with its parents, by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def holds_run(self) -> bool:
        """Whether there is a run in it, finished or not."""
        return any((self.path / name).exists() for name in ("config.json", "checkpoint.pt", "metrics.csv"))

    def create(self, config: dict[str, Any], *, restart: bool = False) -> None:
        """Begin a run here; with `restart`, also where one was cut off before its first checkpoint.

        Raises:
            UsageError: The folder holds a run, or cannot be written to.
        """
        if self.holds_run and not (restart and not self.checkpoint.exists()):
            raise UsageError(f"{self.path}: holds a run already; --resume goes on with it, or choose another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
            self.write_rows([])
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written to ({error.strerror})") from error

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file of the run.

        Raises:
            UsageError: It is missing or broken.
        """
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError as error:
            raise UsageError(f"{self.path}: no {name} in it, so not a run folder") from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / name}: not readable ({error})") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def append(self, row: dict[str, float]) -> None:
        """Add a row to metrics.csv, numbers to their last bit, under a header if it is the first."""
        path = self.path / "metrics.csv"
        text = _csv([row.values()] if path.exists() else [row.keys(), row.values()])
        with path.open("a") as file:
            file.write(text)

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
