"""Fits side by side on the same images and the same noise: a table of paired differences.

    python runners/compare.py runs/A runs/B          each run's guide on its own model
    python runners/compare.py runs/A --free 200      run A's guide, and free parameters on A's frozen model
    python runners/compare.py runs/A --refine 20     run A's encoder, and the same refined on each image

In Python: `compare(vae, free)`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from guides import Amortized, Diagonal, Free, SemiAmortized
from guides.echo import echo_of
from guides.families import has_density
from guides.free import Rows
from guides.semi_amortized import REFINEMENT
from ppl_models import UsageError
from runners import svi
from runners.check import OURS
from runners.fit import Fit
from runners.loop.command import command
from runners.loop.parser import Parser, positive
from runners.summary import mean_and_error

__all__ = ["Comparison", "compare", "main"]


@dataclass(frozen=True)
class Comparison:
    """Bounds of several fits on the same images, and their differences from the first, in nats per image.

    Attributes:
        elbo: The bound of each image by the fit's name, `(images,)`.
        kl: Its KL term likewise.
        seconds: What inference and the bound took for each image.
        echo: Those whose bound is about the marginal of their own codes as the prior.
    """

    elbo: dict[str, Tensor]
    kl: dict[str, Tensor]
    seconds: dict[str, float]
    echo: tuple[str, ...] = ()

    def difference(self, name: str) -> tuple[float, float]:
        """The mean of a fit's bound minus the first one's, image by image, and its standard error."""
        first = next(iter(self.elbo.values()))
        return mean_and_error(self.elbo[name] - first)

    def __repr__(self) -> str:
        names = list(self.elbo)
        width = max(map(len, names))
        head = f"{'':{width}}  {'ELBO':>16}  {'KL':>7}  {'ms/image':>8}  minus {names[0]}"
        lines = [f"{len(self.elbo[names[0]]):,} images, nats per image", head]
        for name in names:
            (elbo, error), kl = mean_and_error(self.elbo[name]), float(self.kl[name].mean())
            spread = f" ± {error:4.2f}" if len(self.elbo[name]) > 1 else " " * 7
            line = f"{name:{width}}  {elbo:9.2f}{spread}  {kl:7.2f}  {1e3 * self.seconds[name]:8.2f}"
            if name != names[0]:
                difference, error = self.difference(name)
                line += f"  {difference:+.2f}" + (f" ± {error:.2f}" if len(self.elbo[name]) > 1 else "")
            lines.append(line)
        lines += [f"{name}: Echo's bound has the marginal of its codes as prior, not the model's" for name in self.echo]
        return "\n".join(lines)


def compare(
    *fits: Fit, names: Sequence[str] | None = None, images: int = 1000, updates: int | None = None
) -> Comparison:
    """Evaluate fits on the first `images` test images with the same noise.

    Args:
        fits: The fits; free parameters start from the prior and are refined, on noise that is not used again.
        names: What to call them; by default their guides' names.
        images: How many test images.
        updates: Gradient steps for free parameters, by default 200; semi-amortized guides have their own.

    Raises:
        UsageError: The fits are of different data sets, or there are none.
    """
    if len({fit.data.test.fingerprint() for fit in fits}) != 1:
        raise UsageError("expected at least one fit, all with the same test images")
    test = fits[0].data.test
    chosen = test.first(min(images, len(test)))
    elbo, kl, seconds, echo = {}, {}, {}, ()
    for position, fit in enumerate(fits):
        name = names[position] if names else type(fit.guide).__name__
        name = f"{name} {position + 1}" if name in elbo else name
        free = isinstance(fit.guide, Rows)
        echo += () if echo_of(fit.guide) is None else (name,)
        started = time.monotonic()
        parts = fit.bounds(chosen, updates=updates if free else None)
        elbo[name], kl[name] = parts.elbo.double().cpu(), parts.kl.double().cpu()  # waits for the device
        seconds[name] = (time.monotonic() - started) / len(chosen)
    return Comparison(elbo, kl, seconds, echo)


def _refined(fit: Fit, updates: int, *, where: str) -> Fit:
    """The same encoder, semi-amortized after the fact."""
    if type(fit.guide) is not Amortized or not has_density(fit.guide.family):
        raise UsageError(f"--refine: the guide of {where} is no encoder whose answers can be refined")
    refinement = replace(REFINEMENT, steps=updates)
    guide = SemiAmortized(encoder=fit.guide.encoder, family=fit.guide.family, refinement=refinement)
    guide.heads = fit.guide.heads
    return fit.swap(guide, train_model=False)


@command(resumes=False)
def main(argv: Sequence[str] | None = None) -> Comparison:
    """Run the command; returns the comparison."""
    parser = Parser("Fits side by side on the same images and noise.", __doc__, default=None)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of svi.py")
    parser.add_argument("--free", type=positive, metavar="UPDATES", help="add free parameters on the first run's model")
    parser.add_argument("--refine", type=positive, metavar="UPDATES", help="add the first run's encoder, refined")
    parser.add_argument("--model", help="FILE.py:NAME, where a run's model is your own")
    parser.add_argument("--guide", help="the same for its guide")
    parser.add_argument("--images", type=positive, default=1000, help="of the test set, the first ones")
    options = parser.parse_args(argv)
    own = {name: getattr(options, name) for name in ("model", "guide") if getattr(options, name)}
    fits = [svi.load(folder, **own) for folder in options.runs]
    for name in own:
        if all(type(getattr(fit, name)).__module__.partition(".")[0] in OURS for fit in fits):
            raise UsageError(f"--{name}: no run here has a {name} of your own; leave it out")
    names = [folder.name for folder in options.runs]
    if options.free:
        first = fits[0]
        if not isinstance(first.model.latents, int):
            raise UsageError(f"--free: {options.runs[0]} has latents in several layers, which rows cannot start")
        free = Free(first.data.train, family=Diagonal(first.model.latents))
        fits.append(first.swap(free, train_model=False))
        names.append(f"free, {options.free} updates")
    if options.refine:
        fits.append(_refined(fits[0], options.refine, where=str(options.runs[0])))
        names.append(f"refined, {options.refine} updates")
    comparison = compare(*fits, names=names, images=options.images, updates=options.free)
    print(comparison)
    return comparison


if __name__ == "__main__":
    comparison = main()
