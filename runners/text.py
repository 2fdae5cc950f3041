"""A character-level recurrent model: train it on a text, measure it, and let it write.

    python runners/text.py                                     on tiny Shakespeare (S18)
    python runners/text.py --text FILE --rare 10               on a text of your own, without its rare characters
    python runners/text.py --layers 2 --dropout 0.2 --reset before --order shuffled
    python runners/text.py --preset recite                     does it learn 500 characters by heart?
    python runners/text.py --resume                            go on with the newest run
    python runners/text.py --write RUN --prompt "ROMEO:" --temperature 0.8 --top-k 20

In Python: `text.fit(CharGRU(data.train.alphabet), data, steps=5000)`, then `.write(500, temperature=0.8)`.
"""

import inspect
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ppl_models import CharGRU, UsageError
from runners import text_summary
from runners.blueprint import rebuild
from runners.data import DataSet
from runners.loop.command import Options, command, options_of
from runners.loop.folder import RunFolder
from runners.origin import config_in, device_of
from runners.text_fit import TextFit
from runners.text_options import DEFAULTS, PRESETS, QUICK, corpus_of, model_of, parser, settings_of

__all__ = ["fit", "load", "main", "recited"]

WRITING = ("prompt", "characters", "temperature", "top_k")
"""Options that say what to write."""

WITH_WRITE = (*WRITING, "write", "seed", "device", "data_root")


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
    try:
        if data is None:
            if "options" not in config:
                raise UsageError(f"{run.path}: was not made by text.py; give the text as data=")
            moved = {} if data_root is None else {"data_root": data_root}
            data = corpus_of(config["options"] | moved)
        names = inspect.signature(TextFit).parameters.keys() - {"model", "data", "device", "out", "origin", "progress"}
        settings = {name: rebuild(config[name]) for name in names}
        made = TextFit(rebuild(config["model"]), data, device=device, **settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{run.path / 'config.json'}: {error} is missing or not as a text's run writes it") from error
    return made.restore(run)


def recited(fit: TextFit) -> int:
    """How many characters of the text, the first given, the model writes on without a mistake, the likeliest each."""
    text = fit.data.train.read()
    wrong = (n for n, c in enumerate(fit.stream(len(text) - 1, prompt=text[0], temperature=0), 1) if c != text[n])
    return next(wrong, len(text))


@command
def main(argv: Sequence[str] | None = None) -> TextFit:
    """Run the command; returns the finished fit."""
    given = vars(parser(__doc__).parse_args(argv))
    if "write" in given:
        return _write(given)
    for name in WRITING:
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')}: changes nothing without --write")
    options, folder, resume = options_of(given, name="text", defaults=DEFAULTS, presets=PRESETS, quick=QUICK)
    run = build(options, folder)
    run.carry_out(resume=resume, command="text")
    print(*text_summary.lines(run.report()), sep="\n")
    print(folder.path / "report.html")
    if options["recite"]:
        count = recited(run)
        print(f"recites {count:,} of {options['recite']:,} characters")
        if count < options["recite"]:
            raise SystemExit(1)
    return run


def build(options: Options, folder: RunFolder) -> TextFit:
    """The fit that options describe, not yet run."""
    device, data = device_of(options["device"]), corpus_of(options)
    written = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if options["text"] is not None:
        written["text"] = str(Path(options["text"]).resolve())
    settings = settings_of(options, data) | {"device": device, "out": folder.path}
    return TextFit(model_of(options, data), data, origin={"command": "text", "options": written}, **settings)


def _write(given: Options) -> TextFit:
    for name in given:
        if name not in WITH_WRITE:
            raise UsageError(f"--{name.replace('_', '-')}: changes nothing with --write")
    run = load(given["write"], data_root=given.get("data_root"), device=device_of(given.get("device")))
    settings = {name: given[name] for name in ("prompt", "temperature", "top_k", "seed") if name in given}
    which = "best" if run.best.best is not None else "last"
    begun = time.monotonic()
    sys.stdout.write(settings.get("prompt", ""))
    for character in run.stream(count := given.get("characters", 1000), which=which, **settings):
        sys.stdout.write(character)
        sys.stdout.flush()
    print()
    print(f"{count / (time.monotonic() - begun):,.0f} characters a second", file=sys.stderr)
    return run


if __name__ == "__main__":
    run = main()
