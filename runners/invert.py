"""Codes of images under a trained generator, from many starts, and whether the minima found are local.

    python runners/invert.py                        the newest run, or a quick one where there is none
    python runners/invert.py runs/B                 a GAN's, or the decoder of a VAE; what is found goes into runs/B
    python runners/invert.py runs/B --images 10 --planted 100 --restarts 32
    python runners/invert.py runs/B --planted 0     images of the test set alone

In Python: `invert(fit)`, or `ppl_models.invert(generator, images)` for the codes themselves.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

import ppl_models
from ppl_models import UsageError
from runners import figures
from runners.fit import Fit, settled
from runners.gan_fit import GanFit
from runners.generators import generator_of
from runners.loading import load_run, newest_or_quick
from runners.local_minima import images_evidence, planted_evidence, sentences
from runners.loop.command import Parser, command, given_path, natural, positive
from runners.loop.folder import RunFolder
from runners.origin import device_of

__all__ = ["Inverted", "invert", "main"]

IMAGES_AT_ONCE = 10
"""Images whose restarts are inverted at a time."""

QUICK = {"images": 4, "planted": 4, "restarts": 8, "steps": 50}


class Inverted(dict[str, Any]):
    """Figures as in inversion.json, the picture, and the codes; shown as what the figures say.

    Attributes:
        pictures: By name.
        codes: By part, planted or targets, the inversion with all restarts.
    """

    def __init__(self, **found: Any) -> None:
        super().__init__(found)
        self.pictures: dict[str, Figure] = {}
        self.codes: dict[str, ppl_models.Inversion] = {}

    def __repr__(self) -> str:
        return "\n".join([f"{self['data']}, {self['steps']:,} steps", *self["verdict"].values()])


def invert(
    fit: Fit | GanFit,
    *,
    images: int = 10,
    planted: int = 100,
    restarts: int = 32,
    steps: int = 200,
    label: int | None = None,
    seed: int = 0,
    targets: Tensor | None = None,
    out: Path | str | None = None,
) -> Inverted:
    """Invert images under a fit's generator, and images of that generator's own as a control.

    Where there is a run folder, what is found is written into it.

    Args:
        fit: The fit, which is not changed.
        images: How many of the test images, the first ones.
        planted: How many images of the generator's own, codes from N(0, I); 0 for no control.
        restarts: For each image.
        steps: Of the first descent.
        label: The class that a conditional model is asked for.
        seed: Of the starts and of the planted codes.
        targets: Images `(N, C, H, W)` in [0, 1] in place of the test set's.
        out: The run folder; by default the fit's, if it has one.

    Raises:
        UsageError: The model has no generator as is needed here, a number is out of range, or images do not fit.
    """
    for name, value, least in (("images", images, 1), ("planted", planted, 0), ("restarts", restarts, 1)):
        if value < least:
            raise UsageError(f"{name}: found {value}, expected {least} or more")
    folder = fit.folder if out is None else RunFolder(Path(out))
    if folder and not (folder.holds_run and os.access(folder.path, os.W_OK)):
        raise UsageError(f"{folder.path}: not a run folder that can be written to")  # before minutes of work
    generator, started = generator_of(fit, label=label), time.monotonic()
    if targets is None:
        chosen = settled(fit.data.test.first(min(images, len(fit.data.test))))
        targets = torch.cat([batch.x for batch in chosen.in_order(500)])
    targets = targets.to(fit.device)
    settings = {"restarts": restarts, "steps": steps, "seed": seed}
    found = Inverted(data=fit.data.name, steps=fit.history.step)
    found["verdict"] = {}  # first in the file and on the page
    found["settings"] = settings | {"latents": generator.latents, "label": label, "device": str(fit.device)}
    parts = {"targets": (targets, images_evidence)}
    if planted:
        drawn = torch.Generator().manual_seed(seed + 1)
        codes = torch.randn(planted, generator.latents, generator=drawn, dtype=torch.float64)
        with torch.no_grad():
            parts = {"planted": (generator(codes.to(targets)), planted_evidence), **parts}
    for part, (wanted, evidence) in parts.items():
        found.codes[part] = _inverted(generator, wanted, f"{part} images", progress=fit.progress, **settings)
        found[part] = evidence(generator, wanted, found.codes[part])
    found["settings"]["seconds"] = round(time.monotonic() - started, 1)
    found["verdict"] = sentences(found)
    of = found.codes["targets"]
    best = of.z.take_along_dim(of.loss.argmin(0)[None, :, None], 0).squeeze(0)
    with torch.no_grad():
        made = generator(best.to(targets))
    control = found.codes["planted"].loss if planted else None
    found.pictures["inversion"] = figures.inversion(targets, made, of.loss, planted=control)
    if folder:
        folder.write_json("inversion.json", found)
        figures.save(found.pictures["inversion"], folder.path / "inversion.png")
        figures.report(folder.path)
    return found


def _inverted(
    generator: nn.Module, images: Tensor, name: str, *, progress: bool, **settings: Any
) -> ppl_models.Inversion:
    """The inversion of all images, a few at a time, which changes nothing but what is seen of its progress."""
    batches = tqdm(images.split(IMAGES_AT_ONCE), name, leave=False, disable=not progress)
    parts = [ppl_models.invert(generator, batch, **settings) for batch in batches]
    return ppl_models.Inversion(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Inverted:
    """Run the command; returns what was found."""
    parser = Parser("Codes of images under a trained generator, and whether the minima are local.", __doc__)
    parser.usage = "%(prog)s [RUN] [options]"
    add = parser.add_argument
    add("run", type=given_path, nargs="?", metavar="RUN", help="run folder of svi.py or gan.py (default: the newest)")
    add("--images", type=positive, help="test images, the first ones (default: 10)")
    add("--planted", type=natural, help="images of the generator's own, whose codes are known (default: 100)")
    add("--restarts", type=positive, help="starts for each image (default: 32)")
    add("--steps", type=positive, help="of each start's first descent (default: 200)")
    add("--label", type=natural, help="the class that a conditional model is asked for")
    add("--seed", type=natural, help="of the starts and of the planted codes (default: 0)")
    add("--device", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    add("--data-root", type=given_path, help="folder with data sets (default: the run's, $PPL_DATA, data/)")
    add("--model", help="FILE.py:NAME, where the run's model is your own")
    add("--guide", help="the same for its guide")
    add("--quick", action="store_true", help="few images, starts and steps, to see that all is well")
    options = vars(parser.parse_args(argv))
    settings = QUICK if options.pop("quick", False) else {}
    run = options.pop("run", None) or newest_or_quick()
    own = {name: options.pop(name) for name in ("model", "guide") if name in options}
    place = {"device": device_of(options.pop("device", None)), "data_root": options.pop("data_root", None)}
    fit = load_run(run, **own, **place)
    found = invert(fit, out=run, **(settings | options))
    print(f"{fit!r} ← {run}", file=sys.stderr)
    print(found)
    print(run / "report.html")
    return found


if __name__ == "__main__":
    inverted = main()
