"""What is measured: workloads, the contenders that do them, and what they have in common."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ppl_models.layers import GreyConvTranspose2d
from runners.data import Images
from runners.loop.capture import graphed
from runners.loop.history import History
from runners.loop.random import forked
from runners.loop.train import Step

__all__ = ["BY_HAND", "Contender", "Setting", "Workload", "installed", "own_store", "plain", "shuffled", "toolkit"]

BY_HAND = "torch by hand"

STEPS = 10_000
"""N of schedules."""


@dataclass(frozen=True)
class Setting:
    """On what all contenders are measured.

    Attributes:
        device: Where.
        precision: Of the networks.
        count: Images that there are, where they are not given.
        seed: What networks start from.
        split: Images, instead of random ones.
    """

    device: torch.device
    precision: Literal["float32", "bf16"] = "float32"
    count: int = 55_000
    seed: int = 0
    split: Images | None = None

    def images(self) -> Images:
        """Those that are given, or some with a fifth of their pixels bright, as in MNIST: that changes no time."""
        if self.split is not None:
            return self.split
        with forked(0, self.device):
            shape = (self.count, 1, 28, 28)
            bright = torch.randint(0, 5, shape, dtype=torch.uint8, device=self.device) == 0
            pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device) * bright
        return Images(pixels, None, torch.arange(self.count, device=self.device))

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that networks run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def seeded(self) -> AbstractContextManager[None]:
        """Every contender's networks start from the same seed."""
        return forked(self.seed, self.device)


@dataclass(frozen=True)
class Contender:
    """One way of doing the steps of a workload; calling it with n does it n times and returns for how many units.

    Attributes:
        step: Does one step, or, where these are compiled together, an epoch, and returns the last loss.
        units: Images or characters of that.
        modules: What it trains, where that is torch's.
        around: Makes the context of a turn.
    """

    step: Callable[[], Any]
    units: int
    modules: nn.Module | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __call__(self, times: int) -> int:
        with self.around():
            for _ in range(times):
                self.step()
        return times * self.units


@dataclass(frozen=True)
class Workload:
    """Something that takes time.

    Attributes:
        title: What it is.
        unit: What is counted, in the plural.
        size: How many of those a step has.
        contenders: Functions that make them, by name; the toolkit is the first, to which the others are compared.
        notes: Lines about who is missing.
    """

    title: str
    unit: str
    size: int
    contenders: dict[str, Callable[[], Contender]]
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> str:
        """The contender whose arithmetic is counted: that by hand where there is one, which does nothing else."""
        return BY_HAND if BY_HAND in self.contenders else next(iter(self.contenders))


def toolkit(
    step: Step,
    stream: Iterator[Any],
    modules: nn.Module,
    *,
    units: int,
    loss: str = "loss",
    optimizers: Sequence[torch.optim.Optimizer],
    graph: bool | None = None,
) -> Contender:
    """The toolkit's own step on its own stream, without the loop's bar and rows; on CUDA as a graph where it can be."""
    history, device = History(), next(modules.parameters()).device
    step = graphed(step, device, optimizers=optimizers, pieces=dict(modules.named_children()), graph=graph)

    def once() -> Tensor:
        step.before(history.step, STEPS)
        scalars = step(*(next(stream) for _ in range(step.batches)))
        history.record(scalars)
        return scalars[loss].detach()

    return Contender(once, units, modules)


def plain(networks: nn.Module) -> nn.Module:
    """The same networks of torch's own layers, as a user would have them."""
    for layer in networks.modules():
        if isinstance(layer, GreyConvTranspose2d):
            layer.__class__ = nn.ConvTranspose2d
    return networks


def shuffled(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Rows of shuffled batches without end, in the order that the toolkit's streams have by default."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator).to(device)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def own_store(*, validate: bool = False) -> Callable[[], AbstractContextManager[None]]:
    """Turns with a parameter store of their own, empty at the first, so that contenders do not see each other's.

    Args:
        validate: Whether Pyro and torch check every distribution, which is their default.
    """
    state: dict[str, Any] = {"params": {}, "constraints": {}}

    @contextmanager
    def around() -> Iterator[None]:
        with pyro.get_param_store().scope(state), pyro.validation_enabled(validate):
            yield

    return around


def installed(package: str) -> bool:
    """Whether a package could be imported."""
    return package in sys.modules or find_spec(package) is not None
