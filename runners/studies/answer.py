"""The answer to a question: a table, pictures and a few sentences that the figures give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from runners import figures
from runners.loop.atomic import write_atomically
from runners.loop.folder import RunFolder
from runners.table import markdown, text_csv

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """What a study found; its repr is the question, the table and the finding.

    Attributes:
        table: Rows of figures; `name_se` is the standard error of `name`.
        pictures: By name, that which says most first.
        finding: Sentences made of the figures.
        question: What was asked.
        data: What it was asked about.
    """

    table: Sequence[dict[str, Any]]
    pictures: dict[str, Figure]
    finding: Sequence[str]
    question: str = field(default="", kw_only=True)
    data: str = field(default="", kw_only=True)

    def show(self) -> Figure:
        """The picture that says most."""
        return next(iter(self.pictures.values()))

    def __repr__(self) -> str:
        return "\n\n".join([f"{self.question} ({self.data})", markdown(self.table), " ".join(self.finding)])

    def _repr_html_(self) -> str:
        return figures.html(repr(self), *self.pictures.values())

    def write(self, folder: RunFolder) -> None:
        """Leave the table, the pictures, the finding and a page with all of them in a study's folder."""
        found = {"data": self.data, "question": self.question, "finding": list(self.finding), "table": self.table}
        folder.path.mkdir(parents=True, exist_ok=True)  # a study without runs has made none yet
        folder.write_json("result.json", found)
        for name, content in {
            "table.md": f"{markdown(self.table)}\n",
            "table.csv": text_csv(self.table),
            "finding.md": f"{self!r}\n",
        }.items():
            write_atomically(folder.path / name, lambda file, content=content: file.write(content.encode()))
        for name, picture in self.pictures.items():
            figures.save(picture, folder.path / f"{name}.png")
        figures.report(folder.path, result=found)
