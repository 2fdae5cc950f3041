"""Tables of figures: rows of named cells as Markdown and as CSV, a figure's standard error beside it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cell", "markdown", "text_csv", "title"]

ERROR = "_se"
"""What the name of a standard error ends in, after that of its figure."""

TITLES = {
    "elbo": "ELBO",
    "kl": "KL",
    "log_likelihood": "log-likelihood",
    "frechet_distance": "Fréchet distance",
    "sliced_wasserstein": "sliced Wasserstein distance",
}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, aligned; a figure and its standard error, `name` and `name_se`, share a column.

    Args:
        rows: Cells by the names of their columns; what a row lacks stays empty.
    """
    names = [name for name in _names(rows) if not name.endswith(ERROR)]
    lines = [[title(name) for name in names]]
    lines += [[cell(row.get(name), row.get(f"{name}{ERROR}")) for name in names] for row in rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(names))]
    left = [any(isinstance(row.get(name), str) for row in rows) for name in names]
    rule = [":" + "-" * (w - 1) if text else "-" * (w - 1) + ":" for w, text in zip(widths, left, strict=True)]
    padded = [
        [each.ljust(w) if text else each.rjust(w) for each, w, text in zip(line, widths, left, strict=True)]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))


def text_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same rows as CSV, numbers to their last bit, standard errors in columns of their own."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def title(name: str) -> str:
    """What a figure is called."""
    return TITLES.get(name, name.replace("_", " "))


def cell(value: Any, error: float | None = None) -> str:
    """A figure as it is read: what was set as typed, what was measured to two decimals, three digits or its error's."""
    if value is None:
        return ""
    if error is not None:
        # So many decimals that the error has a digit.
        digits = min(max(2, -math.floor(math.log10(error))), 5) if 0 < error < math.inf else 2
        return f"{value:,.{digits}f} ± {error:,.{digits}f}"
    if isinstance(value, float):
        short = f"{value:g}"
        if float(short) == value and len(short) < 7:
            return short
        return f"{value:.3g}" if abs(value) < 0.1 else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
