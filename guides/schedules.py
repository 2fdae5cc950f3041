"""Schedules: numbers as functions of the step n and of the number of steps N, for KL weights and step sizes.

Any such function will do, `lambda n, N: n / N` too; these have names, so that a run folder can say which it was.
"""

import math
from dataclasses import dataclass

from ppl_models.batch import UsageError

__all__ = ["CosineSchedule", "CyclicalSchedule", "LinearSchedule", "SigmoidSchedule"]


@dataclass(frozen=True)
class LinearSchedule:
    r"""From `start` to `end` in a straight line over the first part of the training, then constant.

    With the defaults :math:`\alpha = n / N`; a falling one has `start` above `end`. Bowman et al. 2016,
    arXiv:1511.06349.

    Args:
        start: The value at step 0.
        end: The value at the end of the ramp.
        over: Which fraction of the steps the ramp takes.
    """

    start: float = 0.0
    end: float = 1.0
    over: float = 1.0

    def __post_init__(self) -> None:
        if self.over <= 0:
            raise UsageError(f"LinearSchedule: found over={self.over}, expected a fraction of the steps above 0")

    def __call__(self, n: int, N: int) -> float:
        return self.start + (self.end - self.start) * min(n / (self.over * N), 1.0)


@dataclass(frozen=True)
class CosineSchedule:
    r"""From `start` to `end` along half a cosine, :math:`\tfrac12 (1 + \cos \pi n / N)`, for step sizes.

    Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Args:
        start: The value at step 0.
        end: The value at step N.
    """

    start: float = 1.0
    end: float = 0.0

    def __call__(self, n: int, N: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(n / N, 1.0))) / 2


@dataclass(frozen=True)
class SigmoidSchedule:
    r"""From `start` to `end` along :math:`\sigma(k (n / N - m))`, scaled to begin and end exactly there.

    Bowman et al. 2016, arXiv:1511.06349.

    Args:
        start: The value at step 0.
        end: The value at step N.
        steepness: k, per whole training.
        midpoint: m, the fraction of the steps at which the curve is steepest.
    """

    start: float = 0.0
    end: float = 1.0
    steepness: float = 12.0
    midpoint: float = 0.5

    def __call__(self, n: int, N: int) -> float:
        first, now, last = (1 / (1 + math.exp(self.steepness * (self.midpoint - at))) for at in (0.0, n / N, 1.0))
        return self.start + (self.end - self.start) * (now - first) / (last - first)


@dataclass(frozen=True)
class CyclicalSchedule:
    """From `start` to `end` again and again: a linear ramp, then constant. Fu et al. 2019, arXiv:1903.10145.

    Args:
        start: The value at the beginning of each cycle.
        end: The value at the end of each ramp.
        cycles: How many.
        rise: Which fraction of a cycle its ramp takes.
    """

    start: float = 0.0
    end: float = 1.0
    cycles: int = 4
    rise: float = 0.5

    def __post_init__(self) -> None:
        if self.cycles < 1 or not 0 < self.rise <= 1:
            raise UsageError(
                f"CyclicalSchedule: found {self.cycles} cycles, rise={self.rise}, expected 1 or more and a part of 1"
            )

    def __call__(self, n: int, N: int) -> float:
        within = n * self.cycles / N % 1.0 if n < N else 1.0
        return self.start + (self.end - self.start) * min(within / self.rise, 1.0)
