"""What a step should cost: arithmetic and traffic over what the machine does of each; and its peak memory."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from runners.contenders.workload import Contender, Setting, Workload
from runners.loop.capture import WARM_UP

__all__ = ["Floor", "Rates", "floor_of", "peak_memory", "rates_of", "wait"]

STATUS = Path("/proc/self/status")

STEPS = WARM_UP + 2
"""Steps whose memory is looked at: on CUDA some of them are replays of a graph."""


class Rates(NamedTuple):
    """What a machine does in a second: floating-point operations of a large product, bytes that a copy moves."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Floor:
    """A step's arithmetic and traffic, and the seconds that a machine takes for each.

    Attributes:
        flops: Of matrix products and convolutions, a multiplication and an addition being two.
        bytes: What those read and write, as if nothing else were done in passes of its own; and of each parameter
            that is trained its gradient, read, and its value and both of Adam's moments, read and written.
        rates: The machine's. On a CPU traffic may be faster than that: a small network stays in its cache.
    """

    flops: int
    bytes: int
    rates: Rates

    @property
    def arithmetic(self) -> float:
        """Seconds of arithmetic."""
        return self.flops / self.rates.flops

    @property
    def traffic(self) -> float:
        """Seconds of traffic."""
        return self.bytes / self.rates.bytes


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates_of(device: torch.device, *, dtype: torch.dtype = torch.float32, size: int | None = None) -> Rates:
    """Measure a machine, the best of a few: a product of matrices of that size, a copy of 64 such.

    In float32 products are torch's by default, not in TF32, which cuDNN's convolutions may use.
    """
    size = size or (1024 if device.type == "cpu" else 8192)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    source = torch.empty(64, size, size, device=device).fill_(1.0)
    target = torch.empty_like(source)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(4):
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    product, copy = best(lambda: a @ b), best(lambda: target.copy_(source))
    return Rates(2 * size**3 / product, 2 * source.nbytes / copy)


class _Products(TorchDispatchMode):
    """Counts arithmetic and traffic of matrix products and convolutions, as torch knows them.

    `FlopCounterMode` does the first, but cannot be there while a critic's slope is differentiated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
            self.bytes += sum(each.nbytes for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor))
        return out


def floor_of(contender: Contender, rates: Rates, *, size: int) -> Floor:
    """Count what a contender does for so many units, those of a step; it should have done one step before."""
    # cuDNN's recurrent layers are one operation, which torch cannot count.
    with torch.backends.cudnn.flags(enabled=False), _Products() as products:
        share = size / contender(1)
    parameters = [] if contender.modules is None else contender.modules.parameters()
    trained = sum(parameter.nbytes for parameter in parameters if parameter.grad is not None)
    return Floor(round(share * products.flops), round(share * (products.bytes + 7 * trained)), rates)


def peak_memory(
    workload: Callable[[Setting], Workload], name: str, setting: Setting, *, steps: int = STEPS
) -> int | None:
    """Bytes that a contender needs, its resident data included, at most during some steps.

    On CUDA what torch has allocated; on a CPU what a process of its own grows by, that has imported torch and Pyro and
    nothing else, which counts a contender's other packages; `None` where the system does not say.
    """
    if setting.device.type == "cuda":
        return _allocated(workload(setting).contenders[name], setting.device, steps=steps)
    if not STATUS.exists():
        return None
    # Not forked: a child has its parent's pages, and its peak.
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_grown, workload, name, setting, steps).result()
    except BrokenProcessPool:
        return None  # a program from standard input, say, which another process cannot read again


def _allocated(make: Callable[[], Contender], device: torch.device, *, steps: int) -> int:
    before = torch.cuda.memory_allocated(device)
    contender = make()
    torch.cuda.reset_peak_memory_stats(device)
    contender(steps)
    return torch.cuda.max_memory_allocated(device) - before


def _grown(workload: Callable[[Setting], Workload], name: str, setting: Setting, steps: int) -> int | None:
    made = workload(setting)
    before = _resident("VmRSS")
    contender = made.contenders[name]()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak: making the data is no part of it
    except OSError:
        return None
    contender(steps)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
