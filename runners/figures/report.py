"""A run folder as one self-contained page."""

import base64
import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from runners.loop.atomic import write_atomically
from runners.table import markdown

__all__ = ["report"]

TERMS = ("elbo", "log_likelihood", "kl")
LAST_ROWS = 10
HEADLINE = {"model": "{}", "guide": "{} guide", "objective": "{} objective", "loss": "{} loss", "data": "{}"}

LOOKS = {"assessment.json": "Assessment", "inversion.json": "Inversion", "paths.json": "Paths"}
"""What commands that look at a finished run leave in its folder."""

STYLE = """
:root { color-scheme: light dark; --faint: color-mix(in srgb, CanvasText 60%, Canvas); --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; }
.faint, figcaption { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; }
.pairs td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.pairs td:first-child { color: var(--faint); }
figure { display: inline-block; vertical-align: top; max-width: 100%; margin: 1rem 1rem 1rem 0; overflow-x: auto; }
figure img { max-width: 100%; max-height: max(40rem, 90vh); background: #fff; border-radius: 4px; padding: 6px;
             box-sizing: border-box; border: 1px solid var(--line); }
.broad img { min-width: 50rem; }
summary { cursor: pointer; font-size: 1.1rem; font-weight: 600; margin: 2rem 0 .5rem; }
"""


def report(folder: Path, *, result: Mapping[str, Any] | None = None) -> Path:
    """Write `folder/report.html` from the folder's config.json, result.json, metrics.csv, pictures and `LOOKS`.

    The page loads nothing: figures and style are inside it. A file that is missing is named in its place.

    Args:
        folder: A run folder.
        result: Figures in place of result.json, of a folder of several runs, which has no log of its own.

    Returns:
        The page's path.
    """
    config, log = _read(folder / "config.json"), "" if result is not None else _metrics(folder / "metrics.csv")
    result = _read(folder / "result.json") if result is None else result
    headline = _headline(config or {}, result or {}) or folder.resolve().name
    body = [
        f"<h1>{escape(headline)}</h1>",
        f'<p class="faint">{escape(folder.resolve().name)}</p>',
        "<h2>Result</h2>",
        _missing("result.json") if result is None else _result(result),
        *(line for name, title in LOOKS.items() for line in _look(title, _read(folder / name) or {})),
        "<h2>Figures</h2>",
        *([_figure(path) for path in sorted(folder.glob("*.png"), key=_natural)] or [_missing("*.png")]),
        log,
        "<details><summary>Settings</summary>",
        _missing("config.json") if config is None else _pairs({k: _plain(v) for k, v in _flat(config).items()}),
        "</details>",
    ]
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escape(headline)}</title>
<style>{STYLE}</style>
</head>
<body>
{chr(10).join(body)}
</body>
</html>
"""
    path = folder / "report.html"
    write_atomically(path, lambda file: file.write(page.encode(errors="replace")))
    return path


def _read(path: Path) -> dict[str, Any] | None:
    """The figures in a file; of one that is damaged none, and a line says so."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    print(f"{path}: not as a run writes it, left out of report.html", file=sys.stderr)
    return None


def _missing(name: str) -> str:
    return f'<p class="faint">No {escape(name)} in this folder.</p>'


def _headline(config: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Model, guide, objective, data and steps, those that are known; what was used goes before what was asked for."""
    # A part that is a dict of settings says what it is under `name` or `made by`.
    settings = {re.sub(r"\.(name|made by)$", "", key): value for key, value in _flat(config).items()}

    def setting(name: str) -> Any:
        keys = [key for key in settings if f".{key}".endswith(f".{name}")]
        return settings[min(keys, key=lambda key: key.count("."))] if keys else None

    words = []
    for name, phrase in HEADLINE.items():
        known = [value for value in (result.get(name), setting(name)) if isinstance(value, str)]
        words += [phrase.format(value) for value in known[:1]]
    steps = result.get("steps", setting("steps"))
    return " · ".join(words + [f"{_number(steps)} steps"] * isinstance(steps, int))


def _result(result: Mapping[str, Any]) -> str:
    """A row for each split, a column for each of its figures; everything else beneath.

    A result in other units than nats per image says so under `unit`.
    """
    splits = {
        name: _with_errors(value)
        for name, value in result.items()
        if isinstance(value, dict) and (name in ("train", "test") or value.keys() & set(TERMS))
    }
    names = list(dict.fromkeys(name for split in splits.values() for name in split))
    columns = [name for name in TERMS if name in names] + [name for name in names if name not in TERMS]
    rows = [
        [split.replace("_", " "), *(figures.get(column, "–") for column in columns)]
        for split, figures in splits.items()
    ]
    table = result.get("table", [])
    shown = ("note", "unit", "table")
    rest = {name: value for name, value in result.items() if name not in splits and name not in shown}
    unit = str(result.get("unit", "nats per image")) if set(TERMS) & set(names) else ""
    parts = [
        f"<p>{escape(str(result['note']))}</p>" if result.get("note") else "",
        _table([unit, *map(_words, columns)], rows) if rows else "",
        _rows(table) if table else "",
        _pairs({_words(name): value for name, value in _with_errors(_flat(rest)).items()}),
    ]
    return "\n".join(filter(None, parts))


def _rows(table: Sequence[Mapping[str, Any]]) -> str:
    """A table of a study, a row as it is in table.md."""
    head, _, *rows = ([each.strip() for each in line[2:-2].split(" | ")] for line in markdown(table).splitlines())
    return _table(head, rows)


def _look(title: str, parts: Mapping[str, Any]) -> list[str]:
    """The figures of each part of a look at a run; lists of them are in the file and in the pictures."""
    said, steps = [], _number(parts.get("steps", 0))
    for name, found in parts.items():
        if not isinstance(found, dict):
            continue
        figures = {key: value for key, value in _flat(found).items() if not isinstance(value, list)}
        if not figures and found:
            continue
        said.append(f"<h2>{title} at step {steps}: {escape(name)}</h2>")
        if _alike(list(found.values())):
            rows = {key: _with_errors(row) for key, row in found.items()}
            header = next(iter(rows.values()))
            said.append(_table(["", *map(_words, header)], [[key, *row.values()] for key, row in rows.items()]))
        else:
            said.append(_pairs({_words(k): v for k, v in _with_errors(figures).items()}))
    return said


def _alike(rows: Sequence[Any]) -> bool:
    """Whether these are several rows of one table."""
    if len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return False
    return all(row.keys() == rows[0].keys() and not {dict, list} & set(map(type, row.values())) for row in rows)


def _metrics(path: Path) -> str:
    if not path.exists():
        return "<h2>Log</h2>\n" + _missing(path.name)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    shown = [[_number(_parsed(cell)) for cell in row] for row in rows[-LAST_ROWS:]]
    return f"<h2>Log: the last {len(shown)} of {len(rows):,} rows</h2>\n" + _table(map(_words, header), shown)


def _figure(path: Path) -> str:
    caption = escape(_words(path.stem))
    data = path.read_bytes()
    # A PNG's width and height; a phone would shrink the text of a broad figure to nothing, so that one scrolls.
    width, height = (int.from_bytes(data[start : start + 4]) for start in (16, 20))
    kind = ' class="broad"' if width > 2.8 * height else ""
    image = f'<img alt="{caption}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
    return f"<figure{kind}>{image}<figcaption>{caption}</figcaption></figure>"


def _natural(path: Path) -> list[int | str]:
    """A sort key that puts step 200 before step 1000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _words(name: str) -> str:
    """A column's or a file's name as words."""
    words = re.sub(r"[_\-.]+", " ", name)
    words = re.sub(r"\b(elbo|fid|iwae|kid|kl)\b", lambda match: match[0].upper(), words)
    return words[:1].upper() + words[1:]


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def _with_errors(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figures as text, each standard error `NAME_se` behind its figure instead of beside it."""
    texts = {}
    for name, value in figures.items():
        if name.removesuffix("_se") not in figures.keys() - {name}:
            error = figures.get(f"{name}_se")
            texts[name] = _number(value) + (f" ± {_number(error)}" if error is not None else "")
    return texts


def _parsed(cell: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _number(value: Any) -> str:
    """Two decimals, and three digits where that would leave none; what is no number, as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _plain(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 or value != value else f"{value:.3g}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _pairs(pairs: Mapping[str, str]) -> str:
    lines = (f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in pairs.items())
    return '<table class="pairs">\n' + "\n".join(lines) + "\n</table>"
