"""Fits side by side: on the same images and noise, by the same text, or by samples, with a table and a picture.

    python runners/compare.py runs/A runs/B          each run's guide on its own model
    python runners/compare.py runs/A --free 200      run A's guide, and free parameters on A's frozen model
    python runners/compare.py runs/A --refine 20     run A's encoder, and the same refined on each image
    python runners/compare.py runs/G runs/H runs/A   samples of GANs, and of models beside them
    python runners/compare.py runs/T runs/U          character models by how much the same text surprises them
    python runners/compare.py runs/A runs/B --out comparisons/AB        the table and the picture as files too

In Python: `compare(vae, free)`, and `.show()` of that.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from guides import Amortized, Diagonal, Free, SemiAmortized
from guides.families import has_density
from guides.semi_amortized import REFINEMENT
from ppl_models import UsageError
from runners import figures
from runners.check import OURS
from runners.comparisons import Comparison, compare_bounds, compare_samples, compare_surprise
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.loading import load_any
from runners.loop.atomic import write_atomically
from runners.loop.command import command
from runners.loop.parser import Parser, given_path, positive
from runners.text_fit import TextFit

__all__ = ["Comparison", "compare", "free_on", "main", "refined"]


def compare(
    *fits: Fit | GanFit | TextFit,
    names: Sequence[str] | None = None,
    images: int | None = None,
    updates: int | None = None,
    classifiers: Path | str | None = None,
) -> Comparison:
    """Compare fits of one kind on the same test data, or the samples of GANs with those of other models of images.

    Models with guides by their bounds on the same images with the same noise, and character models by their surprise
    at each character of the same text: paired differences from the first ± standard errors. As soon as there is a GAN,
    samples of all in the features of one classifier.

    Args:
        fits: The fits.
        names: What to call them; by default their guides' names, their losses' or their models'.
        images: How many test images, the first ones; by default 1000, and 10 000 samples where samples are compared.
        updates: Gradient steps for free parameters, by default 200; semi-amortized guides have their own.
        classifiers: Where the classifier that samples are measured by is kept, such as runs/classifiers; by default
            beside the first fit's run folder, or nowhere.

    Raises:
        UsageError: There are no fits, they are of different test data or of kinds that cannot be compared, or a
            setting means nothing to them.
    """
    texts, gans = ([isinstance(fit, kind) for fit in fits] for kind in (TextFit, GanFit))
    if any(texts) and not all(texts):
        raise UsageError("found fits of a text and of images, which have no figure in common; expected one kind")
    # A generator's samples are measured as the data are drawn; bounds are about the test images, however trained.
    if len({(fit.data.test.fingerprint(), fit.data.binarize if any(gans) else None) for fit in fits}) != 1:
        raise UsageError(f"expected at least one fit, all with the same test {'text' if any(texts) else 'images'}")
    if names is not None and len(names) != len(fits):
        raise UsageError(f"names: found {len(names)}, expected {len(fits)}, one for each fit")
    what, meant = "bounds", ("images", "updates")
    if any(texts) or any(gans):
        what, meant = ("samples", ("images", "classifiers")) if any(gans) else ("texts", ())
    for name, value in {"images": images, "updates": updates, "classifiers": classifiers}.items():
        if value is not None and name not in meant:
            raise UsageError(f"{name}: changes nothing where {what} are compared")
    named = _named(fits, names)
    if what == "texts":
        return compare_surprise(named)
    if what == "samples":
        beside = next((fit.folder.path.resolve().parent / "classifiers" for fit in fits if fit.folder), None)
        return compare_samples(named, images=images, classifiers=Path(classifiers) if classifiers else beside)
    return compare_bounds(named, images=images, updates=updates)


def _named(fits: Sequence[Fit | GanFit | TextFit], names: Sequence[str] | None) -> dict[str, Fit | GanFit | TextFit]:
    """Fits by what to call them, numbered where two would be called the same."""
    named: dict[str, Fit | GanFit | TextFit] = {}
    for position, fit in enumerate(fits):
        name = names[position] if names else fit.loss if isinstance(fit, GanFit) else _kind(fit)
        numbered = (f"{name} {number}" for number in count(position + 1))
        named[name if name not in named else next(each for each in numbered if each not in (names or ()))] = fit
    return named


def _kind(fit: Fit | TextFit) -> str:
    return type(fit.model if isinstance(fit, TextFit) else fit.guide).__name__


def free_on(fit: Fit, *, where: str = "this fit") -> Fit:
    """Free parameters on a fit's frozen model, for `compare`, which refines them on each image.

    Raises:
        UsageError: There are several latents.
    """
    if not isinstance(fit.model.latents, int):
        raise UsageError(f"--free: {where} has latents in several layers, which rows cannot start")
    return fit.swap(Free(fit.data.train, family=Diagonal(fit.model.latents)), train_model=False)


def refined(fit: Fit, updates: int, *, where: str = "this fit") -> Fit:
    """The same encoder on the same frozen model, semi-amortized after the fact.

    Raises:
        UsageError: The guide is no encoder whose answers have a density.
    """
    if type(fit.guide) is not Amortized or not has_density(fit.guide.family):
        raise UsageError(f"--refine: the guide of {where} is no encoder whose answers can be refined")
    refinement = replace(REFINEMENT, steps=updates)
    guide = SemiAmortized(encoder=fit.guide.encoder, family=fit.guide.family, refinement=refinement)
    guide.heads = fit.guide.heads
    return fit.swap(guide, train_model=False)


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Comparison:
    """Run the command; returns the comparison."""
    options = _parser().parse_args(argv)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is better known before the work
        if any(options.out.iterdir()):
            raise UsageError(f"--out {options.out}: is not empty; choose another folder")
    own = {name: getattr(options, name) for name in ("model", "guide") if getattr(options, name)}
    fits = [load_any(folder, **own) for folder in options.runs]
    for name in own:
        if all(type(getattr(fit, name)).__module__.partition(".")[0] in OURS for fit in fits if isinstance(fit, Fit)):
            raise UsageError(f"--{name}: no run here has a {name} of your own; leave it out")
    names = [folder.name for folder in options.runs]
    for name in ("free", "refine"):
        if getattr(options, name) and not all(isinstance(fit, Fit) for fit in fits):
            raise UsageError(f"--{name}: is for runs of svi.py alone")
    if options.free:
        fits.append(free_on(fits[0], where=str(options.runs[0])))
        names.append(f"free, {options.free} updates")
    if options.refine:
        fits.append(refined(fits[0], options.refine, where=str(options.runs[0])))
        names.append(f"refined, {options.refine} updates")
    settings = {"images": options.images, "updates": options.free}
    if any(isinstance(fit, GanFit) for fit in fits):  # as gan.py and assess.py keep it
        settings["classifiers"] = options.runs[0].resolve().parent / "classifiers"
    comparison = compare(*fits, names=names, **settings)
    print(comparison)
    if options.out:
        _write(comparison, options.out)
    return comparison


def _write(comparison: Comparison, folder: Path) -> None:
    """Leave the table and the picture in a folder, and say so."""
    write_atomically(folder / "comparison.md", lambda file: file.write(f"{comparison!r}\n".encode()))
    figures.save(comparison.show(), folder / "comparison.png")
    print(folder / "comparison.md", folder / "comparison.png", sep="\n")


def _parser() -> Parser:
    parser = Parser("Fits side by side, by bounds, samples or surprise.", __doc__, default=None)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="run folders of svi.py, of gan.py or both, or of text.py")
    add("--free", type=positive, metavar="UPDATES", help="add free parameters on the first run's model")
    add("--refine", type=positive, metavar="UPDATES", help="add the first run's encoder, refined")
    add("--model", help="FILE.py:NAME, where a run's model is your own")
    add("--guide", help="the same for its guide")
    add("--images", type=positive, help="of the test set, the first ones (default: 1000; samples: 10 000)")
    add("--out", type=given_path, help="a new folder for the table and the picture (default: nothing is written)")
    return parser


if __name__ == "__main__":
    comparison = main()
