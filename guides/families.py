"""Families of approximate posteriors: what their parameters are called and which distribution they make."""

import math
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Diagonal"]


class Diagonal(nn.Module):
    r"""Gaussians with independent dimensions, :math:`q(z) = \prod_j N(z_j; \mu_j, s_j^2)`.

    Args:
        latents: Dimensions of the latent.
        scale: How the standard deviation is written: `"log"` (:math:`s = e^a`) or `"softplus"`
            (:math:`s = 10^{-6} + \log(1 + e^a)`).
    """

    def __init__(self, latents: int = 10, *, scale: Literal["log", "softplus"] = "log") -> None:
        super().__init__()
        self.latents, self.scale = latents, scale

    def initial(self) -> dict[str, Tensor]:
        """The parameters of N(0, I), by name, each `(latents,)`; their names and sizes are the family's."""
        one = 0.0 if self.scale == "log" else math.log(math.expm1(1 - 1e-6))
        return {"loc": torch.zeros(self.latents), self.scale: torch.full((self.latents,), one)}

    def distribution(self, params: dict[str, Tensor]) -> dist.TorchDistribution:
        """The distribution of parameters `(*batch, latents)`, batch shape `batch`."""
        raw = params[self.scale]
        scale = raw.exp() if self.scale == "log" else 1e-6 + softplus(raw)
        return dist.Normal(params["loc"], scale).to_event(1)
