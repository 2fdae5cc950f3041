"""Mixtures of Gaussians in the plane, where what a generator misses can be counted."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_models import UsageError
from ppl_models.reprs import fields_repr

__all__ = ["CLOSE", "GRID", "MIXTURES", "RING", "Mixture"]

CLOSE = 3.0
"""Standard deviations from a mode within which a point is of high quality (Srivastava et al. 2017)."""


@dataclass(frozen=True, eq=False)
class Mixture:
    r"""Equally likely Gaussians in the plane, :math:`p(x) = \frac1K \sum_k N(x; \mu_k, \sigma^2 I)`.

    Attributes:
        name: What to call it.
        means: `(K, 2)`.
        deviation: σ.
        scale: What points are divided by before networks see them.
    """

    name: str
    means: Tensor
    deviation: float
    scale: float

    __repr__ = fields_repr

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Points, `(count, 2)`, on the generator's device; without one on the CPU, by torch's own."""
        device = generator.device if generator else torch.device("cpu")
        mode = torch.randint(len(self.means), (count,), generator=generator, device=device)
        noise = torch.randn(count, 2, generator=generator, device=device)
        return self.means.to(device)[mode] + self.deviation * noise

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mode nearest to each point, `(N,)`, and whether it is within 3σ of that, `(N,)`."""
        distance, mode = torch.cdist(x.double(), self.means.to(x.device).double()).min(1)
        return mode, distance <= CLOSE * self.deviation

    def measure(self, x: Tensor) -> dict[str, Any]:
        r"""What of the mixture is in generated points.

        Points within 3σ of the nearest mean are of high quality, as are :math:`1 - e^{-9/2}` = 98.9 % of the mixture's
        own, and a mode is hit where there is one of them (Srivastava et al. 2017, arXiv:1705.07761; Lin et al. 2018,
        arXiv:1712.04086, who look at 2500 points). The reverse KL :math:`\sum_k \hat p_k \log(K \hat p_k)` of the modes
        among those is about :math:`(K - 1) / 2N` of a perfect sampler. A mode's width is the deviation of the points
        nearest to it over σ, from the median distance to their median, :math:`\sigma \sqrt{2 \ln 2}` of a Gaussian: a
        standard deviation would be that of the few points between modes.

        Args:
            x: `(N, 2)`.

        Returns:
            `modes` and `of` how many; `high_quality`, a share; `reverse_kl` and its `reverse_kl_floor`, `None` without
            high quality; `width`, the mean of `widths`, which are `None` where a mode has less than ten points.

        Raises:
            UsageError: It is no set of finite points in the plane.
        """
        if x.dim() != 2 or x.shape[1] != 2 or not len(x) or not x.isfinite().all():
            raise UsageError(f"{self.name}: found {tuple(x.shape)}, expected finite points (N, 2)")
        modes = len(self.means)
        mode, close = self.nearest(x)
        counts = torch.bincount(mode[close], minlength=modes).double()
        total = int(counts.sum())
        shares = counts / total
        widths = [self._width(x[mode == k]) for k in range(modes)]
        known = [width for width in widths if width is not None]
        return {
            "modes": int((counts > 0).sum()),
            "of": modes,
            "high_quality": total / len(x),
            # Of equal shares the sum may round to below 0.
            "reverse_kl": max(float(torch.xlogy(shares, modes * shares).sum()), 0.0) if total else None,
            "reverse_kl_floor": (modes - 1) / (2 * total) if total else None,
            "width": sum(known) / len(known) if known else None,
            "widths": widths,
        }

    def _width(self, x: Tensor) -> float | None:
        if len(x) < 10:
            return None
        distance = (x - x.median(0).values).norm(dim=1)
        return float(distance.median()) / (self.deviation * math.sqrt(2 * math.log(2)))


def _grid() -> Tensor:
    side = torch.arange(-4.0, 5.0, 2.0)
    return torch.cartesian_prod(side, side)


def _ring() -> Tensor:
    angle = torch.arange(8) * math.tau / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], -1)


GRID = Mixture("grid", _grid(), deviation=0.05, scale=2 * math.sqrt(2))
"""25 modes, 2 apart, as Srivastava et al. 2017, arXiv:1705.07761, and Lin et al. 2018, arXiv:1712.04086, have them."""

RING = Mixture("ring", _ring(), deviation=0.02, scale=math.sqrt(2))
"""Eight modes on a circle of radius 2, as in Metz et al. 2017, arXiv:1611.02163, and Gulrajani et al. 2017."""

MIXTURES = {mixture.name: mixture for mixture in (GRID, RING)}
