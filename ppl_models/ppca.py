"""Probabilistic principal component analysis: every answer in closed form, so the oracle of the tests."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_models.batch import Batch

__all__ = ["PPCA"]


class PPCA(nn.Module):
    r"""A linear-Gaussian model, :math:`z \sim N(0, I)`, :math:`x \mid z \sim N(W z + b, \sigma^2 I)`.

    Tipping and Bishop 1999, doi:10.1111/1467-9868.00196. With :math:`M = W^\top W + \sigma^2 I` the evidence is
    :math:`N(x; b, W W^\top + \sigma^2 I)` and the posterior :math:`N(M^{-1} W^\top (x - b), \sigma^2 M^{-1})`.

    Args:
        weight: :math:`W`, `(features, latents)`.
        bias: :math:`b`, `(features,)`; zeros by default.
        variance: :math:`\sigma^2 > 0`.
    """

    def __init__(self, weight: Tensor, *, bias: Tensor | None = None, variance: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(weight.new_zeros(len(weight)) if bias is None else bias.clone())
        self.log_variance = nn.Parameter(weight.new_tensor(math.log(variance)))
        self.latents, self.variance = weight.shape[1], variance

    def extra_repr(self) -> str:
        return f"features={len(self.weight)}, latents={self.latents}"

    def forward(self, batch: Batch) -> Tensor:
        """Sample `z` and, unless `batch.x` `(B, features)` is given, `x`; returns `x`."""
        with pyro.plate("data", len(batch.index)):
            prior = dist.Normal(self.weight.new_zeros(()), self.weight.new_ones(()))
            z = pyro.sample("z", prior.expand([self.latents]).to_event(1))
            return pyro.sample("x", self.decode(z), obs=batch.x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> dist.TorchDistribution:
        """The likelihood p(x given z), batch shape `z.shape[:-1]`."""
        return dist.Normal(z @ self.weight.mT + self.bias, (0.5 * self.log_variance).exp()).to_event(1)

    def evidence(self, x: Tensor) -> Tensor:
        """The exact log p(x) in nats per datum: `(*, features) → (*)`."""
        covariance = self.weight @ self.weight.mT + self._noise(len(self.weight))
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """The exact posterior p(z given x), batch shape `x.shape[:-1]`."""
        precision = self._precision()
        mean = torch.linalg.solve(precision, (x - self.bias) @ self.weight, left=False)
        return dist.MultivariateNormal(mean, precision_matrix=precision / self.log_variance.exp())

    def mean_field(self, x: Tensor) -> dist.TorchDistribution:
        r"""The diagonal Gaussian of least KL(q ‖ posterior): the posterior's mean, variances :math:`\sigma^2 / M_{jj}`.

        Exact where the columns of :math:`W` are orthogonal.
        """
        scale = (0.5 * self.log_variance).exp() / self._precision().diagonal().sqrt()
        return dist.Normal(self.posterior(x).loc, scale).to_event(1)

    def mean_field_gap(self) -> Tensor:
        r"""KL(mean field ‖ posterior) in nats per datum, :math:`\frac12 (\sum_j \log M_{jj} - \log\det M)`."""
        precision = self._precision()
        return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))

    def exact_guide(self, batch: Batch) -> Tensor:
        """The optimal guide, the exact posterior: with it every bound is the evidence."""
        with pyro.plate("data", len(batch.index)):
            return pyro.sample("z", self.posterior(batch.x))

    def _noise(self, size: int) -> Tensor:
        return self.log_variance.exp() * torch.eye(size, dtype=self.weight.dtype, device=self.weight.device)

    def _precision(self) -> Tensor:
        """M, `(latents, latents)`."""
        return self.weight.mT @ self.weight + self._noise(self.latents)
