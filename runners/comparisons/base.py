"""What all comparisons are: a table and a picture."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from runners import figures

__all__ = ["Comparison", "rows_of", "with_error"]


class Comparison:
    """Fits side by side, shown as a table, in a notebook with the picture beneath it."""

    def lines(self) -> list[str]:
        """The table."""
        raise NotImplementedError

    def show(self) -> Figure:
        """The picture."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return figures.html(repr(self), self.show())


def rows_of(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the first column flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]


def with_error(mean: float, error: float, *, digits: int = 2, sign: str = "") -> str:
    """A mean as text, its standard error behind it where that is a number."""
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")
