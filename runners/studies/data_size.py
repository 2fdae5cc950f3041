"""What does stochastic variational inference cost as the data set grows, in time per step and in memory?"""

from functools import partial
from statistics import median
from typing import Any, NamedTuple

from guides import Free
from runners import figures
from runners.bench import measure
from runners.contenders import Setting
from runners.contenders.costs import peak_memory
from runners.contenders.free_rows import BATCH, LATENTS, MOST, free_rows
from runners.devices import device_or_default
from runners.loop.random import forked
from runners.studies.answer import Answer
from runners.studies.point import Made, Point

__all__ = ["MINUTES", "answer", "bytes_of_a_row", "runs"]

MINUTES = (1, 5)

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
QUICK_SIZES = (10**3, 10**4, 10**5)

ROUNDS, BUDGET = 5, 1.0
QUICK_ROUNDS, QUICK_BUDGET = 2, 0.15

IMAGES = 1000
"""Images that there are, again and again: rows are what is measured."""

TOOLKIT, ALONE, DENSE = "toolkit", "what its table takes", "stock Pyro, unchecked, dense table"
"""Contenders as bench.py calls them."""


class Cost(NamedTuple):
    """What contenders took, by their names: milliseconds of a step in each round, and bytes."""

    milliseconds: dict[str, list[float]]
    memory: dict[str, int | None]


def runs(*, quick: bool) -> dict[str, Point]:
    """None: what a step costs does not depend on what was trained before."""
    return {}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """A step of S1 with tables of more and more rows, measured as bench.py does."""
    setting = Setting(device_or_default(None), count=IMAGES)
    with forked(0, setting.device):
        costs = _costs(setting, quick=quick)
    table = [_row(rows, cost) for rows, cost in costs.items()]
    labels = {
        "toolkit": "the toolkit's table",
        "dense": "a dense table under Pyro's Adam",
        "alone": "the toolkit's gathering and scattering alone",
    }
    panels = [
        figures.Panel(
            title,
            "rows, images in the data set",
            unit,
            {labels[name]: _points(table, f"{name}_{column}") for name in names if _points(table, f"{name}_{column}")},
            log="xy",
        )
        for title, unit, names, column in (
            ("time of a step", "ms", ("toolkit", "dense", "alone"), "ms"),
            ("memory", "MB", ("toolkit", "dense"), "MB"),
        )
    ]
    pictures = {"data_size": figures.lines(panels, title="What S1 costs as the data set grows")}
    about = f"tables of {table[0]['rows']:,} to {table[-1]['rows']:,} rows"
    return Answer(table, pictures, _finding(table, costs), data=about)


def bytes_of_a_row(latents: int = LATENTS) -> int:
    """What a row of `Free` takes: parameters, moments, visits, and its place in the map from images to rows."""
    rows = 1000
    return sum(table.nbytes for table in Free(rows, latents=latents).buffers() if len(table) == rows) // rows


def _costs(setting: Setting, *, quick: bool) -> dict[int, Cost]:
    """Of each size; all sizes take turns, so that what else the machine does hits them alike."""
    sizes = {rows: partial(free_rows, rows=rows) for rows in (QUICK_SIZES if quick else SIZES)}
    made = {(rows, name): make() for rows, size in sizes.items() for name, make in size(setting).contenders.items()}
    how = {"rounds": QUICK_ROUNDS, "budget": QUICK_BUDGET} if quick else {"rounds": ROUNDS, "budget": BUDGET}
    turns = {f"{name}, {rows}": contender for (rows, name), contender in made.items()}
    seconds = dict(zip(made, measure(turns, device=setting.device, **how).values(), strict=True))
    costs = {rows: Cost({}, {}) for rows in sizes}
    for (rows, name), rounds in seconds.items():
        costs[rows].milliseconds[name] = [1e3 * BATCH * each for each in rounds]
        if name != ALONE:
            costs[rows].memory[name] = peak_memory(sizes[rows], name, setting)
    return costs


def _row(rows: int, cost: Cost) -> dict[str, Any]:
    ms = {name: median(rounds) for name, rounds in cost.milliseconds.items()}
    found = {"rows": rows, "toolkit_ms": ms[TOOLKIT], "alone_ms": ms[ALONE]}
    found |= {"share_of_table": f"{ms[ALONE] / ms[TOOLKIT]:.2%}", "dense_ms": ms.get(DENSE)}
    found |= {"bytes_a_row": bytes_of_a_row(), "table_MB": rows * bytes_of_a_row() / 1e6}
    memory = {"toolkit_MB": cost.memory.get(TOOLKIT), "dense_MB": cost.memory.get(DENSE)}
    return found | {name: None if used is None else used / 1e6 for name, used in memory.items()}


def _points(table: list[dict[str, Any]], column: str) -> list[tuple[float, float]]:
    return [(row["rows"], row[column]) for row in table if row[column] is not None]


def _finding(table: list[dict[str, Any]], costs: dict[int, Cost]) -> list[str]:
    first, last = table[0], table[-1]
    ratios = [
        longer / shorter
        for shorter, longer in zip(*(costs[row["rows"]].milliseconds[TOOLKIT] for row in (first, last)), strict=True)
    ]
    dense = [row for row in table if row["dense_ms"] is not None]
    least, most = dense[0], dense[-1]
    memory = [f"{last['bytes_a_row']} bytes a row are {last['table_MB']:,.0f} MB of table at {last['rows']:,} rows"]
    if last["toolkit_MB"] is not None:
        memory.append(f"where a process grows by {last['toolkit_MB']:,.0f} MB in all")
    if most["dense_MB"] is not None:
        memory.append(f"and by {most['dense_MB']:,.0f} MB for a dense table of {most['rows']:,}")
    left_out = len(dense) < len(table)
    return [
        f"With {last['rows'] / first['rows']:,.0f} times as many rows a step of {BATCH} images takes "
        f"{median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f} over the rounds), "
        f"{last['toolkit_ms']:.0f} ms for {first['toolkit_ms']:.0f}; gathering and "
        f"scattering rows and moments is {last['share_of_table']} of it at {last['rows']:,} rows.",
        f"A dense table under Pyro's Adam, which goes through all rows at each update, takes "
        f"{most['dense_ms'] / least['dense_ms']:.2f} times as long at {most['rows']:,} rows as at {least['rows']:,}, "
        f"and {most['dense_ms'] / most['toolkit_ms']:.2f} times what the toolkit's does there"
        f"{f'; of more than {MOST:,} rows it was left out' if left_out else ''}.",
        f"What grows with the data is memory: {', '.join(memory)}.",
    ]
