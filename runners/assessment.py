"""What can be measured of the inference of a fit: figures as in assessment.json, a picture, and lines to print.

Every part is a function of a fit and of images, and returns its figures, means over the images with standard errors
(`_se`), and a picture or `None`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from guides import Diagonal, FullRank
from guides.aggregate import active_units, collapse, elbo_split
from guides.ais import ais, bdmc
from guides.annealing import Annealing
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

CHAINS = 512
"""Annealed chains at a time, which bounds the memory."""

SATURATED = 0.5
"""Nats of information below its limit, log N, where it says little but N."""


def importance(fit: Fit, images: Any, *, samples: int = 1000, seed: int = 0) -> Part:
    """The importance-sampled evidence, and the bound on the same samples."""
    found = fit.evidence(images, samples=samples, seed=seed)
    return {"samples": samples, **means(**found._asdict())}, None


def annealing(
    fit: Fit,
    images: Any,
    *,
    temperatures: Sequence[int] = (200,),
    chains: int = 8,
    leapfrog: int = 10,
    start: Literal["prior", "guide"] = "guide",
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
        size = max(1, CHAINS // chains)
        with fit.aside():
            real = ais(fit.model, images.in_order(size), **settings)
            simulated = bdmc(fit.model, images.in_order(size), **settings)
        found["by_temperatures"][str(count)] = {
            **means(**real._asdict(), minus_importance=real.log_evidence - sampled),
            "simulated": means(
                lower=simulated.lower.log_evidence,
                upper=simulated.upper.log_evidence,
                gap=simulated.gap,
                acceptance=simulated.lower.acceptance,
                acceptance_in_reverse=simulated.upper.acceptance,
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
            effective_samples=found.evidence.effective_samples,
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
    """The figures of an assessment as a table to print: what, how much in nats per image, and how it was found."""
    said = [f"{assessment['data']}, {assessment['steps']:,} steps, nats per image"]
    said += [assessment["likelihood"]] if "likelihood" in assessment else []
    for part, rows_of in _ROWS.items():
        found = assessment.get(part, {})
        if "refused" in found:
            said.append(f"{part}: {found['refused']}")
        elif found:
            about = f"the first {found['images']:,} {found['split']} images, {found['precision']}"
            said.append(f"{part}: {about}, {found['seconds']:,.0f} s")
            said += [f"    {what:32}{value:>18}  {how}".rstrip() for what, value, how in rows_of(found)]
            said += [found["remark"]] if "remark" in found else []
    return said


Row = tuple[str, str, str]


def _importance_rows(found: dict[str, Any]) -> list[Row]:
    samples = f"{found['samples']:,} samples, {found['effective_samples']:,.0f} effective"
    return [("log p(x)", _value(found, "log_evidence"), samples), ("ELBO", _value(found, "elbo"), "same samples")]


def _annealing_rows(found: dict[str, Any]) -> list[Row]:
    rows = [("log p(x), importance sampling", _value(found, "importance"), f"{found['samples']:,} samples")]
    for count, row in found["by_temperatures"].items():
        simulated = row["simulated"]
        how = f"{found['chains']} chains from the {found['start']}, {row['effective_chains']:.1f} effective, "
        how += f"acceptance {row['acceptance']:.2f}"
        rows += [
            (f"log p(x), {int(count):,} temperatures", _value(row, "log_evidence"), how),
            ("  minus importance sampling", _value(row, "minus_importance", "+"), "same images"),
            ("  simulated data, from below", _value(simulated, "lower"), f"acceptance {simulated['acceptance']:.2f}"),
            (
                "  simulated data, from above",
                _value(simulated, "upper"),
                f"acceptance {simulated['acceptance_in_reverse']:.2f}",
            ),
            ("  between the two", _value(simulated, "gap"), ""),
        ]
    return rows


def _gap_rows(found: dict[str, Any]) -> list[Row]:
    own = found["family"]
    how = f"{found['samples']:,} samples from the best of these, {found['effective_samples']:,.0f} effective"
    return [
        ("log p(x)", _value(found, "log_evidence"), how),
        ("ELBO", _value(found, "elbo"), "the guide as it is"),
        ("gap", _value(found, "gap"), ""),
        ("  amortization", _value(found, "amortization"), "from the guide to the best posterior of its family"),
        (f"  approximation, {own}", _value(found, "approximation"), "from there"),
        *(
            (f"  approximation, {name}", _value(best, "approximation"), "")
            for name, best in found["best"].items()
            if name != own
        ),
    ]


def _code_rows(found: dict[str, Any]) -> list[Row]:
    limit = "exact, as the guide states it" if found["limit"] is None else f"at most log N = {found['limit']:.2f}"
    remainder = ""
    if found["limit"] is not None and found["limit"] - found["mutual_information"] < SATURATED:
        limit += ", which says how many images there were"
        remainder = "and the information of more images"
    units = found["active_units"].items()
    return [
        ("ELBO", _value(found, "elbo"), ""),
        ("  reconstruction", _value(found, "log_likelihood"), ""),
        ("  less information of the codes", _value(found, "mutual_information"), limit),
        ("  less KL of their marginal", _value(found, "marginal_kl"), remainder),
        *((f"active units of {name}", f"{unit['active']} of {unit['of']}", "") for name, unit in units),
    ]


def _value(found: dict[str, Any], name: str, sign: str = "") -> str:
    error = f" ± {found[f'{name}_se']:.2f}" if f"{name}_se" in found else ""
    return f"{found[name]:{sign}.2f}{error}"


_ROWS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "importance": _importance_rows,
    "annealing": _annealing_rows,
    "gaps": _gap_rows,
    "codes": _code_rows,
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
