"""What can be measured of the inference of a fit: figures as in assessment.json, a picture, and lines to print.

Every part is a function of a fit and of images, and returns its figures, means over the images with standard errors
(`_se`), and a picture or `None`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from guides import Diagonal, FullRank
from guides.aggregate import active_units, collapse, elbo_split
from guides.ais import Annealing, ais, bdmc
from guides.echo import echo_of
from guides.gaps import SEARCH, gaps
from guides.sites import run_program
from ppl_models import UsageError
from runners import figures
from runners.fit import Fit
from runners.summary import means

__all__ = ["annealing", "codes", "importance", "inference_gaps", "lines"]

Part = tuple[dict[str, Any], Figure | None]

AT_ONCE = 50
"""Images whose best posteriors are searched at a time."""


def importance(fit: Fit, images: Any, *, samples: int = 1000, seed: int = 0) -> Part:
    """The importance-sampled evidence, and the bound on the same samples."""
    found = fit.evidence(images, samples=samples, seed=seed)
    return {"samples": samples, **means(**found._asdict())}, None


def annealing(
    fit: Fit,
    images: Any,
    *,
    temperatures: Sequence[int] = (1000,),
    chains: int = 8,
    leapfrog: int = 10,
    start: Literal["prior", "guide"] = "prior",
    samples: int = 1000,
    seed: int = 0,
) -> Part:
    """The evidence by annealed importance sampling beside importance sampling; on simulated data, bounds on both sides.

    Raises:
        UsageError: The guide's bound is about another prior than the model's.
    """
    if echo_of(fit.guide) is not None:
        raise UsageError("annealing: with Echo the bound's prior is the marginal of the codes, which has no density")
    sampled = fit.evidence(images, samples=samples, seed=seed).log_evidence
    found: dict[str, Any] = {"start": start, "chains": chains, "leapfrog": leapfrog, "samples": samples}
    found |= means(importance=sampled) | {"by_temperatures": {}}
    for count in temperatures:
        bar = partial(tqdm, desc=f"annealing, {count:,} temperatures", leave=False, disable=not fit.progress)
        settings = {
            "posterior": fit.posterior if start == "guide" else None,
            "annealing": Annealing(temperatures=count, chains=chains, leapfrog=leapfrog),
            "seed": seed,
            "progress": bar,
        }
        with fit.aside():
            real = ais(fit.model, images.in_order(len(images)), **settings)
            simulated = bdmc(fit.model, images.in_order(len(images)), **settings)
        found["by_temperatures"][str(count)] = {
            **means(**real._asdict(), minus_importance=real.log_evidence - sampled),
            "simulated": means(
                lower=simulated.lower.log_evidence, upper=simulated.upper.log_evidence, gap=simulated.gap
            ),
        }
    return found, figures.annealing(found["by_temperatures"]) if len(temperatures) > 1 else None


def inference_gaps(fit: Fit, images: Any, *, updates: int = SEARCH.steps, samples: int = 1000, seed: int = 0) -> Part:
    """The distance from the guide's bound to the evidence, split into what its family and what its encoder cost."""
    with fit.aside():
        own, others = _families(fit, images)
        count = math.ceil(len(images) / AT_ONCE)
        batches = tqdm(images.in_order(AT_ONCE), "gaps", count, leave=False, disable=not fit.progress)
        found = gaps(
            fit.model,
            fit.posterior,
            batches,
            families=others,
            own=own,
            refinement=replace(SEARCH, steps=updates),
            samples=samples,
            seed=seed,
        )
    split = {
        "samples": samples,
        "updates": updates,
        "family": own,
        **means(
            log_evidence=found.log_evidence,
            elbo=found.guide.elbo,
            gap=found.log_evidence - found.guide.elbo,
            amortization=found.amortization,
            approximation=found.approximation(),
        ),
        "best": {
            name: means(elbo=best.elbo, approximation=found.approximation(name)) for name, best in found.best.items()
        },
    }
    return split, figures.gaps(split)


def codes(fit: Fit, images: Any, *, seed: int = 0) -> Part:
    """Active units, and the bound in three parts: reconstruction, information of the codes, and their marginal's KL."""
    with fit.aside():
        units = active_units(fit.posterior, images.in_order(500), seed=seed)
        split = elbo_split(fit.model, fit.posterior, images.in_order(500), seed=seed)
    parts = {name: getattr(split, name) for name in ("elbo", "log_likelihood", "mutual_information", "marginal_kl")}
    found = means(**parts) | {"limit": split.limit if math.isfinite(split.limit) else None}
    found["active_units"] = {
        name: {
            "active": units.number[name],
            "of": variance.numel(),
            "threshold": units.threshold,
            "variance": variance.flatten().tolist(),
            "variance_se": units.error[name].flatten().tolist(),
        }
        for name, variance in units.variance.items()
    }
    if remark := collapse(units, split):
        found["remark"] = remark
    return found, figures.active_units(units.variance, units.error, threshold=units.threshold)


def lines(assessment: dict[str, Any]) -> list[str]:
    """The figures of an assessment as lines to print, those of each part beneath its name."""
    said = []
    for part in _LINES:
        if part in assessment:
            found = assessment[part]
            about = f"{found['images']:,} images, {found['seconds']:,.0f} s" if "images" in found else ""
            said.append(f"{part:<12}{about}")
            said += [f"{'':4}{line}" for line in ([found["refused"]] if "refused" in found else _LINES[part](found))]
    return said


def _importance_lines(found: dict[str, Any]) -> list[str]:
    return [
        f"log p(x) {_figure(found, 'log_evidence')}  by {found['samples']:,} importance samples, of which "
        f"{found['effective_samples']:,.0f} effective",
        f"ELBO {_figure(found, 'elbo')}  on the same samples",
    ]


def _annealing_lines(found: dict[str, Any]) -> list[str]:
    said = [f"log p(x) {_figure(found, 'importance')}  by {found['samples']:,} importance samples"]
    for count, row in found["by_temperatures"].items():
        simulated = row["simulated"]
        said += [
            f"log p(x) {_figure(row, 'log_evidence')}  by {found['chains']} chains from the {found['start']} over "
            f"{int(count):,} temperatures: {_figure(row, 'minus_importance', '+')}; acceptance "
            f"{row['acceptance']:.2f}, effective chains {row['effective_chains']:.1f}",
            f"of simulated data between {simulated['lower']:.2f} and {simulated['upper']:.2f}: gap "
            f"{_figure(simulated, 'gap')}",
        ]
    return said


def _gap_lines(found: dict[str, Any]) -> list[str]:
    own = found["family"]
    said = [
        f"log p(x) {_figure(found, 'log_evidence')}  minus the guide's ELBO {_figure(found, 'elbo')} = gap "
        f"{_figure(found, 'gap')}",
        f"{_figure(found, 'amortization')}  amortization, {_figure(found, 'approximation')}  approximation ({own})",
    ]
    others = {name: best for name, best in found["best"].items() if name != own}
    return said + [f"{_figure(best, 'approximation')}  approximation, were it {name}" for name, best in others.items()]


def _code_lines(found: dict[str, Any]) -> list[str]:
    limit = "" if found["limit"] is None else f" (at most log N = {found['limit']:.2f})"
    units = ", ".join(f"{unit['active']} of {unit['of']} in {name}" for name, unit in found["active_units"].items())
    said = [
        f"ELBO {_figure(found, 'elbo')} = reconstruction {_figure(found, 'log_likelihood')}",
        f"- information of the codes {_figure(found, 'mutual_information')}{limit} - KL of their marginal "
        f"{_figure(found, 'marginal_kl')}",
        f"active units {units}",
    ]
    return said + ([found["remark"]] if "remark" in found else [])


def _figure(found: dict[str, Any], name: str, sign: str = "") -> str:
    error = f" ± {found[f'{name}_se']:.2f}" if f"{name}_se" in found else ""
    return f"{found[name]:{sign}.2f}{error}"


_LINES = {
    "importance": _importance_lines,
    "annealing": _annealing_lines,
    "gaps": _gap_lines,
    "codes": _code_lines,
}


def _families(fit: Fit, images: Any) -> tuple[str, dict[str, nn.Module]]:
    """The name of the guide's family, and the others that its only latent vector, if it has one, could have."""
    family = getattr(fit.guide, "family", None)
    own = "own" if family is None else re.sub(r"(?<!^)(?=[A-Z])", "-", type(family).__name__).lower()
    batch = next(images.first(min(2, len(images))).in_order(2))
    shapes = [site.fn.event_shape for site in run_program(fit.posterior(batch), batch).values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        return own, {}
    others = {"diagonal": Diagonal(*shapes[0]), "full-rank": FullRank(*shapes[0])}
    return own, {name: other for name, other in others.items() if name != own}
