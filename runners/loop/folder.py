"""Run folders: config.json, metrics.csv, result.json, checkpoint.pt, pictures and report.html of one run."""

import csv
import io
import json
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

    def create(self, config: dict[str, Any]) -> None:
        """Begin a run here.

        Raises:
            UsageError: The folder holds a run, or cannot be written to.
        """
        if self.holds_run:
            raise UsageError(f"{self.path}: holds a run already; --resume goes on with it, or choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
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
        """Add a row to metrics.csv, numbers to their last bit."""
        path = self.path / "metrics.csv"
        header = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if header:
                writer.writerow(row)
            writer.writerow(row.values())

    def rows(self, *, until: int | None = None) -> list[dict[str, float]]:
        """The rows of metrics.csv up to a step; a line cut off by a crash is left out."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        rows = []
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                try:
                    row = {name: float(value) for name, value in line.items()}
                except (TypeError, ValueError):
                    break
                if until is not None and row["step"] > until:
                    break
                rows.append(row | {"step": int(row["step"])})
        return rows

    def cut_back(self, until: int) -> list[dict[str, float]]:
        """Forget the rows after a step, and return the others."""
        rows = self.rows(until=until)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([rows[0].keys(), *(row.values() for row in rows)] if rows else [])
        path = self.path / "metrics.csv"
        if rows:
            write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        else:
            path.unlink(missing_ok=True)
        return rows
