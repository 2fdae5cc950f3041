"""The class-conditional variational autoencoder's model."""

import pyro.distributions as dist
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.layers import join_labels
from ppl_models.nets import ConvDecoder
from ppl_models.vae import VAE

__all__ = ["CVAE"]


class CVAE(VAE):
    r"""A VAE of labelled images, :math:`p(x, z \mid y) = p(x \mid y, z)\, N(z; 0, I)`, the latent independent of y.

    Kingma et al. 2014, arXiv:1406.5298 (their M2, with every label observed); Sohn, Lee and Yan 2015. The label's
    one-hot code joins the latents at the decoder's input, so that z is left with what the label does not say.

    Args:
        latents: How many dimensions z has, with the default decoder.
        classes: How many labels there are; a batch's `y` is 0, …, classes - 1.
        decoder: A module `(*, latents + classes) → (*, C, H, W)`, with that sum as its attribute `latents`.
        likelihood: A module from the decoder's outputs to a distribution over images.

    Raises:
        UsageError: There are no classes, or the decoder has no inputs left for z.
    """

    def __init__(
        self,
        *,
        latents: int = 10,
        classes: int = 10,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
    ) -> None:
        decoder = ConvDecoder(latents=latents + classes) if decoder is None else decoder
        super().__init__(decoder=decoder, likelihood=likelihood)
        if not 0 < classes < decoder.latents:
            raise UsageError(
                f"CVAE: {classes} classes and a decoder of {decoder.latents} inputs, expected 1 class or more, and "
                "latents + classes inputs"
            )
        self.latents, self.classes = decoder.latents - classes, classes

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        """The likelihood p(x given y, z); its batch shape is that of `y` and `z.shape[:-1]`, broadcast.

        Raises:
            UsageError: There are no labels, or their shape does not fit.
        """
        return super().decode(join_labels(z, y, self.classes))
