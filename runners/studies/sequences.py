"""How long should the sequences be, and is the state carried from each to the next, reset, or are they shuffled?"""

from dataclasses import replace

from torch import Tensor

from runners import figures
from runners.comparisons.surprise import mean_and_block_error
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_text
from runners.text_fit import HELD_OUT, TextFit

__all__ = ["MINUTES", "answer", "by_sequence", "runs"]

MINUTES = (1.2, 28)

LENGTHS, QUICK_LENGTHS = (16, 64, 256), (8, 64)
ORDERS = ("carried", "reset", "shuffled")

CHARACTERS, QUICK_CHARACTERS = 4096, 512
"""Of a step, in all runs."""

PARTS = 20
"""Parts of the test text; a state is carried through each."""


def runs(*, quick: bool) -> dict[str, Point]:
    """Each length in each order, as many characters to a step."""
    lengths, characters = (QUICK_LENGTHS, QUICK_CHARACTERS) if quick else (LENGTHS, CHARACTERS)
    shared = {"steps": 200, "hidden": 64, "lr": 0.01} if quick else {"steps": 1400, "hidden": 256}
    return {
        f"{order} {length}": of_text(order=order, length=length, batch=characters // length, dropout=0.0, **shared)
        for order in ORDERS
        for length in lengths
    }


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """What each makes of the test text with its state carried, and in sequences from zeros, as two were trained."""
    points = {(one.fit.settings["order"], one.fit.settings["length"]): one for one in made.values()}
    lengths = sorted({length for _, length in points})
    longest = lengths[-1]
    carried, from_zeros, by_place, table = {}, {}, {}, []
    for (order, length), one in points.items():
        held = len(one.fit.data.test.first(HELD_OUT))
        carried[order, length] = by_sequence(one.fit, (held - 1) // PARTS).flatten()
        from_zeros[order, length] = by_sequence(one.fit, length).flatten()
        by_place[order, length] = by_sequence(one.fit, longest).mean(0).tolist()
        row: dict = {"order": order, "length": length}
        for name, nats in (("carried", carried[order, length]), ("from_zeros", from_zeros[order, length])):
            row[name], row[f"{name}_se"] = mean_and_block_error(nats)
        late = by_place[order, length][longest // 2 :]
        table.append(row | {"late": sum(late) / len(late), "seconds": one.result["seconds"]})
    best = min(table, key=lambda row: row["carried"])
    zeros = [float(from_zeros["reset", length].mean()) for length in (lengths[0], longest)]
    finding = [
        f"Read with the state carried, which is how text is written, the best is {best['order']} {best['length']}: "
        f"{best['carried']:.3f} nats per character.",
        _compared("Carrying the state in training instead of resetting it changes that", "carried", "reset", carried),
        _compared("Sequences in any order instead of one after the other change it", "shuffled", "reset", carried),
        f"From zeros at each sequence, as reset and shuffled are trained, reset pays {zeros[0]:.2f} at {lengths[0]} "
        f"and {zeros[1]:.2f} at {longest}.",
        f"Where {longest // 2} or more characters have been read since zeros, the model trained by resets at "
        f"{lengths[0]} pays {_late(table, 'reset', lengths[0]):.2f}, with the state carried in training "
        f"{_late(table, 'carried', lengths[0]):.2f}.",
    ]
    return Answer(table, {"sequences": figures.sequences(table, by_place)}, finding)


def by_sequence(fit: TextFit, length: int) -> Tensor:
    """Nats of the test text's characters in sequences of a length, each read from zeros, `(sequences, length)`.

    As in training, a sequence begins with the last character of the one before it, which is read and not predicted.
    """
    test = fit.data.test.first(HELD_OUT)
    length = min(length, len(test) - 1)
    sequences = test.codes.unfold(0, length + 1, length)
    return fit.surprise(replace(test, codes=sequences.flatten()), which="last", rows=len(sequences))


def _compared(said: str, order: str, other: str, nats: dict[tuple[str, int], Tensor]) -> str:
    """The difference between two orders at each length, paired by the characters of the text."""
    found = []
    for length in sorted({length for _, length in nats}):
        mean, error = mean_and_block_error(nats[order, length] - nats[other, length])
        found.append(f"by {mean:+.3f} ± {error:.3f} at {length}{' (nothing)' if abs(mean) < 2 * error else ''}")
    return f"{said} {', '.join(found)}."


def _late(table: list[dict], order: str, length: int) -> float:
    return next(row["late"] for row in table if (row["order"], row["length"]) == (order, length))
