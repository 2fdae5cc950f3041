"""A run folder of either kind, loaded for a command that looks at what was trained."""

import sys
from pathlib import Path
from typing import Any, Literal

import torch

from ppl_models import UsageError
from runners import gan, svi, text
from runners.check import OURS
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.loop.command import newest
from runners.loop.folder import RunFolder
from runners.text_fit import TextFit

__all__ = ["kind_of", "load_any", "load_run", "newest_or_quick"]


def load_run(
    folder: Path,
    *,
    model: str | None = None,
    guide: str | None = None,
    data_root: Path | None = None,
    device: torch.device | None = None,
) -> Fit | GanFit:
    """The fit of a run folder of svi.py or gan.py.

    Args:
        folder: The run folder.
        model: `FILE.py:NAME`, where its model is the user's own.
        guide: The same for its guide.
        data_root: Where data sets are now, if not where the run had them.
        device: Where to put it.

    Raises:
        UsageError: It is none, or a piece was named that the run has not.
    """
    own = {name: named for name, named in (("model", model), ("guide", guide)) if named is not None}
    config = RunFolder(folder).read_json("config.json")
    if kind_of(config) == "gan":
        if own:
            raise UsageError(f"--{next(iter(own))}: {folder} is a run of a GAN")
        return gan.load(folder, data_root=data_root, device=device)
    for name in ("model", "guide"):
        piece = config.get(name) if isinstance(config, dict) else None
        foreign = piece.get("not the toolkit's own") if isinstance(piece, dict) else None
        if foreign and name not in own:
            raise UsageError(f"{folder}: its {name} {foreign} is your own; name it by --{name} FILE.py:{foreign}")
    fit = svi.load(folder, **own, data_root=data_root, device=device)
    for name in own:
        kind = type(getattr(fit, name))
        if kind.__module__.partition(".")[0] in OURS:
            raise UsageError(f"--{name}: the {name} of {folder} is the toolkit's {kind.__name__}; leave it out")
    return fit


def load_any(folder: Path, **own: str) -> Fit | GanFit | TextFit:
    """The fit of a run folder of svi.py, gan.py or text.py; `own` is for `svi.load`, without effect on the others.

    Raises:
        UsageError: It is none.
    """
    kind = kind_of(RunFolder(folder).read_json("config.json"))
    return svi.load(folder, **own) if kind == "svi" else {"gan": gan, "text": text}[kind].load(folder)


def kind_of(config: Any) -> Literal["svi", "gan", "text"]:
    """The command whose runs have such a config.json, whether it made this one or a fit was saved in Python."""
    if not isinstance(config, dict):
        return "svi"
    return "gan" if "generator" in config else "text" if "order" in config else "svi"


def newest_or_quick(*, adversarial: bool = False) -> Path:
    """The newest run folder under runs/, or that of a quick run, of a GAN or a VAE, where there is none."""
    found = newest("svi", "gan")
    if found is not None:
        return found
    print(f"no run under runs/: training a quick {'GAN' if adversarial else 'VAE'}", file=sys.stderr)
    trained = gan.main(["--quick"]) if adversarial else svi.main(["--guide", "amortized", "--quick"])
    return trained.folder.path
