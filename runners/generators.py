"""The generator in a fit, whatever kind it is: images of standard normal latents."""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from guides.sites import Program
from ppl_models import UsageError
from ppl_models.batch import Batch
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.predictive import latents

__all__ = ["WHICH", "DecoderMean", "Which", "classes_of", "generator_of"]

Which = Literal["last", "average", "best"]
"""Of a GAN's generators: as it is, its average, or the best that was seen."""

WHICH = get_args(Which)


def classes_of(fit: Fit | GanFit) -> int:
    """How many classes a fit's model is given, 0 if it takes no labels."""
    return getattr(getattr(fit, "model", None), "classes", 0)


class DecoderMean(nn.Module):
    """A model's decoder as a generator, the mean of p(x given z): `(*, latents) → (*, *event)`.

    Args:
        model: A model of one latent.
        latents: How many dimensions that has.
        label: The class that a conditional model is asked for.
    """

    def __init__(self, model: Program, latents: int, *, label: int | None = None) -> None:
        super().__init__()
        self.model, self.latents, self.label = model, latents, label

    def forward(self, z: Tensor) -> Tensor:
        """Images of latents."""
        y = None if self.label is None else torch.full(z.shape[:-1], self.label, device=z.device)
        return self.model.decode(z, y).mean


def generator_of(fit: Fit | GanFit, *, label: int | None = None, which: Which | None = None) -> nn.Module:
    """A copy of what makes a fit's images, in eval mode and without gradients of its weights.

    Args:
        fit: A GAN; or a fit of a model with one latent, of which it is the decoder's mean.
        label: The class that a conditional model is asked for.
        which: Of a GAN's generators; by default the average, where one is kept, else as it is.

    Returns:
        A module `(*, latents) → (*, C, H, W)` with `latents` among its attributes, their prior taken to be N(0, I).

    Raises:
        UsageError: The model has several latents, or needs a label, or has no use for one or for `which`, or a GAN kept
            none of that kind.
    """
    classes = classes_of(fit)
    if label is not None and not classes:
        raise UsageError("label: the run is not conditional")
    if classes and (label is None or not 0 <= label < classes):
        raise UsageError(f"label: the run is conditional, found {label}, expected 0 to {classes - 1}")
    if isinstance(fit, GanFit):
        return fit.trained(which).requires_grad_(False)
    if which is not None:
        raise UsageError(f"which: found {which!r} for a run that is no GAN")
    index = torch.zeros(1, dtype=torch.long, device=fit.device)
    y = None if label is None else torch.full((1,), label, device=fit.device)
    with fit.aside():
        z = latents(fit.model, Batch(None, y, index))
    if isinstance(z, dict):
        raise UsageError(f"the model has latents {', '.join(z)}, expected one, as a generator has")
    return DecoderMean(copy.deepcopy(fit.model), z.shape[-1], label=label).eval().requires_grad_(False)
