"""Families of approximate posteriors: what their parameters are called and which distribution they make.

A family is a module with `latents`; `initial()`, a vector per parameter, which stands for N(0, I) or something near;
`around(loc, scale)`, the same for another Gaussian of independent dimensions; and `distribution(params, index)`.
Encoders get a head, tables a column, for each entry of those vectors. A family whose distributions state a `rate`
instead of a density says `density = False`.
"""

import math
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from guides.sites import full_precision
from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import arguments_repr

__all__ = ["Diagonal", "FullRank", "LowRank", "gaussian_kl", "has_density", "sample_family"]


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

    extra_repr = arguments_repr

    def initial(self) -> dict[str, Tensor]:
        """The parameters of N(0, I), by name, each `(latents,)`; their names and sizes are the family's."""
        return self.around(torch.zeros(self.latents), torch.ones(self.latents))

    def around(self, loc: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """The parameters of N(loc, scale²), both `(*, latents)`."""
        return {"loc": loc, self.scale: scale.log() if self.scale == "log" else (scale - 1e-6).expm1().log()}

    def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of parameters `(*batch, latents)`, batch shape `batch`; which data they are is ignored."""
        raw = params[self.scale]
        scale = raw.exp() if self.scale == "log" else 1e-6 + softplus(raw)
        return dist.Normal(params["loc"], scale).to_event(1)


class FullRank(nn.Module):
    r"""Gaussians with any covariance, :math:`q(z) = N(z; \mu, L L^\top)`.

    Of :math:`L`, lower triangular, `tril` holds the k(k + 1)/2 entries row by row, those of the diagonal as logarithms.

    Args:
        latents: Dimensions k of the latent.
    """

    def __init__(self, latents: int = 10) -> None:
        super().__init__()
        self.latents = latents
        self.register_buffer("entries", torch.tril_indices(latents, latents), persistent=False)

    extra_repr = arguments_repr

    def initial(self) -> dict[str, Tensor]:
        """The parameters of N(0, I): `loc` `(k,)` and `tril` `(k(k + 1)/2,)`, all 0."""
        return self.around(torch.zeros(self.latents), torch.ones(self.latents))

    def around(self, loc: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """The parameters of N(loc, scale²), both `(*, k)`."""
        row, column = self.entries
        return {"loc": loc, "tril": torch.where(row == column, scale.log()[..., row], 0.0)}

    def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of parameters `(*batch, size)`, batch shape `batch`; which data they are is ignored."""
        raw = params["tril"]
        matrix = raw.new_zeros(*raw.shape[:-1], self.latents, self.latents)
        matrix[..., self.entries[0], self.entries[1]] = raw
        scale_tril = matrix.tril(-1) + matrix.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return dist.MultivariateNormal(params["loc"], scale_tril=scale_tril)


class LowRank(nn.Module):
    r"""Gaussians whose covariance is diagonal plus low rank, :math:`q(z) = N(z; \mu, \mathrm{diag}(s^2) + F F^\top)`.

    Parameters and cost grow with k times the rank. Torch factorises a rank × rank matrix for each datum, which on
    CUDA reads a flag on the host.

    Args:
        latents: Dimensions k of the latent.
        rank: Columns of :math:`F`, at most `latents`.

    Raises:
        UsageError: The rank is not from 1 to `latents`.
    """

    def __init__(self, latents: int = 10, *, rank: int = 2) -> None:
        super().__init__()
        if not 1 <= rank <= latents:
            raise UsageError(f"LowRank: rank {rank}, expected 1 to {latents}, the latents")
        self.latents, self.rank = latents, rank

    extra_repr = arguments_repr

    def initial(self) -> dict[str, Tensor]:
        r"""Near N(0, I): `loc` and `log`, the logarithm of s, `(k,)` of zeros, and `factor` `(k * rank,)`, F by rows.

        The bound depends on F through :math:`F F^\top` alone, whose derivative vanishes at F = 0 and keeps equal
        columns equal: from there gradients never find a direction. F starts as orthogonal columns of length 0.1,
        those of the cosine transform: distinct, and the same each time, which random ones would not be.
        """
        return self.around(torch.zeros(self.latents), torch.ones(self.latents))

    def around(self, loc: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """Near N(loc, scale²), both `(*, k)`: F is as in `initial`, its rows times the scale."""
        row, column = (torch.arange(size, dtype=loc.dtype, device=loc.device) for size in (self.latents, self.rank))
        columns = torch.cos(math.pi / self.latents * (row.unsqueeze(-1) + 0.5) * column)
        factor = 0.1 * columns / columns.norm(dim=0) * scale.unsqueeze(-1)
        return {"loc": loc, "log": scale.log(), "factor": factor.flatten(-2)}

    def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of parameters `(*batch, size)`, batch shape `batch`; which data they are is ignored."""
        factor = params["factor"].unflatten(-1, (self.latents, self.rank))
        return dist.LowRankMultivariateNormal(params["loc"], factor, (2 * params["log"]).exp())


def gaussian_kl(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor | None:
    r"""KL(q ‖ p) of a correlated Gaussian from one of independent dimensions, which torch does not know.

    .. math:: \tfrac12 \sum_j \left[\log 2 \pi s_j^2 + \frac{(\mu_j - m_j)^2 + \Sigma_{jj}}{s_j^2}\right] - H(q)

    Args:
        q: A multivariate normal, :math:`N(\mu, \Sigma)`, its covariance of low rank or not.
        p: Independent normals, :math:`\prod_j N(m_j, s_j^2)`, the batch shape broadcast with q's.

    Returns:
        The divergence in nats, of the batch shape; None for any other pair.
    """
    if not isinstance(q, (torch.distributions.MultivariateNormal, torch.distributions.LowRankMultivariateNormal)):
        return None
    if not (isinstance(p, torch.distributions.Independent) and p.reinterpreted_batch_ndims == 1):
        return None
    if not isinstance(p.base_dist, torch.distributions.Normal):
        return None
    variance = p.variance
    quadratic = ((q.mean - p.mean).square() + q.variance) / variance
    return 0.5 * (quadratic + (2 * math.pi * variance).log()).sum(-1) - q.entropy()


def has_density(family: nn.Module) -> bool:
    """Whether a family's distributions have a density; one that does not state a rate instead."""
    return getattr(family, "density", True)


def sample_family(site: str, family: nn.Module, batch: Batch, params: dict[str, Tensor]) -> Tensor:
    """Sample a site from a family inside the data plate; where there is no density, the rate goes with the site."""
    # Autocast would take a covariance's matrix products, and a flow's networks, in half precision.
    with full_precision(batch.index.device):
        posterior = family.distribution(params, batch.index)
        # Asked of the family: a Gamma's `rate` is another thing.
        infer: dict[str, Any] = {} if has_density(family) else {"rate": posterior.rate}
        with pyro.plate("data", len(batch.index)):
            return pyro.sample(site, posterior, infer=infer)
