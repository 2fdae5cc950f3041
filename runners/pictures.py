"""What a fit shows: test images with reconstructions and samples, paths between codes, a row for each class."""

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides.echo import echo_of
from guides.sites import Program
from ppl_models import Batch, UsageError
from runners import figures
from runners.data import head
from runners.loop.random import forked
from runners.predictive import interpolation, latents, predictive

if TYPE_CHECKING:
    from runners.fit import Fit

__all__ = ["draw_predictive", "image_figures", "reconstructions", "samples"]


def image_figures(fit: "Fit") -> dict[str, Figure]:
    """Test images with reconstructions and samples from the prior, paths between codes, a row for each class.

    Raises:
        UsageError: The model has no `decode`.
    """
    if not hasattr(fit.model, "decode"):
        raise UsageError("pictures: the model has no decode(latents, y), the likelihood that images are drawn from")
    with fit.aside():
        batch = _shown(fit)
        posterior = fit.posterior(batch)
        again, samples = _predictives(fit, batch, posterior)
        panels = {"data": batch.x, "reconstructions": again.mean, "samples": samples.mean}
        drawn = {"images": figures.panels(panels)}
        if len(batch.index) > 1:
            strips, weights = interpolation(fit.model, posterior, batch)
            drawn["interpolation"] = figures.interpolation(strips[:8], weights=weights)
        if hasattr(fit.model, "classes"):
            drawn["classes"] = _classes(fit)
        return drawn


def reconstructions(fit: "Fit", batch: Batch, *, updates: int | None = None) -> Tensor:
    """The mean of p(x given z) for a sample of each image's posterior; `updates` is for `Fit.posterior`."""
    with fit.aside():
        return predictive(fit.model, fit.posterior(batch, updates=updates), batch).mean


def draw_predictive(fit: "Fit", step: int) -> None:
    """Draw pixels, not means, from the posterior and the prior predictive into the run folder."""
    with fit.aside():
        batch = _shown(fit)
        again, samples = _predictives(fit, batch, fit.posterior(batch))
        panels = {"data": batch.x, "posterior predictive": again.sample(), "prior predictive": samples.sample()}
        figures.save(figures.panels(panels), fit.folder.path / f"predictive_{step:06d}.png")
        if hasattr(fit.model, "classes"):
            figures.save(_classes(fit), fit.folder.path / f"classes_{step:06d}.png")


def samples(fit: "Fit", count: int, *, seed: int = 0, size: int = 500) -> Tensor:
    """Images from the model, as `Fit.samples` says."""
    if not hasattr(fit.model, "decode"):
        raise UsageError("samples: the model has no decode(latents, y), the likelihood that images are drawn from")
    drawn = []
    with fit.aside(), forked(seed, fit.device):
        labels = fit.data.test.labels
        for rows in torch.arange(count, device=fit.device).split(size):
            y = None if labels is None else labels[rows % len(labels)]
            made = predictive(fit.model, _prior(fit), Batch(None, y, rows))
            drawn.append(made.mean if fit.data.binarize == "none" else made.sample())
    return torch.cat(drawn)


def _shown(fit: "Fit") -> Batch:
    return head(fit.data.test, 32)


def _predictives(fit: "Fit", batch: Batch, posterior: Any) -> tuple[Any, Any]:
    return predictive(fit.model, posterior, batch), predictive(fit.model, _prior(fit), batch._replace(x=None))


def _prior(fit: "Fit") -> Program:
    """The model, or with Echo the marginal of its codes, which is the prior that its bound is about."""
    echo = echo_of(fit.guide)
    return fit.model if echo is None else echo.prior


def _classes(fit: "Fit", samples: int = 10) -> Figure:
    """A row of samples for each class; a column shares its latents, so that styles can be told from classes."""
    classes = fit.model.classes
    y = torch.arange(classes, device=fit.device).repeat_interleave(samples)
    z = latents(_prior(fit), Batch(None, y[:samples], torch.arange(samples, device=fit.device)))
    means = fit.model.decode(z.repeat(classes, 1), y).mean.unflatten(0, (classes, samples))
    return figures.reconstruction_rows({str(label): row for label, row in enumerate(means)})
