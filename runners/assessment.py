"""What can be measured of the inference of a fit: figures as in assessment.json, a picture, and lines to print.

Every part is a function of a fit and of images, and returns its figures, means over the images with standard errors
(`_se`), and a picture or `None`. With `rows`, for training images, free rows start where training left them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
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
from runners import figures, sample_quality
from runners.data import head
from runners.fit import Fit
from runners.summary import family_name, means, with_error

__all__ = ["annealing", "codes", "importance", "inference_gaps", "lines"]

Part = tuple[dict[str, Any], Figure | None]

IMAGES_AT_ONCE = 50
"""Images whose best posteriors are searched at a time."""

CHAINS_AT_ONCE = 512
"""Annealed chains at a time, which bounds the memory."""

SATURATED = 0.5
"""Nats of information below its limit, log N, where it says little but N."""


def importance(fit: Fit, images: Any, *, rows: bool = False, samples: int = 1000, seed: int = 0) -> Part:
    """The importance-sampled evidence, and the bound on the same samples."""
    found = fit.evidence(images, samples=samples, rows=rows, seed=seed)
    return {"samples": samples, **means(**found._asdict())}, None


def annealing(
    fit: Fit,
    images: Any,
    *,
    rows: bool = False,
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
    if isinstance(temperatures, int) or not temperatures:
        raise UsageError(f"temperatures: found {temperatures!r}, expected a list of numbers of them")
    if echo_of(fit.guide) is not None:
        raise UsageError("annealing: with Echo the bound's prior is the marginal of the codes, which has no density")
    sampled = fit.evidence(images, samples=samples, rows=rows, seed=seed).log_evidence
    found: dict[str, Any] = {"start": start, "chains": chains, "leapfrog": leapfrog, "samples": samples}
    found |= means(importance=sampled) | {"by_temperatures": {}}
    for count in temperatures:
        bar = partial(tqdm, desc=f"annealing, {count:,} temperatures", leave=False, disable=not fit.progress)
        settings = {
            "annealing": Annealing(temperatures=count, chains=chains, leapfrog=leapfrog),
            "seed": seed,
            "progress": bar,
        }
        size = max(1, CHAINS_AT_ONCE // chains)
        with fit.aside():
            base, anew = (partial(fit.posterior, rows=rows), fit.posterior) if start == "guide" else (None, None)
            real = ais(fit.model, images.in_order(size), posterior=base, **settings)
            simulated = bdmc(fit.model, images.in_order(size), posterior=anew, **settings)  # data that have no rows
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


def inference_gaps(
    fit: Fit,
    images: Any,
    *,
    rows: bool = False,
    updates: int = SEARCH.steps,
    samples: int = 1000,
    seed: int = 0,
) -> Part:
    """The distance from the guide's bound to the evidence, split into what its family and what its encoder cost."""
    with fit.aside():
        own, others = _families(fit, images)
        count = math.ceil(len(images) / IMAGES_AT_ONCE)
        batches = tqdm(images.in_order(IMAGES_AT_ONCE), "gaps", count, leave=False, disable=not fit.progress)
        found = gaps(
            fit.model,
            partial(fit.posterior, rows=rows),
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
            name: means(
                elbo=best.elbo,
                approximation=found.approximation(name),
                **({} if name == own else {"minus_own": best.elbo - found.best[own].elbo}),
            )
            for name, best in found.best.items()
        },
    }
    return split, figures.gaps(split)


def codes(fit: Fit, images: Any, *, rows: bool = False, seed: int = 0) -> Part:
    """Active units, and the bound in three parts: reconstruction, information of the codes, and their marginal's KL."""
    with fit.aside():
        batches = list(images.in_order(500))
        posterior = cache(partial(fit.posterior, rows=rows))  # the same batches twice, refined once
        units = active_units(posterior, batches, seed=seed)
        split = elbo_split(fit.model, posterior, batches, seed=seed)
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
    unit = ", nats per image" if assessment.keys() & (_ROWS.keys() - {"samples"}) else ""
    said = [f"{assessment['data']}, {assessment['steps']:,} steps{unit}"]
    said += [assessment["likelihood"]] if "likelihood" in assessment else []
    for part, rows_of in _ROWS.items():
        found = assessment.get(part, {})
        if "refused" in found:
            said.append(f"{part}: {found['refused']}")
        elif found:
            first = "" if part == "samples" else "the first "
            about = f"{first}{found['images']:,} {found['split']} images, {found['dtype']}"
            said.append(f"{part}: {about}, {found['seconds']:,.0f} s")
            said += [f"    {what:32}{value:>18}  {how}".rstrip() for what, value, how in rows_of(found)]
            said += [found["remark"]] if "remark" in found else []
    return said


Row = tuple[str, str, str]


def _importance_rows(found: dict[str, Any]) -> list[Row]:
    samples = f"{found['samples']:,} samples, {found['effective_samples']:,.0f} effective"
    return [
        ("log p(x)", with_error(found, "log_evidence"), samples),
        ("ELBO", with_error(found, "elbo"), "same samples"),
    ]


def _annealing_rows(found: dict[str, Any]) -> list[Row]:
    rows = [("log p(x), importance sampling", with_error(found, "importance"), f"{found['samples']:,} samples")]
    for count, row in found["by_temperatures"].items():
        simulated = row["simulated"]
        how = f"{found['chains']} chains from the {found['start']}, {row['effective_chains']:.1f} effective, "
        how += f"acceptance {row['acceptance']:.2f}"
        rows += [
            (f"log p(x), {int(count):,} temperatures", with_error(row, "log_evidence"), how),
            ("  minus importance sampling", with_error(row, "minus_importance", "+"), "same images"),
            (
                "  simulated data, from below",
                with_error(simulated, "lower"),
                f"acceptance {simulated['acceptance']:.2f}",
            ),
            (
                "  simulated data, from above",
                with_error(simulated, "upper"),
                f"acceptance {simulated['acceptance_in_reverse']:.2f}",
            ),
            ("  between the two", with_error(simulated, "gap"), ""),
        ]
    return rows


def _gap_rows(found: dict[str, Any]) -> list[Row]:
    own = found["family"]
    how = f"{found['samples']:,} samples from the best of these, {found['effective_samples']:,.0f} effective"
    return [
        ("log p(x)", with_error(found, "log_evidence"), how),
        ("ELBO", with_error(found, "elbo"), "the guide as it is"),
        ("gap", with_error(found, "gap"), ""),
        ("  amortization", with_error(found, "amortization"), "from the guide to the best posterior of its family"),
        (f"  approximation, {own}", with_error(found, "approximation"), "from there"),
        *(
            (
                f"  approximation, {name}",
                with_error(best, "approximation"),
                f"bound {with_error(best, 'minus_own', '+')} from {own}{_unfinished(own, name, best)}",
            )
            for name, best in found["best"].items()
            if name != own
        ),
    ]


def _unfinished(own: str, name: str, best: dict[str, Any]) -> str:
    """Whether a search in a larger family has found less than one in a part of it."""
    larger = (own, name) == ("diagonal", "full-rank") and best["minus_own"] < 0
    return ": not converged, more --updates would say" if larger else ""


def _code_rows(found: dict[str, Any]) -> list[Row]:
    limit = "exact, as the guide states it" if found["limit"] is None else f"at most log N = {found['limit']:.2f}"
    remainder = ""
    if found["limit"] is not None and found["limit"] - found["mutual_information"] < SATURATED:
        limit += ", which says how many images there were"
        remainder = "and the information of more images"
    units = found["active_units"].items()
    return [
        ("ELBO", with_error(found, "elbo"), ""),
        ("  reconstruction", with_error(found, "log_likelihood"), ""),
        ("  less information of the codes", with_error(found, "mutual_information"), limit),
        ("  less KL of their marginal", with_error(found, "marginal_kl"), remainder),
        *((f"active units of {name}", f"{unit['active']} of {unit['of']}", "") for name, unit in units),
    ]


_ROWS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "importance": _importance_rows,
    "annealing": _annealing_rows,
    "gaps": _gap_rows,
    "codes": _code_rows,
    "samples": sample_quality.rows,
}


def _families(fit: Fit, images: Any) -> tuple[str, dict[str, nn.Module]]:
    """The name of the guide's family, and the others that its only latent vector, if it has one, could have."""
    own, batch = family_name(fit.guide), head(images, 2)
    shapes = [site.fn.event_shape for site in run_program(fit.posterior(batch, updates=1), batch).values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        return own, {}
    others = {"diagonal": Diagonal(*shapes[0]), "full-rank": FullRank(*shapes[0])}
    return own, {name: other for name, other in others.items() if name != own}
