"""What a fit comes to in the end: final figures and pictures."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides.echo import echo_of
from guides.free import Rows
from guides.terms import Terms, run_pair
from ppl_models import Gaussian
from runners import figures
from runners.data import head
from runners.pictures import image_figures
from runners.predictive import predictive

if TYPE_CHECKING:
    from runners.fit import Fit

__all__ = [
    "GREY",
    "curves",
    "family_name",
    "final_figures",
    "is_grey",
    "lines",
    "mean_and_error",
    "means",
    "result",
    "with_error",
]

ECHO = "the marginal q(z) of the codes, not the model's"
GREY = "Bernoulli on grey values: not comparable with binary images"


def result(
    fit: "Fit", *, images: int | None = None, updates: int | None = None, evidence: int | None = None
) -> dict[str, Any]:
    """The final figures of a fit in nats per image, all but `train` in float32 on noise that no refinement has seen.

    Args:
        fit: The fit.
        images: How many test images, the first ones; by default all, and 1000 where they are refined.
        updates: Gradient steps where the guide refines. Free rows take 200 by default: `test` starts them from the
            prior, `train_refined`, the first training images, from where training left them if it kept them.
        evidence: Importance samples per image for log p(x) on the first `images`, here by default 1000; or none.

    Returns:
        `train`, means of the last 1000 steps, `test` and, with a free guide, `train_refined`, each with `elbo`,
        `log_likelihood` and `kl`, and the last two with standard errors (`_se`) over the images. Also `evidence` where
        asked for, what is known of a `gaussian` likelihood, and the objective's `remark` where it has one. With Echo,
        `prior` says that the bound is about another prior than the model's.
    """
    free, refined = isinstance(fit.guide, Rows), getattr(fit.guide, "refinement", None) is not None
    count = min(images or (1000 if refined else len(fit.data.test)), len(fit.data.test))
    grey = is_grey(fit)
    found = {
        "data": fit.data.name,
        "binarize": fit.data.binarize,
        **({"likelihood": GREY} if grey else {}),
        **({"prior": ECHO} if echo_of(fit.guide) is not None else {}),
        "steps": fit.history.step,
        "seconds": round(fit.history.seconds, 1),
        "train": fit.history.final(),
    }
    if free:
        first = fit.data.train.first(min(count, len(fit.data.train)))
        found["updates"] = 200 if updates is None else updates
        kept = not getattr(fit.guide, "carried", False)  # a carried guide has forgotten each image
        found["train_refined"] = _parts(fit.bounds(first, updates=updates, rows=kept))
    found["test"] = _parts(fit.bounds(fit.data.test.first(count), updates=updates))
    if isinstance(getattr(fit.model, "likelihood", None), Gaussian):
        found["gaussian"] = _gaussian(fit, found["test"]["elbo"], count, updates)
    if evidence:
        first = fit.data.test.first(min(images or 1000, len(fit.data.test)))
        values = fit.evidence(first, samples=evidence, updates=updates).log_evidence
        found["evidence"] = {"samples": evidence, **means(log_evidence=values)}
    remark = fit.remark()
    return found | ({"remark": remark} if remark else {})


def curves(fit: "Fit") -> Figure:
    """What the history has, against the step."""
    constrained = getattr(fit.objective, "constraint", None)  # a log-likelihood's target is a line in its panel
    target = {"log_likelihood: target": fit.objective.target} if constrained == "log_likelihood" else None
    return figures.curves(fit.history.rows, references=target)


def final_figures(fit: "Fit") -> dict[str, Figure]:
    """The curves, and where images can be decoded, images."""
    return {"curves": curves(fit)} | (image_figures(fit) if hasattr(fit.model, "decode") else {})


def lines(found: dict[str, Any]) -> list[str]:
    """Final figures as lines to print."""
    said = []
    for part in ("train", "train_refined", "test"):
        if part in found:
            means = found[part]
            numbers = "  ".join(f"{name} {means[name]:8.2f}" for name in ("log_likelihood", "kl"))
            said.append(f"{part:>14}  ELBO {with_error(means, 'elbo', '8')}  {numbers}  nats per image")
    if "evidence" in found:
        evidence = found["evidence"]
        said.append(
            f"{'evidence':>14}  log p(x) {with_error(evidence, 'log_evidence')}  by {evidence['samples']:,} importance "
            f"samples for each of {evidence['images']:,} test images"
        )
    if "gaussian" in found:
        gaussian = found["gaussian"]
        squares = f"train {gaussian['train_squared_error']:.5f}  test {gaussian['test_squared_error']:.5f}"
        said += [
            f"{'variance':>14}  {gaussian['variance']:.5f}  mean squared error {squares}  "
            f"test RMSE {gaussian['test_rmse']:.4f}",
            f"{'course':>14}  loss {gaussian['course_loss']:.2f} at sigma^2 {gaussian['course_sigma2']:.3g}, the "
            "variance divided by the number of pixels and channels",
        ]
    return said + ([found["remark"]] if "remark" in found else [])


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of `(n,)` values and its standard error, which is not a number where n is 1."""
    values = values.double()
    return float(values.mean()), float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")


def means(**figures: Tensor) -> dict[str, float]:
    """How many images, and by name each figure's mean over them and, unless there is one alone, standard error."""
    found: dict[str, float] = {"images": len(next(iter(figures.values())))}
    for name, values in figures.items():
        found[name], error = mean_and_error(values)
        if len(values) > 1:
            found[f"{name}_se"] = error
    return found


def with_error(found: Mapping[str, Any], name: str, form: str = "") -> str:
    """A figure as text, its standard error behind it where there is one; `form` is the sign and the width."""
    return f"{found[name]:{form}.2f}" + (f" ± {found[f'{name}_se']:.2f}" if f"{name}_se" in found else "")


def family_name(guide: Any) -> str:
    """What a guide's posteriors are called, as on the command line, "full-rank"; without a family, by its class."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(getattr(guide, "family", guide)).__name__).lower()


def is_grey(fit: "Fit") -> bool:
    """Whether a Bernoulli likelihood, the user's own too, is asked about values between 0 and 1."""
    with fit.aside():
        batch = head(fit.data.test, 20)
        _, sites = run_pair(fit.model, fit.posterior(batch, updates=1), batch)
    for site in sites.values():
        fn = site.fn
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if site.is_observed and isinstance(fn, torch.distributions.Bernoulli):
            return bool(((site.value > 0) & (site.value < 1)).any())
    return False


def _gaussian(fit: "Fit", elbo: float, images: int, updates: int | None) -> dict[str, float]:
    r"""What a Gaussian likelihood's variance and squared errors are, and the course's loss that the ELBO stands for.

    With the observation variance :math:`v = \sigma^2 d`, the course's
    :math:`\|x - \hat x\|^2 / (\sigma^2 d) + \mathrm{tr}\,\Sigma + \|\mu\|^2 - d_z - \log\det\Sigma` is
    :math:`-2\,ELBO - d \log 2\pi v`.
    """
    variance = fit.model.likelihood.log_variance.exp().item()
    size = math.prod(fit.data.shape)
    train = fit.data.train.first(min(max(images, 1000), len(fit.data.train)))
    errors = {
        "train": _squared_error(fit, train, updates=updates, rows=not getattr(fit.guide, "carried", False)),
        "test": _squared_error(fit, fit.data.test.first(images), updates=updates, rows=False),
    }
    return {
        "variance": variance,
        "train_squared_error": errors["train"],
        "test_squared_error": errors["test"],
        "test_rmse": errors["test"] ** 0.5,
        "course_sigma2": variance / size,
        "course_loss": -2 * elbo - size * math.log(2 * math.pi * variance),
    }


def _squared_error(fit: "Fit", images: Any, *, updates: int | None, rows: bool) -> float:
    """The mean squared error of sampled reconstructions, per pixel and channel."""
    squares = []
    with fit.aside():
        for batch in images.in_order(500):
            posterior = fit.posterior(batch, updates=updates, rows=rows)
            squares.append((batch.x - predictive(fit.model, posterior, batch).mean).square().flatten(1).mean(1))
    return float(torch.cat(squares).mean())


def _parts(parts: Terms) -> dict[str, float]:
    return means(elbo=parts.elbo, log_likelihood=parts.log_likelihood, kl=parts.kl)
