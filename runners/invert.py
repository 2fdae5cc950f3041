"""Codes of images under a trained generator, from many starts, and whether the minima found are local.

    python runners/invert.py                        the newest run, or a quick GAN where there is none
    python runners/invert.py runs/B                 a GAN's, or the decoder of a VAE; what is found goes into runs/B
    python runners/invert.py runs/B --images 10 --planted 100 --restarts 32
    python runners/invert.py runs/B --planted 0     images of the test set alone
    python runners/invert.py runs/B --which best    the GAN's generator that was best during training
    python runners/invert.py runs/C --label 3       a conditional model's threes; by default each image's own class

In Python: `invert(fit)`, or `ppl_models.invert(generator, images)` for the codes themselves.
"""

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
from runners.generators import Which, classes_of, generator_of
from runners.local_minima import RECOVERED, images_evidence, planted_evidence, sentences
from runners.look import Look, at_least, look_at, opened, writable
from runners.loop.command import command
from runners.loop.parser import Parser, natural, positive

__all__ = ["Inverted", "invert", "main"]

IMAGES_AT_ONCE = 10
"""Images whose restarts are inverted at a time: fewer than fit into memory, so that a bar shows how far it has come."""

EVIDENCE = {"planted": planted_evidence, "targets": images_evidence}

QUICK = {"images": 4, "planted": 4, "restarts": 8, "steps": 50}


class Inverted(Look):
    """Figures as in inversion.json, the picture, and the codes; shown as what the figures say.

    Attributes:
        codes: By part, the inversion with all restarts.
    """

    file = "inversion.json"

    def __init__(self, fit: Fit | GanFit, **found: Any) -> None:
        super().__init__(fit, **found)
        self.codes: dict[str, ppl_models.Inversion] = {}

    def lines(self) -> list[str]:
        """What the figures say."""
        return [f"{self['data']}, {self['steps']:,} steps", *self["verdict"].values()]


def invert(
    fit: Fit | GanFit,
    *,
    images: int = 10,
    planted: int = 100,
    restarts: int = 32,
    steps: int = 200,
    label: int | None = None,
    which: Which | None = None,
    seed: int = 0,
    targets: Tensor | None = None,
    out: Path | str | None = None,
) -> Inverted:
    """Invert images under a fit's generator, and images of that generator's own as a control.

    A conditional model is a generator for each class: each image is inverted under its own class's, and each class that
    there is among the images is a part of its own, with a control of its own. Where there is a run folder, what is
    found is written into it.

    Args:
        fit: The fit, which is not changed.
        images: How many of the test images, the first ones, or with `label` the first ones of that class.
        planted: How many images of the generator's own, codes from N(0, I), as evenly over the classes as there are
            several; 0 for no control.
        restarts: For each image.
        steps: Of the first descent.
        label: The class that a conditional model is asked for; by default that of each image.
        which: Of a GAN's generators; by default the average, where one is kept, else as it is.
        seed: Of the starts and of the planted codes.
        targets: Images `(N, C, H, W)` in [0, 1] in place of the test set's; for a conditional model with `label`.
        out: The run folder; by default the fit's, if it has one.

    Raises:
        UsageError: The model has no generator as is needed here, a number is out of range, or images do not fit.
    """
    at_least(images=(images, 1), planted=(planted, 0), restarts=(restarts, 1), steps=(steps, 1))
    folder, started = writable(fit, out), time.monotonic()
    by_class = classes_of(fit) > 0 and label is None and targets is None
    # A label that the run has no use for is refused before images of it are looked for.
    generators = {} if by_class else {"": generator_of(fit, label=label, which=which)}
    wanted = {"": targets} if targets is not None else _test_images(fit, images, label=label, by_class=by_class)
    if by_class:
        generators = {y: generator_of(fit, label=y, which=which) for y in wanted}
    wanted = {y: x.to(fit.device) for y, x in wanted.items()}
    latents = next(iter(generators.values())).latents
    settings = {"restarts": restarts, "steps": steps, "seed": seed}
    found = Inverted(fit, verdict={})  # which is first on the page
    said = {"latents": latents, "label": label, "which": which, "device": str(fit.device)}
    found["settings"] = settings | said
    drawn = torch.Generator().manual_seed(seed + 1)
    codes = torch.randn(planted, latents, generator=drawn, dtype=torch.float64).tensor_split(len(wanted))
    for (y, x), own in zip(wanted.items(), codes, strict=True):
        with torch.no_grad():
            parts = {"planted": generators[y](own.to(x)), "targets": x}
        for part, goals in parts.items():
            if len(goals):
                name = f"{part} of class {y}" if by_class else part
                found.codes[name] = _inverted(generators[y], goals, f"{name} images", progress=fit.progress, **settings)
                found[name] = EVIDENCE[part](generators[y], goals, found.codes[name])
                found["verdict"][name] = f"Class {y}: " * by_class + sentences({part: found[name]})[part]
    found["settings"]["seconds"] = round(time.monotonic() - started, 1)
    found.pictures["inversion"] = _picture(found, generators, wanted)
    found.write(folder)
    return found


def _test_images(fit: Fit | GanFit, count: int, *, label: int | None, by_class: bool) -> dict[Any, Tensor]:
    """The first test images, of one class where there is a label, by class where that is asked for."""
    labels = fit.data.test.labels
    rows = torch.arange(len(fit.data.test), device=fit.device)
    rows = rows if label is None else rows[labels == label]
    if not len(rows):
        raise UsageError(f"label: found no test image of class {label}")
    batch = settled(fit.data.test).gather(rows[:count])
    return {y: batch.x[batch.y == y] for y in batch.y.unique().tolist()} if by_class else {"": batch.x}


@torch.no_grad()
def _picture(found: Inverted, generators: dict[Any, nn.Module], wanted: dict[Any, Tensor]) -> Figure:
    targets = [codes for name, codes in found.codes.items() if name.startswith("targets")]
    planted = [codes.loss for name, codes in found.codes.items() if name.startswith("planted")]
    made = []
    for of, (y, x) in zip(targets, wanted.items(), strict=True):
        best = of.z.take_along_dim(of.loss.argmin(0)[None, :, None], 0).squeeze(0)
        made.append(generators[y](best.to(x)))
    losses, control = torch.cat([of.loss for of in targets], 1), torch.cat(planted, 1) if planted else None
    x = torch.cat(list(wanted.values()))
    return figures.inversion(x, torch.cat(made), losses, planted=control, threshold=RECOVERED)


def _inverted(
    generator: nn.Module, images: Tensor, name: str, *, progress: bool, **settings: Any
) -> ppl_models.Inversion:
    """The inversion of all images, a few at a time, which changes nothing but what is seen of its progress."""
    with tqdm(images.split(IMAGES_AT_ONCE), name, leave=False, disable=not progress) as batches:
        parts = [ppl_models.invert(generator, batch, **settings) for batch in batches]
    return ppl_models.Inversion(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Inverted | list[Inverted]:
    """Run the command; returns what was found, of each run where there are several."""
    parser = Parser("Codes of images under a trained generator, and whether the minima are local.", __doc__)
    add = parser.add_argument
    add("--images", type=positive, help="test images, the first ones (default: 10)")
    add("--planted", type=natural, help="images of the generator's own, whose codes are known (default: 100)")
    add("--restarts", type=positive, help="starts for each image (default: 32)")
    add("--steps", type=positive, help="of each start's first descent (default: 200)")
    every = look_at(invert, *opened(parser, argv, quick=QUICK, generator=True, adversarial=True))
    return every[0] if len(every) == 1 else every


if __name__ == "__main__":
    inverted = main()
