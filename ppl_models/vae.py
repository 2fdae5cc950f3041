"""The deep latent Gaussian model that variational autoencoders are about."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_models.batch import Batch
from ppl_models.likelihoods import Bernoulli
from ppl_models.nets import ConvDecoder

__all__ = ["VAE"]


class VAE(nn.Module):
    r"""A standard normal latent and a neural likelihood, :math:`p(z) = N(0, I)`, :math:`p(x \mid z)` by a decoder.

    Kingma and Welling 2014, arXiv:1312.6114; Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082. The model knows
    nothing of how its latents are inferred: that is the guide's business.

    Args:
        latents: How many latent dimensions, of the default decoder.
        decoder: A module `(*, latents) → (*, C, H, W)`, with `latents` among its attributes.
        likelihood: A module from the decoder's outputs to a distribution over images.
    """

    def __init__(
        self, *, latents: int = 10, decoder: nn.Module | None = None, likelihood: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.decoder = ConvDecoder(latents=latents) if decoder is None else decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.latents = self.decoder.latents
        # A buffer, so that .to(device) and .double() carry the prior along.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Sample the latents `z` and, unless `batch.x` is given, the images `x`; returns the images."""
        with pyro.plate("data", len(batch.index)):
            prior = dist.Normal(self.zero, self.zero + 1).expand([self.latents]).to_event(1)
            z = pyro.sample("z", prior)
            return pyro.sample("x", self.decode(z, batch.y), obs=batch.x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        """The likelihood p(x given z), batch shape `z.shape[:-1]`; labels are not looked at."""
        # Under autocast the decoder's outputs are in half precision; log-probabilities never are.
        return self.likelihood(self.decoder(z).to(z.dtype))
