"""A character-level recurrent model: train it on a text, measure it, and let it write.

    python runners/text.py                                     on tiny Shakespeare (S18)
    python runners/text.py --text FILE --rare 10               on a text of your own, without its rare characters
    python runners/text.py --order shuffled                    sequences in any order, their states from zeros
    python runners/text.py --layers 2 --dropout 0.2
    python runners/text.py --preset s18-course                 the course's gates, reset before the product, and start
    python runners/text.py --preset recite                     does it learn 500 characters by heart?
    python runners/text.py --resume                            go on with the newest run
    python runners/text.py --write RUN --prompt "ROMEO:" --temperature 0.8 --top-k 20

In Python: `text.fit(CharGRU(data.train.alphabet), data, steps=5000)`, then `.write(500, temperature=0.8)`.
"""

import inspect
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ppl_models import CharGRU, UsageError
from runners import text_summary
from runners.blueprint import rebuild
from runners.data import DataSet, default_root
from runners.data.corpora import TEXTS, default_text
from runners.devices import device_of, device_or_default
from runners.loop.checkpoint import read_checkpoint
from runners.loop.command import Options, command, options_of
from runners.loop.errors import first_line
from runners.loop.folder import RunFolder
from runners.origin import as_written, config_in, readable
from runners.text_fit import TextFit
from runners.text_options import DEFAULTS, PRESETS, QUICK, corpus_of, model_of, parser, settings_of
from runners.writing import write

__all__ = ["fit", "load", "load_model", "main", "recited"]

WRITING = ("prompt", "characters", "temperature", "top_k")
"""Options that say what to write."""

WITH_WRITE = (*WRITING, "write", "seed", "device")


def fit(model: CharGRU, data: DataSet, **settings: Any) -> TextFit:
    """Train a model of a text and return the fit; the settings are those of `TextFit`.

    With `out=`, the run folder holds the final figures, texts, pictures and a report as well.
    """
    made = TextFit(model, data, **settings).run()
    if made.folder and not made.stopped:
        made.report()
    return made


fit.__signature__ = inspect.signature(TextFit)


def load(
    folder: Path | str,
    *,
    data: DataSet | None = None,
    data_root: Path | None = None,
    device: torch.device | str | None = None,
) -> TextFit:
    """The fit in a run folder, as its checkpoint left it; `.run(steps)` trains it further, in memory.

    Args:
        folder: The run folder.
        data: The text; by default the one that the run's command read.
        data_root: Where that is now, if not where the run had it.
        device: Where to put it; by default CUDA where there is one.

    Raises:
        UsageError: It is no run folder of a text, or its text is not to be had.
    """
    run = RunFolder(Path(folder))
    config = config_in(run, command="text")
    with readable(run):
        if data is None:
            if "options" not in config:
                raise UsageError(f"{run.path}: was not made by text.py; give the text as data=")
            moved = {} if data_root is None else {"data_root": data_root}
            data = corpus_of(config["options"] | moved)
        names = inspect.signature(TextFit).parameters.keys() - {
            "data",
            "device",
            "out",
            "origin",
            "progress",
            "tensorboard",
        }
        settings = {name: rebuild(config[name]) for name in names}
        made = TextFit(data=data, device=device, **settings)
    return made.restore(run)


def load_model(folder: Path | str, *, device: torch.device | str | None = None) -> CharGRU:
    """The model in a run folder, the best that was seen, in eval mode, without its text.

    Raises:
        UsageError: It is no run folder of a text.
    """
    run, device = RunFolder(Path(folder)), device_or_default(device)
    config, states = config_in(run, command="text"), read_checkpoint(run.checkpoint, device=device)
    with readable(run):
        model = rebuild(config["model"]).to(device).eval()
    try:
        model.load_state_dict(states["best"]["best"] or states["model"])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{run.checkpoint}: holds no such model ({first_line(error)})") from error
    return model


def recited(fit: TextFit) -> int:
    """How many characters of the text, the first given, the model writes on without a mistake, the likeliest each."""
    text = fit.data.train.read()
    written = text[0] + fit.write(len(text) - 1, which="last", prompt=text[0], temperature=0)
    return next((n for n, (ours, theirs) in enumerate(zip(written, text, strict=True)) if ours != theirs), len(text))


@command
def main(argv: Sequence[str] | None = None) -> TextFit | CharGRU:
    """Run the command; returns the finished fit, or the model that wrote."""
    given = vars(parser(__doc__).parse_args(argv))
    if "write" in given:
        return _write(given)
    for name in WRITING:
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')}: changes nothing without --write")
    options, folder, resume = options_of(given, name="text", defaults=DEFAULTS, presets=PRESETS, quick=QUICK)
    with readable(folder, read=resume and folder.holds_run):
        run = build(options, folder)
    run.carry_out(resume=resume, command="text")
    print(*text_summary.lines(run.report()), sep="\n")
    print(folder.path / "report.html")
    if options["recite"]:
        count, whole = recited(run), len(run.data.train)
        print(f"recites {count:,} of {whole:,} characters")
        if count < whole and not options["quick"]:
            raise SystemExit(1)
    return run


def build(options: Options, folder: RunFolder) -> TextFit:
    """The fit that options describe, not yet run."""
    device = device_of(options["device"])
    if options["text"] is None:
        options = options | {"text": default_text(Path(options["data_root"] or default_root()))}
    data, origin = corpus_of(options), {"command": "text", "options": as_written(options, file="text", names=TEXTS)}
    settings = settings_of(options, data)
    settings |= {"device": device, "out": folder.path, "tensorboard": options["tensorboard"]}
    return TextFit(model_of(options, data), data, origin=origin, **settings)


def _write(given: Options) -> CharGRU:
    """Write text to the terminal, each character as it is drawn."""
    for name in given:
        if name not in WITH_WRITE:
            raise UsageError(f"--{name.replace('_', '-')}: changes nothing with --write")
    model = load_model(given["write"], device=device_of(given.get("device")))
    settings = {name: given[name] for name in ("prompt", "temperature", "top_k", "seed") if name in given}
    count, begun = given.get("characters", 1000), time.monotonic()
    drawn = write(model, count, **settings)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows fewer characters than the model
    try:
        for place, (codes, _) in enumerate(drawn):
            sys.stdout.write(("" if place else settings.get("prompt", "")) + model.text_of(codes.tolist()))
            sys.stdout.flush()
        print()
    except BrokenPipeError:  # whoever read it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return model
    print(f"{count / (time.monotonic() - begun):,.0f} characters a second", file=sys.stderr)
    return model


if __name__ == "__main__":
    run = main()
