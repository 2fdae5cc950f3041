"""Pictures of text: how much it surprises models, and what temperatures do."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from textwrap import wrap
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ft2font import FT2Font
from torch import Tensor

from runners.figures.inline import Picture

__all__ = ["sequences", "surprise", "temperatures"]

COLUMNS = 72
HIGHEST = 6.0
"""Nats at which the colours end."""

LINES = 24
"""Of a text that is shown."""


def surprise(text: str, nats: Tensor) -> Figure:
    """A passage in which each character's background says how many nats it cost; a line's end is shown as ↵.

    Args:
        text: The passage.
        nats: For each character, `(len(text),)`.
    """
    rows: list[list[tuple[str, float]]] = [[]]
    for character, cost in zip(text, nats.tolist(), strict=True):
        if len(rows[-1]) == COLUMNS:
            rows.append([])
        rows[-1].append((_drawable(character), cost))
        if character == "\n":
            rows.append([])
    rows = [row for row in rows if row]
    columns = max(map(len, rows))
    figure = Picture(figsize=(1.5 + 0.14 * columns, 0.9 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours, scale = colormaps["YlOrRd"], Normalize(0, HIGHEST)
    for y, row in enumerate(rows):
        for x, (character, cost) in enumerate(row):
            axes.fill_between([x, x + 1], y, y + 1, color=colours(scale(cost)), linewidth=0)
            dark = scale(cost) > 0.65
            axes.text(
                x + 0.5,
                y + 0.52,
                character,
                ha="center",
                va="center",
                family="monospace",
                fontsize=9,
                color="white" if dark else "black",
                parse_math=False,
            )
    axes.set(xlim=(0, columns), ylim=(len(rows), 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"mean {float(nats.mean()):.2f} nats per character", fontsize=11)
    figure.colorbar(
        ScalarMappable(scale, colours), ax=axes, label="surprise, nats", fraction=0.03, pad=0.01, extend="max"
    )
    return figure


def temperatures(rows: Sequence[Mapping[str, Any]], *, highest: float | None = None) -> Figure:
    """Entropy, known words and repetition against the temperature, and texts at the lowest, 1 and the highest.

    Args:
        rows: Per temperature `temperature`, `entropy`, `known_words` and `text`; and, where they are to be drawn,
            `repetition`, and of a text that was read `entropy_reading` and `surprise_reading`.
        highest: The largest entropy that there could be, a line.
    """
    figure = Picture(figsize=(12, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    at = [row["temperature"] for row in rows]
    left, right = above.subplots(1, 2)
    lines = {
        "entropy": "entropy, writing",
        "entropy_reading": "entropy, reading the test text",
        "surprise_reading": "surprise at the test text",
    }
    _lines(left, at, rows, lines)
    if highest is not None:
        left.axhline(highest, color="0.25", linewidth=1.2, linestyle="--", label=f"uniform {highest:.2f}")
        left.set_ylim(top=1.15 * highest)
    left.set_ylabel("nats per character", fontsize=9)
    left.set_title("entropy of the characters drawn", fontsize=11)
    _lines(right, at, rows, {"known_words": "words known", "repetition": "four words in a row repeated"}, scale=100)
    right.set_ylabel("%", fontsize=9)
    right.set_title("words that the training text has", fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("temperature", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.lines) > 1:
            axes.set_title("entropy and surprise" if axes is left else "words", fontsize=11)
            axes.legend(fontsize=9, frameon=False)
    middle = min(rows, key=lambda row: abs(row["temperature"] - 1))
    shown = {row["temperature"]: row for row in (rows[0], middle, rows[-1])}
    for axes, row in zip(below.subplots(1, len(shown), squeeze=False)[0], shown.values(), strict=True):
        lines = [part for line in row["text"].splitlines() for part in wrap(line, 42) or [""]]
        axes.text(
            0,
            1,
            "\n".join("".join(map(_drawable, line)) for line in lines[:LINES]),
            family="monospace",
            fontsize=8,
            va="top",
            parse_math=False,
            transform=axes.transAxes,
        )
        axes.set_axis_off()
        axes.set_title(f"temperature {row['temperature']:g}", fontsize=11, loc="left")
    return figure


def sequences(rows: Sequence[Mapping[str, Any]], by_place: Mapping[tuple[str, int], Sequence[float]]) -> Figure:
    """What models trained in sequences of several lengths and orders make of a text, read in two ways, and by place.

    Args:
        rows: For each model `order`, `length`, `carried` and `from_zeros`, nats per character.
        by_place: For each order and length nats of the character after 1, 2, … were read, the state zeros before.
    """
    figure = Picture(figsize=(13, 4.4), layout="constrained")
    carried, zeros, places = figure.subplots(1, 3)
    orders = list(dict.fromkeys(row["order"] for row in rows))
    lengths = sorted({row["length"] for row in rows})
    for order, colour, marker in zip(orders, colormaps["tab10"].colors, "osD^v", strict=False):
        own = sorted((row for row in rows if row["order"] == order), key=lambda row: row["length"])
        for axes, name in ((carried, "carried"), (zeros, "from_zeros")):
            nats = [row[name] for row in own]
            axes.plot([row["length"] for row in own], nats, color=colour, marker=marker, markersize=5, label=order)
    for axes, title in ((carried, "read with the state carried"), (zeros, "read as sequences, each from zeros")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set_xlabel("length of the sequences trained on", fontsize=9)
        axes.set_title(title, fontsize=11)
        axes.legend(fontsize=9, frameon=False, title="state in training" if axes is carried else None)
    styles = dict(zip(reversed(lengths), cycle(("-", "--", ":", "-.")), strict=False))
    for (order, length), nats in by_place.items():
        colour = colormaps["tab10"].colors[orders.index(order)]
        places.plot(*_half_octaves(nats), color=colour, linestyle=styles[length], label=f"{order}, {length}")
    places.set_xscale("log", base=2)
    places.xaxis.set_major_formatter("{x:g}")
    places.set_xlabel("characters read since zeros", fontsize=9)
    places.set_title("from zeros, by place", fontsize=11)
    places.legend(fontsize=8, frameon=False)
    for axes in (carried, zeros, places):
        axes.set_ylabel("nats per character", fontsize=9)
        axes.tick_params(labelsize=9)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _half_octaves(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of places 1, 2, … and of their values between powers of the root of 2."""
    ends = sorted({round(2 ** (n / 2)) for n in range(2 * len(values).bit_length())} | {len(values)})
    ends = [end for end in ends if end <= len(values)]
    spans = list(zip([0, *ends], ends, strict=False))
    return (
        [(first + 1 + last) / 2 for first, last in spans],
        [sum(values[first:last]) / (last - first) for first, last in spans],
    )


def _lines(
    axes: Axes, at: Sequence[float], rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], *, scale: float = 1.0
) -> None:
    """A line for each column that rows have."""
    for name, label in names.items():
        if all(name in row for row in rows):
            axes.plot(at, [scale * row[name] for row in rows], marker="o", markersize=4, label=label)


def _drawable(character: str) -> str:
    """A character, or what stands for one that cannot be seen or that the font has not."""
    if character == "\n":
        return "↵"
    return character if character.isprintable() and _font().get_char_index(ord(character)) else "·"


@cache
def _font() -> FT2Font:
    return get_font(findfont("monospace"))
