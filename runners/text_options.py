"""The options of `text.py`: defaults, presets, and the text and the model that they describe."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from guides import CosineSchedule
from ppl_models import CharGRU, UsageError, glorot_
from runners.data import DataSet, corpus
from runners.data.corpora import SPLITS, TEXTS
from runners.data.text import ORDERS
from runners.loop.command import Options
from runners.loop.parser import (
    Parser,
    add_run_options,
    fraction,
    given_path,
    natural,
    non_negative_number,
    positive,
    positive_number,
)
from runners.loop.random import forked

__all__ = ["DEFAULTS", "PRESETS", "PRESET_HELP", "QUICK", "corpus_of", "model_of", "parser", "settings_of"]

DEFAULTS: Options = {
    "preset": "s18",
    "text": None,
    "data_root": None,
    "rare": 1,
    "drop": "",
    "split": "contiguous",
    "recite": 0,
    "hidden": 512,
    "layers": 1,
    "embedding": 0,
    "dropout": 0.3,
    "reset_gate": "after",
    "init": "torch",
    "length": 64,
    "order": "carried",
    "batch": 64,
    "steps": 5000,
    "epochs": None,
    "lr": 3e-3,
    "schedule": "cosine",
    "clip": 1.0,
    "precision": "float32",
    "seed": 0,
    "device": None,
    "tensorboard": False,
    "quick": False,
}

PRESETS: dict[str, Options] = {
    "s18": {},
    # As far as its settings are known: its update equations, and its TensorFlow layers' start.
    "s18-course": {"reset_gate": "before", "init": "glorot"},
    # A row that is read from its beginning, as it is recited.
    "recite": {"recite": 500, "hidden": 128, "length": 100, "dropout": 0.0, "batch": 1, "steps": 1000, "lr": 5e-3},
}

PRESET_HELP = (
    "settings by name, which other options change: s18 a GRU (the default; s18-course with the course's gates and "
    "start), recite learns 500 characters by heart"
)

QUICK: Options = {"steps": 200, "hidden": 128}

SCHEDULES = {"constant": None, "cosine": CosineSchedule(end=0.05)}


def parser(page: str | None) -> Parser:
    """The options of text.py, whose docstring is `page`."""
    parser = Parser("A character-level recurrent model of text.", page)
    add = parser.add_argument
    add("--preset", choices=list(PRESETS), metavar="NAME", help=PRESET_HELP)
    group = parser.add_argument_group("the run")
    add = group.add_argument
    add("--text", metavar="TEXT", help=f"{', '.join(TEXTS)}, or a file in UTF-8 (default: the first that can be had)")
    add("--rare", type=positive, metavar="N", help="remove characters that there are fewer than N of (default: none)")
    add("--drop", metavar="CHARACTERS", help="remove these characters")
    add("--split", choices=list(SPLITS), help=f"what is tested on: {', or '.join(SPLITS.values())}")
    add("--recite", type=natural, metavar="N", help="train and test on the first N characters or a few more, by heart")
    add("--length", type=positive, help="characters of a sequence, of which --batch are read side by side")
    add("--order", choices=ORDERS, help="state carried, reset at each sequence, or sequences shuffled")
    add("--epochs", type=positive, help="instead of --steps")
    add_run_options(group)
    add = parser.add_argument_group("the model").add_argument
    add("--hidden", type=positive, help="units of a layer")
    add("--layers", type=positive, help="how many layers")
    add("--embedding", type=natural, help="size of a learned code of characters; 0 for one-hot (the default)")
    add("--dropout", type=fraction, help="on every layer's output")
    add(
        "--reset-gate", choices=["after", "before"], help="after the product, as cuDNN has it, or before, as the course"
    )
    add("--init", choices=["torch", "glorot"], help="how its weights start, glorot with zero biases as the course")
    add = parser.add_argument_group("the optimiser").add_argument
    add("--lr", type=positive_number, help="of Adam, at the start")
    add("--schedule", choices=list(SCHEDULES), help="of its step size: cosine falls to a twentieth")
    add("--clip", type=positive_number, help="global norm that gradients are clipped to")
    add = parser.add_argument_group("writing, with a run that is there").add_argument
    add("--write", type=given_path, metavar="RUN", help="write text with this run instead of training one")
    add("--prompt", help="what it goes on from (default: a new line)")
    add("--characters", type=positive, help="how many (default: 1000)")
    add("--temperature", type=non_negative_number, help="below 1 safer, above 1 wilder, 0 the likeliest (default: 1)")
    add("--top-k", type=positive, help="draw from the K likeliest characters alone")
    return parser.showing(DEFAULTS)


def corpus_of(options: Options) -> DataSet:
    """The text that options describe.

    Raises:
        UsageError: It cannot be read, or is too short.
    """
    how = {name: options[name] for name in ("rare", "drop", "split", "length", "order")}
    data = corpus(options["text"], root=options["data_root"], **how)
    if not options["recite"]:
        return data
    wanted, length = options["recite"] - 1, min(options["length"], options["recite"] - 1)
    if wanted < 1 or options["recite"] > len(data.train):
        raise UsageError(f"--recite: found {options['recite']}, expected 2 to {len(data.train):,}, what there is")
    # Whole sequences, so that every character that is recited was read: a few more than wanted, or fewer at the end.
    sequences = min(math.ceil(wanted / length), (len(data.train) - 1) // length)
    passage = replace(data.train.first(1 + sequences * length), length=length)
    return DataSet(f"{data.name}, the first {len(passage):,} characters", passage, None, passage)


def model_of(options: Options, data: DataSet) -> CharGRU:
    """The model that options describe, fresh from the options' seed."""
    with forked(options["seed"], torch.device("cpu")):
        sizes = {name: options[name] for name in ("hidden", "layers", "embedding", "dropout")}
        made = CharGRU(data.train.alphabet, reset_after=options["reset_gate"] == "after", **sizes)
        return glorot_(made) if options["init"] == "glorot" else made


def settings_of(options: Options, data: DataSet) -> dict[str, Any]:
    """The settings of a `TextFit` that options describe."""
    steps = options["steps"]
    if options["epochs"]:
        steps = options["epochs"] * data.train.batches(options["batch"]).steps_per_epoch
    return {
        "steps": steps,
        "optimizer": partial(torch.optim.Adam, lr=options["lr"], fused=True),
        "schedule": SCHEDULES[options["schedule"]],
        **{name: options[name] for name in ("batch", "clip", "precision", "seed")},
    }
