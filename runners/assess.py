"""How good a run is: its inference, in nats with error bars, and its samples, beside real images.

    python runners/assess.py                        the newest run, or a quick one where there is none
    python runners/assess.py runs/A                 everything; figures and pictures go into runs/A
    python runners/assess.py runs/A --parts importance --images 10000 --samples 5000 --precision bf16
    python runners/assess.py runs/A --parts annealing --temperatures 100 300 1000
    python runners/assess.py runs/A --parts gaps --images 200
    python runners/assess.py runs/A runs/B --parts samples        samples of VAEs and GANs, in one table

In Python: `assess(fit)`, or one part, `assess(fit, parts=["gaps"])`.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from guides.gaps import SEARCH
from ppl_models import UsageError
from runners.assessment import annealing, codes, importance, inference_gaps, lines
from runners.fit import Fit, settled
from runners.gan_fit import GanFit
from runners.look import Look, at_least, look_at, opened, writable
from runners.loop.command import command
from runners.loop.folder import RunFolder
from runners.loop.parser import Parser, positive
from runners.metrics.measures import table
from runners.sample_quality import over_seeds, sample_quality, several
from runners.summary import GREY, is_grey

__all__ = ["PARTS", "Assessment", "assess", "main"]

PARTS = {"importance": 1000, "annealing": 32, "gaps": 100, "codes": 2000, "samples": 10_000}
"""What there is to assess, and of how many images if nothing else is said."""

QUICK = {"images": 20, "samples": 100, "chains": 4, "temperatures": [50], "updates": 50}


class Assessment(Look):
    """Figures by part, as in assessment.json, and the pictures; shown as a table."""

    file, prefix = "assessment.json", "assessment_"

    def lines(self) -> list[str]:
        """A table."""
        return lines(self)


def assess(
    fit: Fit | GanFit,
    *,
    parts: Sequence[str] | None = None,
    split: Literal["test", "train"] = "test",
    images: int | None = None,
    samples: int = 1000,
    chains: int = 8,
    temperatures: Sequence[int] = (200,),
    leapfrog: int = 10,
    start: Literal["prior", "guide"] = "guide",
    updates: int = SEARCH.steps,
    precision: Literal["float32", "bf16"] = "float32",
    seed: int = 0,
    out: Path | str | None = None,
) -> Assessment:
    """Measure the inference of a fit and its samples, of a GAN these alone.

    Where there is a run folder, what is found is written into it, part by part.

    Args:
        fit: The fit, which is not changed.
        parts: Of `PARTS`; by default all that there can be, those that a guide cannot give with a line that says why.
        split: Which images; on those of training, free rows start where it left them.
        images: How many of them, the first ones; by default what `PARTS` says.
        samples: Importance samples of the latents per image.
        chains: Annealed chains per image.
        temperatures: Their numbers of temperatures; for several, a curve.
        leapfrog: Steps of each trajectory.
        start: Where chains start: from the prior they know nothing of the guide, and need more temperatures.
        updates: Gradient steps to the best posterior of each image and family.
        precision: Of the networks; densities are in float32.
        seed: Of all noise.
        out: The run folder; by default the fit's, if it has one.

    Raises:
        UsageError: A part that was asked for is none, or the guide cannot give it.
    """
    _check(parts=parts, split=split, start=start, precision=precision)
    at_least(images=(images, 1), samples=(samples, 1), chains=(chains, 1), leapfrog=(leapfrog, 1), updates=(updates, 1))
    folder = writable(fit, out)
    classifiers = folder and folder.path.resolve().parent / "classifiers"
    carried = getattr(fit.pieces.get("guide"), "carried", False)
    common = {"seed": seed, "rows": split == "train" and not carried}
    noise = common | {"samples": samples}
    annealed = {"chains": chains, "temperatures": temperatures, "leapfrog": leapfrog, "start": start}
    measures = {
        "importance": lambda chosen: importance(fit, chosen, **noise),
        "annealing": lambda chosen: annealing(fit, chosen, **annealed, **noise),
        "gaps": lambda chosen: inference_gaps(fit, chosen, updates=updates, **noise),
        "codes": lambda chosen: codes(fit, chosen, **common),
        "samples": lambda chosen: (
            sample_quality(fit, images=len(chosen), split=split, seed=seed, classifiers=classifiers),
            None,
        ),
    }
    found = Assessment(fit)
    adversarial = isinstance(fit, GanFit)
    if not adversarial and is_grey(fit):
        found["likelihood"] = GREY
    if folder:
        found |= _earlier(folder, found)
    pool = getattr(fit.data, split)
    for part in parts or (["samples"] if adversarial else PARTS):
        if adversarial and part != "samples":
            raise UsageError(f"{part}: a GAN has no density and no guide, expected samples")
        room = len(pool) // 2 if (part, split) == ("samples", "train") else len(pool)  # the other half is beside it
        chosen = settled(pool.first(min(images or PARTS[part], room)))
        started = time.monotonic()
        try:
            with torch.autocast(fit.device.type, torch.bfloat16, enabled=precision == "bf16"):
                found[part], picture = measures[part](chosen)
        except UsageError as error:
            if parts is not None:
                raise
            found[part], picture = {"refused": str(error)}, None
        else:
            how = {"split": split, "dtype": precision, "seed": seed, "device": str(fit.device)}
            found[part] |= how | {"seconds": round(time.monotonic() - started, 1)}
        if picture is not None:
            found.pictures[part] = picture
        if folder:
            _drop_stale(folder, found, part)
        found.write(folder)
    return found


def _check(*, parts: Sequence[str] | None, **words: str) -> None:
    """Refuse words that mean nothing here.

    Raises:
        UsageError: There is one.
    """
    known = {"split": ("test", "train"), "start": ("prior", "guide"), "precision": ("float32", "bf16")}
    asked = [(name, word, known[name]) for name, word in words.items()]
    asked += [("parts", part, tuple(PARTS)) for part in (parts if parts is None or len(parts) else [""]) or ()]
    for name, word, expected in asked:
        if word not in expected:
            raise UsageError(f"{name}: found {word!r}, expected {', '.join(expected)}")


def _earlier(folder: RunFolder, now: Assessment) -> dict[str, Any]:
    """Parts that were assessed before, of the same model and guide in the same state."""
    try:
        earlier = folder.read_json("assessment.json") if (folder.path / "assessment.json").exists() else {}
    except UsageError as error:
        print(f"{error}; it is written anew", file=sys.stderr)
        earlier = {}
    same = isinstance(earlier, dict) and all(earlier.get(name) == now[name] for name in ("data", "steps", "state"))
    return {part: earlier[part] for part in PARTS if part in earlier} if same else {}


def _drop_stale(folder: RunFolder, found: Assessment, part: str) -> None:
    """Remove pictures of an earlier assessment, which no figure belongs to any more."""
    for name in PARTS:
        if name not in found.pictures and (name == part or name not in found):
            (folder.path / f"{found.prefix}{name}.png").unlink(missing_ok=True)


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Assessment | list[Assessment]:
    """Run the command; returns the assessment, or that of each run."""
    parser = Parser("How good the inference of a run and its samples are.", __doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    add("--split", choices=["test", "train"], help="which images (default: test)")
    counts = ", ".join(f"{part} {count:,}" for part, count in PARTS.items())
    add("--images", type=positive, help=f"how many, the first ones (default: {counts})")
    add("--samples", type=positive, help="importance samples per image (default: 1000)")
    add("--chains", type=positive, help="annealed chains per image (default: 8)")
    add(
        "--temperatures",
        type=positive,
        nargs="+",
        metavar="N",
        help="steps of annealing from where chains start to the posterior; several for a curve (default: 200)",
    )
    add("--leapfrog", type=positive, help="steps of each Hamiltonian trajectory (default: 10)")
    add("--start", choices=["prior", "guide"], help="where annealed chains start (default: guide)")
    add(
        "--updates",
        type=positive,
        help=f"gradient steps in search of each image's best posterior (default: {SEARCH.steps})",
    )
    add("--precision", choices=["float32", "bf16"], help="of the networks (default: float32); densities are float32")
    runs, settings = opened(parser, argv, quick=QUICK)
    every = look_at(assess, runs, settings)
    asked = "samples" in (settings.get("parts") or PARTS)
    figures = [found.get("samples", {}) if asked else {} for found in every]
    seen = [(*run, one) for run, one in zip(runs, figures, strict=True) if "images" in one]
    if len(seen) > 1:
        named = several([(folder.name, figures) for folder, _, figures in seen])
        configs = [RunFolder(folder).read_json("config.json") | {"done": fit.history.step} for folder, fit, _ in seen]
        means = over_seeds(list(zip(configs, (figures for *_, figures in seen), strict=True)))
        print("", *table(named + means), sep="\n")
    return every[0] if len(every) == 1 else every


if __name__ == "__main__":
    assessment = main()
