"""Normalizing flows as families of approximate posteriors."""

from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineAutoregressive
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.distributions import Transform

from ppl_models.batch import UsageError
from ppl_models.reprs import arguments_repr

__all__ = ["Flow"]


class Flow(nn.Module):
    r"""Inverse autoregressive flows, :math:`z_t = \mu_t + \sigma_t \odot z_{t-1}` from a diagonal Gaussian :math:`z_0`.

    Kingma et al. 2016, arXiv:1606.04934. :math:`\mu_t` and :math:`\log \sigma_t`, clamped to [-5, 3], come from a
    masked network (Germain et al. 2015, arXiv:1502.03509) of :math:`z_{t-1}` and of the datum's `context`; the order of
    the dimensions is reversed from one transform to the next. The networks belong to the family and are trained with
    the guide. A sample's density costs nothing more; that of any other value, which gradients through the samples alone
    need (`IWAE`), one pass per dimension.

    Args:
        latents: Dimensions of the latent, 2 or more.
        transforms: How many transforms.
        hidden: Widths of the hidden layers, each at least `latents`.
        context: Size of what the networks are told of the datum.

    Raises:
        UsageError: A size is too small.
    """

    def __init__(
        self, latents: int = 10, *, transforms: int = 2, hidden: Sequence[int] = (128, 128), context: int = 32
    ) -> None:
        super().__init__()
        self.latents, self.transforms, self.hidden, self.context = latents, transforms, tuple(hidden), context
        if latents < 2 or transforms < 1 or context < 1:
            raise UsageError(
                f"Flow: {latents} latents, {transforms} transforms and a context of {context}, expected at least 2, 1 "
                "and 1"
            )
        if not self.hidden or min(self.hidden) < latents:
            raise UsageError(f"Flow: hidden layers {self.hidden}, each must be at least {latents}, the latents")
        order = list(range(latents))
        self.orders = [order[::-1] if step % 2 else order for step in range(transforms)]
        self.networks = nn.ModuleList(
            ConditionalAutoRegressiveNN(latents, context, list(self.hidden), permutation=torch.tensor(order))
            for order in self.orders
        )
        for network in self.networks:
            # Every transform starts as the identity.
            nn.init.zeros_(network.layers[-1].weight)
            nn.init.zeros_(network.layers[-1].bias)

    extra_repr = arguments_repr

    def initial(self) -> dict[str, Tensor]:
        """The base N(0, I), `loc` and `log` (of its scale) `(latents,)`, and the `context` `(context,)`; all 0."""
        return self.around(torch.zeros(self.latents), torch.ones(self.latents))

    def around(self, loc: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """The base N(loc, scale²), both `(*, latents)`, and a `context` of 0; the transforms change it further."""
        return {"loc": loc, "log": scale.log(), "context": loc.new_zeros(*loc.shape[:-1], self.context)}

    def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> dist.TorchDistribution:
        """The distribution of parameters `(*batch, size)`, batch shape `batch`; which data they are is ignored."""
        base = dist.Normal(params["loc"], params["log"].exp()).to_event(1)
        # Made anew for each batch: the caches of Pyro's transforms live and die with this distribution.
        transforms = [
            _Autoregressive(_conditioned(network, params["context"], order))
            for network, order in zip(self.networks, self.orders, strict=True)
        ]
        return dist.TransformedDistribution(base, transforms)


class _Autoregressive(AffineAutoregressive):
    """Pyro's transform, which forgets its inverse again: the two would keep each other, and a step's whole graph."""

    @property
    def inv(self) -> Transform:
        inverse = super().inv
        self._inv = None
        return inverse


def _conditioned(
    network: ConditionalAutoRegressiveNN, context: Tensor, order: list[int]
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The network of one transform given the context.

    As Pyro's ConditionalAffineAutoregressive would condition it, but with its order on the host, where the inverse
    reads it number by number.
    """

    def conditioned(z: Tensor) -> tuple[Tensor, ...]:
        return network(z, context)

    conditioned.permutation = order
    return conditioned
