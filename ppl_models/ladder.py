"""A deep latent Gaussian model with two stochastic layers."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_models.batch import Batch, UsageError
from ppl_models.layers import Activation
from ppl_models.likelihoods import Bernoulli
from ppl_models.nets import MLP, MLPDecoder

__all__ = ["Ladder"]


class Ladder(nn.Module):
    r"""Two latent layers, :math:`z_2 \sim N(0, I)`, :math:`z_1 \mid z_2 \sim N(m(z_2), s(z_2)^2)`, :math:`x \mid z_1`.

    Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082; the defaults are the two-layer model of Burda, Grosse and
    Salakhutdinov 2016, arXiv:1509.00519: 50 latents, two tanh layers of 100, 100 latents, two of 200, the pixels.

    Args:
        latents: Dimensions of z1 and of z2.
        hidden: Widths of the hidden layers from z2 to z1; none make the mean and the log-scale linear in z2.
        activation: Between them, and in the default decoder.
        decoder: A module from z1, `(*, latents[0]) → (*, C, H, W)`, with `latents` among its attributes.
        likelihood: A module from the decoder's outputs to a distribution over images.

    Raises:
        UsageError: `latents` are not two, or the decoder reads another number.
    """

    def __init__(
        self,
        *,
        latents: Sequence[int] = (100, 50),
        hidden: Sequence[int] = (100, 100),
        activation: Activation = "tanh",
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if len(latents) != 2:
            raise UsageError(f"Ladder: found latents {tuple(latents)}, expected two numbers, for z1 and z2")
        lower, upper = self.latents = tuple(latents)
        self.hidden, self.activation = tuple(hidden), activation
        self.decoder = MLPDecoder(latents=lower, activation=activation) if decoder is None else decoder
        if self.decoder.latents != lower:
            raise UsageError(f"Ladder: a decoder of {self.decoder.latents} inputs, expected {lower}, the size of z1")
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.net = MLP([upper, *self.hidden, 2 * lower], activation=activation)
        # A buffer, so that .to(device) and .double() carry the prior along.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Sample `z2`, `z1` and, unless `batch.x` is given, the images `x`; returns the images."""
        with pyro.plate("data", len(batch.index)):
            prior = dist.Normal(self.zero, self.zero + 1).expand([self.latents[1]]).to_event(1)
            z2 = pyro.sample("z2", prior)
            # Under autocast networks' outputs are in half precision; parameters of distributions never are.
            loc, log_scale = self.net(z2).to(z2.dtype).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, log_scale.exp()).to_event(1))
            return pyro.sample("x", self.decode({"z1": z1, "z2": z2}, batch.y), obs=batch.x)

    def decode(self, latents: dict[str, Tensor], y: Tensor | None = None) -> dist.TorchDistribution:
        """The likelihood p(x given z1), batch shape `z1.shape[:-1]`; neither z2 nor labels are looked at."""
        z1 = latents["z1"]
        return self.likelihood(self.decoder(z1).to(z1.dtype))
