"""What does the temperature do to the text that a character model writes, and to its entropy?"""

import math
from typing import Any

from runners import figures
from runners.reading import tempered_reading
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_text
from runners.text_fit import HELD_OUT, ROWS, TextFit
from runners.text_summary import repetition, temperature_study, words

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 16)

TEMPERATURES = (0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0)

SHOWN = 60
"""Characters of each text that the table and the finding quote."""

PIECE = 1000
"""Characters of the test text in which repetition is counted, as many as texts have that are written."""

SHARES = {"known_words_%": "known_words", "repeated_%": "repetition"}
"""Columns in per cent."""

Row = dict[str, Any]


def runs(*, quick: bool) -> dict[str, Point]:
    """One model: temperatures are a matter of writing."""
    small = {"steps": 600, "hidden": 128, "dropout": 0.0, "length": 32, "batch": 32}
    return {"GRU": of_text(**small if quick else {"steps": 2500})}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """What is written at each temperature, and how the same model at each reads the test text."""
    (fit,) = (one.fit for one in made.values())
    test = fit.data.test.first(HELD_OUT)
    with fit.aside():
        read = tempered_reading(fit.trained(), test, TEMPERATURES, rows=min(ROWS, len(test) // 2))
    rows = [
        wrote | {"entropy_reading": own["entropy"], "surprise_reading": own["surprise"]}
        for wrote, own in zip(temperature_study(fit, TEMPERATURES), read, strict=True)
    ]
    uniform = math.log(len(fit.model.alphabet))
    table = [_cells(row) for row in rows] + [_cells(_real(fit))]
    picture = figures.temperatures(rows, highest=uniform)
    return Answer(table, {"temperature": picture}, _finding(rows, table, uniform))


def _finding(rows: list[Row], table: list[Row], uniform: float) -> list[str]:
    at_one = TEMPERATURES.index(1.0)
    low, one, high = rows[0], rows[at_one], rows[-1]
    written = ", ".join(f"{row['entropy']:.2f}" for row in (low, one, high))
    read = ", ".join(f"{row['entropy_reading']:.2f}" for row in (low, one, high))
    least = min(rows, key=lambda row: row["surprise_reading"])
    off = one["entropy_reading"] - one["surprise_reading"]
    cells, real = (table[0], table[at_one], table[-2]), table[-1]
    known, again = (", ".join(f"{row[name]} %" for row in cells) for name in SHARES)
    return [
        f"At temperatures {low['temperature']}, 1 and {high['temperature']:g} what is written has an entropy of "
        f"{written} nats per character; the same model reading the test text has {read}, where all "
        f"characters alike would be {uniform:.2f}.",
        f"Of the words written {known} are known, of the test text's own {real['known_words_%']} %; of four words in a "
        f"row {again} stood in the same text before, in the test text {real['repeated_%']} %.",
        f"Of these temperatures the test text surprises the model least at {least['temperature']:g}, "
        f"{least['surprise_reading']:.2f} nats; at 1 it expects {abs(off):.2f} nats {'more' if off > 0 else 'less'} "
        f"than the {one['surprise_reading']:.2f} that it pays.",
        *(f"At {row['temperature']:g}: “{row['text']}”." for row in cells),
    ]


def _cells(row: Row) -> Row:
    """A row of the table: shares in per cent, and how the text begins."""
    numbers = ("temperature", "entropy", "entropy_se", "entropy_reading", "surprise_reading")
    shares = {name: round(100 * row[share]) for name, share in SHARES.items()}
    return {name: row[name] for name in numbers if name in row} | shares | {"text": _quoted(row["text"])}


def _real(fit: TextFit) -> Row:
    """What the same counts make of the test text."""
    known, text = set(words(fit.data.train.read())), fit.data.test.read()
    found, pieces = words(text), [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return {
        "temperature": "the test text",
        "known_words": sum(word in known for word in found) / max(len(found), 1),
        "repetition": sum(map(repetition, pieces)) / len(pieces),
        "text": text,
    }


def _quoted(text: str) -> str:
    """The beginning of a text in one line, fit for a cell of a table."""
    return " ".join(text[:SHOWN].replace("\n", " ↵ ").replace("|", "¦").split()).strip("↵ ")
