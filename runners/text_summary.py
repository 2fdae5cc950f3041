"""What a character model's fit comes to in the end: final figures, texts and pictures."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure

from runners import figures
from runners.data import DataSet
from runners.loop.atomic import write_atomically
from runners.metrics.ngrams import ngram_surprise
from runners.tempering import entropy
from runners.writing import write

if TYPE_CHECKING:
    from runners.text_fit import TextFit

__all__ = [
    "baselines",
    "curves",
    "final_figures",
    "lines",
    "repetition",
    "result",
    "surprise_figure",
    "temperature_study",
    "words",
    "write_texts",
]

TEMPERATURES = (0.5, 0.8, 1.0, 1.2, 1.5)
LENGTH, TEXTS = 1000, 4
"""Characters of each text of the study of temperatures, and how many of them there are for each."""

PASSAGE = 600
"""Characters of the test text whose surprise is drawn."""

ORDER = 5
"""Of the n-gram model that stands beside the others."""


def result(fit: "TextFit") -> dict[str, Any]:
    """The final figures of a fit, in nats per character, the test text read in one, the state carried from zeros.

    Returns:
        `train`, means of the last 1000 steps, `test` and, of the least surprising model that was seen, `best`, each
        with `nats_per_character` and the last two with `bits_per_character`; and `baselines`. The best was chosen by
        at most 120 000 characters of the same text, which flatters it.
    """
    found = {
        "data": fit.data.name,
        "unit": "nats per character",
        "state": "carried through the test text, from zeros",
        "steps": fit.history.step,
        "seconds": round(fit.history.seconds, 1),
        "train": fit.history.final(),
        "test": _read(fit, "last"),
    }
    if fit.best.state is not None:
        same = fit.best.step == fit.history.step
        found["best"] = {"step": fit.best.step, **(found["test"] if same else _read(fit, "best"))}
    return found | {"baselines": baselines(fit.data), "temperatures": temperature_study(fit)}


def baselines(data: DataSet) -> dict[str, float]:
    """What counting gives, nats per character of the test text: nothing, characters, and an n-gram model."""
    train, test, characters = data.train.codes, data.test.codes, len(data.train.alphabet)
    found = {"uniform": math.log(characters)}
    for name, order in (("unigram", 1), (f"{ORDER}-gram", ORDER)):
        # All but the first, which models of sequences read and do not predict.
        found[name] = float(ngram_surprise(train, test, characters=characters, order=order)[1:].mean())
    return found


def temperature_study(fit: "TextFit", temperatures: Sequence[float] = TEMPERATURES) -> list[dict[str, Any]]:
    """For each temperature a text, the entropy that characters were drawn with, known words, and repetition.

    Entropy is in nats per character, of the distribution after tempering, with its standard error over several texts;
    a word is known that is in the text that was trained on; of both words and repetition the share is given.
    """
    model = fit.trained()
    known, rows = set(words(fit.data.train.read())), []
    with fit.aside():
        for temperature in temperatures:
            drawn = write(model, LENGTH, rows=TEXTS, temperature=temperature, seed=fit.settings["seed"])
            codes, log_probs = zip(*drawn, strict=True)
            texts = [model.text_of(row) for row in torch.stack(codes, 1).tolist()]
            found = [word for text in texts for word in words(text)]
            entropies = torch.stack([entropy(each) for each in log_probs]).double().mean(0)
            rows.append(
                {
                    "temperature": temperature,
                    "entropy": float(entropies.mean()),
                    "entropy_se": float(entropies.std()) / TEXTS**0.5,
                    "known_words": sum(word in known for word in found) / max(len(found), 1),
                    "repetition": sum(map(repetition, texts)) / len(texts),
                    "text": texts[0],
                }
            )
    return rows


def repetition(text: str, size: int = 4) -> float:
    """The share of a text's runs of so many words that stood in it before.

    One minus distinct runs over all of them: seq-rep-4 of Welleck et al. 2020, arXiv:1908.04319, on words.
    """
    found = words(text)
    runs = list(zip(*(found[first:] for first in range(size)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def words(text: str) -> list[str]:
    """The words of a text, in lower case: letters, with apostrophes between them."""
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())


def surprise_figure(fit: "TextFit", passage: str | None = None) -> Figure:
    """A passage, by default the test text's beginning, coloured by how much each character surprises the model."""
    passage = fit.data.test.first(PASSAGE).read() if passage is None else passage
    return figures.surprise(passage[1:], fit.surprise(passage).flatten())


def final_figures(fit: "TextFit", found: Mapping[str, Any]) -> dict[str, Figure]:
    """The curves, what temperatures do, and a passage coloured by its surprise."""
    return {
        "curves": curves(fit, found["baselines"]),
        "temperatures": figures.temperatures(found["temperatures"]),
        "surprise": surprise_figure(fit),
    }


def write_texts(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the text of each temperature into one file."""
    pages = [f"temperature {row['temperature']}\n\n{row['text']}\n" for row in rows]
    write_atomically(path, lambda file: file.write(f"\n{80 * '–'}\n".join(pages).encode()))


def lines(found: Mapping[str, Any]) -> list[str]:
    """Final figures as lines to print."""
    said = [f"{found['data']}; nats and bits per character, state {found['state']}"]
    rows = {name: found[name]["nats_per_character"] for name in ("train", "test", "best") if found.get(name)}
    for name, nats in (rows | found["baselines"]).items():
        note = f"  at step {found['best']['step']:,}, chosen by the same text" if name == "best" else ""
        said.append(f"{name:>10}  {nats:7.4f}  {nats / math.log(2):7.4f}{note}")
    for row in found["temperatures"]:
        said.append(
            f"{'T = ' + str(row['temperature']):>10}  entropy {row['entropy']:.2f} nats, "
            f"{row['known_words']:.0%} of the words known"
        )
    return said


def _read(fit: "TextFit", which: str) -> dict[str, float]:
    nats = fit.surprise(which=which)
    mean = float(nats.double().mean())
    return {"nats_per_character": mean, "bits_per_character": mean / math.log(2), "characters": nats.numel()}


def curves(fit: "TextFit", baselines: Mapping[str, float] | None = None) -> Figure:
    """Nats per character of training and, at each row, of the test text, beside the n-gram model's if that is given."""
    runs = {
        "training text": [{k: v for k, v in row.items() if k != "held_out"} for row in fit.history.rows],
        "test text": [{"step": row["step"], "nats_per_character": row["held_out"]} for row in fit.history.rows],
    }
    ngram = f"{ORDER}-gram"
    level = {f"nats_per_character: {ngram}": baselines[ngram]} if baselines else None
    return figures.curves(runs, references=level)
