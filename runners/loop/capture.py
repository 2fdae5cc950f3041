"""Whole steps as CUDA graphs: recorded once, then launched by one call instead of one for each kernel.

A graph holds kernels and addresses. When it is replayed no Python runs: numbers of the host are what they were when it
was recorded, and tensors are where they were. What a step reads must therefore be filled in place, and nothing in it
may wait for the device; a step of which that is not so is done as ever, and one line says why.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ppl_models import Batch, UsageError
from runners.loop import processes
from runners.loop.errors import first_line
from runners.loop.train import Step
from runners.loop.watch import Fixed, Scalars, Work, numbers, tensors, watched

__all__ = ["Captured", "CudaGraph", "Graph", "graphed", "make_capturable"]

WARM_UP = 3
"""Steps before one is recorded: the first validates, the second may still allocate, the third is looked at."""


class Graph(Protocol):
    """What records work and replays it."""

    def warm_up(self, work: Work) -> tuple[Scalars, str | None]:
        """Do work, as before it is recorded; returns what it returns, and why a graph cannot hold it, if so."""

    def capture(self, work: Work) -> Scalars:
        """Record work without doing it; returns where replays put what it returns."""

    def replay(self) -> None:
        """Do what was recorded."""


class Captured:
    """A step that is done a few times, then recorded, and from then on replayed.

    The first steps are the run's own, and recording executes nothing: so nothing has to be put back, and weights, rows
    and random numbers go on as they would have. Scalars are returned in the same tensors each time.

    Args:
        step: The step. Its work is in `__call__`; `before` runs on the host each time.
        graph: What records it.
        pieces: What the step trains and by what, whose Python numbers must stay as they are.
        refuse: Called with the reason where the step is not to be recorded after all; it then stays eager. A batch of
            another shape than those that were recorded is done eagerly as well.
    """

    def __init__(
        self,
        step: Step,
        graph: Graph,
        *,
        pieces: Mapping[str, Any],
        refuse: Callable[[str], None],
    ) -> None:
        self.step, self.graph, self.pieces, self.refuse = step, graph, dict(pieces), refuse
        self.batches = step.batches
        self._filled = {name: piece for name, piece in self.pieces.items() if hasattr(piece, "before_step")}
        self._warm_ups = 0
        self._numbers: dict[str, Fixed] = {}
        self._static: list[Batch] = []
        self._scalars: Scalars = {}
        self._refused = False

    def before(self, step: int, steps: int) -> None:
        """What the step does on the host, which may fill tensors in place but not put others in their place."""
        was = tensors(self._filled)
        self.step.before(step, steps)
        replaced = next((name for name, place in tensors(self._filled).items() if place != was.get(name)), None)
        if replaced and self._warm_ups and not self._refused:  # what is made before the first step stays
            self._refuse(f"before_step replaces {replaced}, expected a tensor filled in place")

    def __call__(self, *batches: Batch) -> Scalars:
        if self._refused:
            return self.step(*batches)
        if self._warm_ups < WARM_UP:
            return self._warm_up(*batches)
        changed = next((name for name, fixed in self._numbers.items() if fixed.changed), None)
        if changed:
            self._refuse(f"{changed}, a Python number, changes from step to step, expected a tensor filled in place")
            return self.step(*batches)
        if not self._static:
            self._capture(*batches)
        elif not all(map(_alike, self._static, batches)):
            return self.step(*batches)  # copying would broadcast it
        for static, batch in zip(self._static, batches, strict=True):
            for into, value in zip(static, batch, strict=True):
                if isinstance(into, Tensor):
                    into.copy_(value)
        self.graph.replay()
        return self._scalars

    def _warm_up(self, *batches: Batch) -> Scalars:
        self._warm_ups += 1
        if self._warm_ups == WARM_UP:
            self._numbers = numbers(self.pieces)
        scalars, reason = self.graph.warm_up(partial(self.step, *batches))
        if self._warm_ups == WARM_UP and reason is not None:
            self._refuse(reason)
        return scalars

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self.refuse(reason)

    def _capture(self, *batches: Batch) -> None:
        # Clones keep strides, on which it depends which kernels are chosen.
        self._static = [Batch(*(item.clone() if isinstance(item, Tensor) else item for item in b)) for b in batches]
        try:
            self._scalars = self.graph.capture(self._work)
        except RuntimeError as error:
            # What ends a capture that failed raises as well, and would hide why.
            raise UsageError(
                f"the step could not be recorded as a CUDA graph ({first_line(error.__context__ or error)}); "
                "--no-graph, or graph=False, goes without"
            ) from error

    def _work(self) -> Scalars:
        # Detached, or the loss would keep the whole step's autograd graph.
        return {name: value.detach() for name, value in self.step(*self._static).items()}


class CudaGraph:
    """A graph on a CUDA device.

    Random numbers come from the device's default generator, which torch's graphs know: a replay reads seed and offset
    as they then are and moves the offset on by what was drawn, as the eager step does. So a random state may be put in
    its place between replays, as `RandomState` and `forked` do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream, self.graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()

    def warm_up(self, work: Work) -> tuple[Scalars, str | None]:
        # On the stream that is to be captured: libraries keep a workspace for each, which must be there by then. Each
        # of the two streams waits for the other, so that it is as if all were done on one.
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        try:
            with torch.cuda.stream(self.stream):
                return watched(work, device=self.device)
        finally:
            here.wait_stream(self.stream)

    def capture(self, work: Work) -> Scalars:
        with torch.cuda.device(self.device), torch.cuda.graph(self.graph, stream=self.stream):
            return work()

    def replay(self) -> None:
        self.graph.replay()


def graphed(
    step: Step,
    device: torch.device,
    *,
    optimizers: Sequence[torch.optim.Optimizer],
    pieces: Mapping[str, Any],
    graph: bool | None,
) -> Step:
    """A run's step as it is to be done on a device: as a CUDA graph, where that is wanted and possible.

    To be called anew for each run: what was changed or loaded since the last one is then recorded as it is.

    Args:
        step: The step.
        device: Where it is done.
        optimizers: What it descends by, which are made ready for that device.
        pieces: What it trains.
        graph: Whether to; by default where it is possible, and where on CUDA it is not, a line on stderr says why.

    Raises:
        UsageError: `graph` is `True`, and it is not possible; some reasons are found only after the first steps.
    """

    def refuse(reason: str) -> None:
        if graph:
            raise UsageError(f"graph: {reason}; --no-graph, or graph=False, goes without")
        tqdm.write(f"steps are not recorded as a CUDA graph: {reason}", file=sys.stderr)

    if device.type != "cuda":
        for optimizer in optimizers:
            make_capturable(optimizer, on=False)  # a run that was resumed here may have begun on CUDA
        return step
    if graph is False:
        return step
    reason = _unfit(optimizers)
    if reason is not None:
        refuse(reason)
        return step
    for optimizer in optimizers:
        make_capturable(optimizer)
    named = {f"optimizers[{i}]": optimizer for i, optimizer in enumerate(optimizers)}
    return Captured(step, CudaGraph(device), pieces=dict(pieces) | named, refuse=refuse)


def make_capturable(optimizer: torch.optim.Optimizer, *, on: bool = True) -> None:
    """Let an optimiser's state be on the parameters' device, its count of steps as well, as a graph needs it.

    Args:
        optimizer: The optimiser, perhaps with a state that was loaded.
        on: Whether to, or to take that back, since on a CPU torch refuses it; the state then stays where it is.
    """
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = on
        for parameter in group["params"] if on else ():
            state = optimizer.state.get(parameter, {})
            state.update({k: value.to(parameter.device) for k, value in state.items() if isinstance(value, Tensor)})


def _unfit(optimizers: Sequence[torch.optim.Optimizer]) -> str | None:
    """Why nothing can be recorded, as far as that is known before the first step."""
    if processes.count() > 1:
        return "there are several processes"
    for optimizer in optimizers:
        lacks = any("capturable" not in group for group in optimizer.param_groups)
        if lacks and not isinstance(optimizer, torch.optim.SGD):  # which has no count of steps to keep on the host
            return f"{type(optimizer).__name__} has no option capturable, expected an optimiser that has, or SGD"
    return None


def _alike(static: Batch, batch: Batch) -> bool:
    """Whether a batch fits where another one is."""
    forms = [
        [(item.shape, item.dtype) if isinstance(item, Tensor) else type(item) for item in each]
        for each in (static, batch)
    ]
    return forms[0] == forms[1]
