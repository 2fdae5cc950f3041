"""Amortized inference of two latent layers, from the datum up."""

from collections.abc import Sequence
from typing import Literal

import pyro
from torch import Tensor, nn

from guides.amortized import Amortized
from guides.families import Diagonal
from guides.sites import Params
from ppl_models.batch import Batch, UsageError
from ppl_models.layers import Activation
from ppl_models.nets import MLP, MLPEncoder

__all__ = ["AmortizedLadder"]


class AmortizedLadder(Amortized):
    r"""A guide for `Ladder` against the model's direction, :math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, diagonal Gaussians.

    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, whose networks are the defaults. The parameters of z1
    start at the encoder's answer; those of z2 do not exist before z1 is sampled, so only those of z1 can be refined.

    Args:
        latents: Dimensions of z1 and of z2.
        hidden: Widths of the hidden layers from z1 to z2; none make the parameters of z2 linear in z1.
        activation: Between them, and in the default encoder.
        encoder: A module `(*, C, H, W) → (*, features)`, with `features` among its attributes.
        scale: How standard deviations are written, `"log"` or `"softplus"`, see `Diagonal`.

    Raises:
        UsageError: `latents` are not two.
    """

    def __init__(
        self,
        *,
        latents: Sequence[int] = (100, 50),
        hidden: Sequence[int] = (100, 100),
        activation: Activation = "tanh",
        encoder: nn.Module | None = None,
        scale: Literal["log", "softplus"] = "log",
    ) -> None:
        if len(latents) != 2:
            raise UsageError(f"AmortizedLadder: found latents {tuple(latents)}, expected two numbers, for z1 and z2")
        lower, upper = latents
        encoder = MLPEncoder(activation=activation) if encoder is None else encoder
        super().__init__(encoder=encoder, family=Diagonal(lower, scale=scale), site="z1")
        self.latents, self.hidden, self.activation, self.scale = (lower, upper), tuple(hidden), activation, scale
        self.upper_family = Diagonal(upper, scale=scale)
        self.net = MLP([lower, *self.hidden, 2 * upper], activation=activation)

    def sample(self, batch: Batch, params: Params) -> dict[str, Tensor]:
        """Sample `z1` from the family at `params`, then `z2` given it; returns both by name."""
        with pyro.plate("data", len(batch.index)):
            z1 = pyro.sample("z1", self.family.distribution(params))
            loc, raw = self.net(z1).to(z1.dtype).chunk(2, -1)
            z2 = pyro.sample("z2", self.upper_family.distribution({"loc": loc, self.scale: raw}))
        return {"z1": z1, "z2": z2}
