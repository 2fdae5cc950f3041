"""Echo noise: latents whose noise is made of the codes of other data, so that their rate is known without a prior."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import arguments_repr

__all__ = ["Echo", "EchoNoise", "echo", "echo_of", "largest_scale"]

PRECISION = 2.0**-23
"""What a chain may leave out, in units of the codes' bound: float32's rounding."""


def largest_scale(depth: int, *, bound: float = 1.0) -> float:
    r"""The largest scale r at which a chain of d codes within :math:`\pm M` is as good as an endless one.

    The root of :math:`M r^d / (1 - r) = 2^{-23}`, the sum of all that is left out; by bisection in float64.

    Args:
        depth: Codes in the chain, d.
        bound: Their largest absolute value, M.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if bound * middle**depth < PRECISION * (1 - middle):
            low = middle
        else:
            high = middle
    return low


def echo(code: Tensor, log_scale: Tensor, chain: Tensor) -> Tensor:
    r"""The noise of chains of data, :math:`\epsilon = \sum_{l=1}^d \left[\prod_{m<l} s(x_m)\right] \odot f(x_l)`.

    Args:
        code: f of the data, `(N, latents)`.
        log_scale: log s of the data, `(N, latents)`.
        chain: Which data follow each other, `(*batch, d)`.

    Returns:
        The noise, `(*batch, latents)`.
    """
    log_scales = log_scale[chain]
    log_factors = log_scales.cumsum(-2) - log_scales
    return (log_factors.exp() * code[chain]).sum(-2)


class EchoNoise(dist.TorchDistribution):
    r"""The distribution of :math:`z = f(x) + s(x) \odot \epsilon`, the noise being an echo of other data.

    Brekelmans et al. 2019, arXiv:1904.07199. Where chains are of independent data, z and :math:`\epsilon` have the
    same law, and the mutual information of datum and code is the mean of :math:`R(x) = -\sum_j \log s_j(x)`.

    Args:
        code: f, `(*batch, latents)`.
        log_scale: log s, the same shape.
        depth: Data in a chain, d.
        bank: f and log s of the data that chains are made of, `(N, latents)` each; the batch itself by default.
        own: Which datum of the bank each datum is, `(*batch)`, N where it is none of them and any may be drawn; by
            default the batch is the bank, in order.
        repeats: Whether the draws of a chain are independent, so that a datum may come twice; else the chain is the
            beginning of a random order.

    Raises:
        UsageError: The bank has too few data for a chain of others.
    """

    support = constraints.real_vector
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(
        self,
        code: Tensor,
        log_scale: Tensor,
        *,
        depth: int,
        bank: tuple[Tensor, Tensor] | None = None,
        own: Tensor | None = None,
        repeats: bool = False,
    ) -> None:
        self.code, self.log_scale, self.depth, self.repeats = code, log_scale, depth, repeats
        self.bank = (code, log_scale) if bank is None else bank
        size = len(self.bank[0])
        if size < depth + 1:
            raise UsageError(f"Echo: chains of {depth} other data, but there are {size} in all, expected {depth + 1}")
        self.own = torch.arange(size, device=code.device) if own is None else own
        super().__init__(code.shape[:-1], code.shape[-1:])

    @property
    def rate(self) -> Tensor:
        """R(x) in nats, of the batch shape."""
        return -self.log_scale.sum(-1)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> "EchoNoise":
        """Repeat the data, each repetition with chains of its own."""
        shape = torch.Size(batch_shape)
        code, log_scale = (values.expand(shape + self.event_shape) for values in (self.code, self.log_scale))
        own = self.own.expand(shape)
        return EchoNoise(code, log_scale, depth=self.depth, bank=self.bank, own=own, repeats=self.repeats)

    def chains(self, shape: Sequence[int]) -> Tensor:
        """Which data of the bank follow each other, never the datum itself: `(*shape, d)`, `shape` ending in batch."""
        own, size = self.own.expand(shape).unsqueeze(-1), len(self.bank[0])
        if not self.repeats:
            itself = torch.arange(size, device=own.device) == own
            scores = torch.rand(itself.shape, device=own.device).masked_fill(itself, math.inf)
            return scores.topk(self.depth, largest=False).indices
        others = size - (own < size).long()
        uniform = torch.rand(*shape, self.depth, device=own.device)
        # In float32 the product may round up to the number of others.
        draws = torch.minimum((uniform * others).long(), others - 1)
        return draws + (draws >= own)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw z, `(*sample_shape, *batch, latents)`; gradients reach the data of the chains too."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.code + self.log_scale.exp() * echo(*self.bank, self.chains(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none.

        Raises:
            UsageError: Always.
        """
        raise UsageError("Echo has no density, only a rate: the ELBO uses that, whatever weighs samples cannot")


def echo_of(guide: Any) -> "Echo | None":
    """A guide's Echo family, if it has one: the fit then fills its bank, and its marginal is the prior."""
    family = getattr(guide, "family", None)
    return family if isinstance(family, Echo) else None


class Echo(nn.Module):
    r"""Posteriors whose noise is an echo of other data: `EchoNoise` with bounded codes and scales.

    :math:`f = M \tanh(h / M)` of `code`, :math:`\log s = \log r + \log \sigma(a)` of `noise`, with
    :math:`r` = `largest_scale(depth, bound=M)`: a datum's rate is at least :math:`-k \log r` (.21 nats per latent at
    depth 99 and M = 16). The bound is that of the best prior, the marginal q(z), from which `marginal` draws; the
    model's own prior plays no part. The channel itself does not care for M, but a decoder does that expects codes of
    size 1: on MNIST the paper's :math:`\tanh(h / 16)` was 15 nats behind after 3000 steps.

    In training mode chains are made of the batch, in eval mode of the data last given to `remember`, so that results
    do not depend on what else is in a batch of test data.

    Args:
        latents: Dimensions k of the latent.
        depth: Other data in a chain; batches need one more than that.
        bound: M, the largest absolute value of a code.
    """

    density = False

    def __init__(self, latents: int = 10, *, depth: int = 99, bound: float = 16.0) -> None:
        super().__init__()
        self.latents, self.depth, self.bound = latents, depth, bound
        if depth < 1:
            raise UsageError(f"Echo: chains of {depth} other data, expected 1 or more")
        self.largest = largest_scale(depth, bound=bound)
        for name in ("bank_code", "bank_log_scale", "bank_index"):
            self.register_buffer(name, None, persistent=False)

    extra_repr = arguments_repr

    def initial(self) -> dict[str, Tensor]:
        """Codes at 0 and scales at r / 2: `code` and `noise`, `(latents,)` each."""
        return {"code": torch.zeros(self.latents), "noise": torch.zeros(self.latents)}

    def distribution(self, params: dict[str, Tensor], index: Tensor | None = None) -> EchoNoise:
        """The distribution of a batch's parameters `(B, latents)`, batch shape `(B,)`.

        Args:
            params: The batch's parameters.
            index: Which data these are, `(B,)`: in eval mode a datum's own code is left out of its chains.

        Raises:
            UsageError: There are too few data for a chain, or none to make it of.
        """
        code, log_scale = self._channel(params)
        if self.training:
            return EchoNoise(code, log_scale, depth=self.depth)
        bank = self._bank()
        size = len(self.bank_index)
        if index is None:
            own = torch.full(code.shape[:-1], size, device=code.device)
        else:
            nearest = torch.searchsorted(self.bank_index, index).clamp(max=size - 1)
            own = torch.where(self.bank_index[nearest] == index, nearest, size)
        return EchoNoise(code, log_scale, depth=self.depth, bank=bank, own=own, repeats=True)

    @torch.no_grad()
    def remember(self, params: dict[str, Tensor], index: Tensor) -> None:
        """Make chains in eval mode of these data, and of no others; before evaluation, and after each change of params.

        Args:
            params: Their parameters, `(N, latents)` each.
            index: Which data they are, `(N,)`.

        Raises:
            UsageError: There are too few for a chain.
        """
        if len(index) < self.depth + 1:
            raise UsageError(
                f"Echo.remember: {len(index)} data, expected at least {self.depth + 1}, one more than the depth"
            )
        self.bank_index, order = index.sort()
        self.bank_code, self.bank_log_scale = (values.detach()[order] for values in self._channel(params))

    @torch.no_grad()
    def marginal(self, count: int) -> Tensor:
        """Draws from q(z), which is the law of the noise as well: `(count, latents)`.

        Raises:
            UsageError: There are no data to make chains of.
        """
        code, log_scale = self._bank()
        chain = torch.randint(len(code), (count, self.depth), device=code.device)
        return echo(code, log_scale, chain)

    def prior(self, batch: Batch, *, site: str = "z") -> Tensor:
        """Sample the latents from `marginal` as a Pyro program, in place of the model's prior."""
        with pyro.plate("data", len(batch.index)):
            return pyro.sample(site, dist.Delta(self.marginal(len(batch.index)), event_dim=1))

    def check_batch(self, size: int) -> None:
        """Refuse batches that are too small for a chain.

        Raises:
            UsageError: They are.
        """
        if size < self.depth + 1:
            raise UsageError(
                f"Echo of depth {self.depth} makes chains of other data and needs batches of {self.depth + 1} or more, "
                f"found {size}: take larger ones, or Echo(depth={max(size - 1, 1)})"
            )

    def _channel(self, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The channel, f and log s, of the parameters' shape."""
        return self.bound * (params["code"] / self.bound).tanh(), math.log(self.largest) + logsigmoid(params["noise"])

    def _bank(self) -> tuple[Tensor, Tensor]:
        if self.bank_index is None:
            raise UsageError(
                "Echo in eval mode needs codes of training data: call family.remember(guide.start(batch), batch.index)"
            )
        return self.bank_code, self.bank_log_scale
