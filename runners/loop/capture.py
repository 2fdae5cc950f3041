"""Whole steps as CUDA graphs: recorded once, then launched by one call instead of one for each kernel.

A graph holds kernels and addresses. When it is replayed no Python runs: numbers of the host are what they were when it
was recorded, and tensors are where they were. What a step reads must therefore be filled in place, and nothing in it
may wait for the device; a step of which that is not so is done as ever, and one line says why.
"""

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from ppl_models import Batch, UsageError
from runners.loop.errors import first_line
from runners.loop.train import Step

__all__ = ["Captured", "CudaGraph", "Graph", "graphed", "make_capturable", "watched"]

WARM_UP = 3
"""Steps before one is recorded: of the first two some validate and make what later ones find."""

Scalars = dict[str, Tensor]
Work = Callable[[], Scalars]


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
        pieces: What the step trains, whose Python numbers must stay as they are.
        refuse: Told why the step is not to be recorded after all; it is then done as it is, like any step on batches of
            another shape than those that were recorded.
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
        self._warm_ups = 0
        self._numbers: dict[str, Any] = {}
        self._held: list[Batch] = []
        self._scalars: Scalars = {}
        self._refused = False

    def before(self, step: int, steps: int) -> None:
        """What the step does on the host."""
        self.step.before(step, steps)

    def __call__(self, *batches: Batch) -> Scalars:
        if self._refused:
            return self.step(*batches)
        if self._warm_ups < WARM_UP:
            return self._warm_up(*batches)
        if not self._held:
            self._capture(*batches)
        elif not all(map(_alike, self._held, batches)):
            return self.step(*batches)  # copying would broadcast it
        for held, batch in zip(self._held, batches, strict=True):
            for into, value in zip(held, batch, strict=True):
                if isinstance(into, Tensor):
                    into.copy_(value)
        self.graph.replay()
        return self._scalars

    def _warm_up(self, *batches: Batch) -> Scalars:
        self._warm_ups += 1
        before, self._numbers = self._numbers, _numbers(self.pieces)
        scalars, reason = self.graph.warm_up(partial(self.step, *batches))
        if self._warm_ups == WARM_UP:
            changed = next((name for name, number in before.items() if self._numbers.get(name) != number), None)
            if reason is None and changed:
                reason = f"{changed}, a Python number, changes from step to step, expected a tensor filled in place"
            if reason is not None:
                self._refused = True
                self.refuse(reason)
        return scalars

    def _capture(self, *batches: Batch) -> None:
        # Clones keep strides, on which it depends which kernels are chosen.
        self._held = [Batch(*(item.clone() if isinstance(item, Tensor) else item for item in b)) for b in batches]
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
        return {name: value.detach() for name, value in self.step(*self._held).items()}


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
    return Captured(step, CudaGraph(device), pieces=pieces, refuse=refuse)


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


def watched(work: Work, *, device: torch.device) -> tuple[Scalars, str | None]:
    """Do work; returns what it returns, and what a graph on that CUDA device cannot hold of what it did, if anything.

    That is: to wait for the device, to draw random numbers on the host, or to read memory and then give it up for
    other memory that the next step would read, as `self.mean = 0.9 * self.mean + x` does.
    """
    state, reads, mode = torch.get_rng_state(), _Reads(device), torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with reads:
                found = work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    waits = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
    for warning in caught:
        # Of the mode itself torch warns as well, that it does not see everything.
        if warning not in waits and "Synchronization debug mode" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if waits:
        return found, f"the host waits for the device at {Path(waits[0].filename).name}:{waits[0].lineno}"
    if not torch.equal(state, torch.get_rng_state()):
        return found, "random numbers are drawn on the host"
    if reads.given_up():
        return found, f"a tensor is read ({reads.given_up()}) and then replaced, expected an update in place"
    return found, None


class _Reads(TorchDispatchMode):
    """Which memory of a device operations read that they have not made themselves."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self._made: set[int] = set()
        self._read: dict[int, tuple[weakref.ref[torch.UntypedStorage], str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in self._storages((args, kwargs)):
            if func is torch.ops.aten.lift_fresh.default:  # how a tensor of Python numbers first shows itself
                self._made.add(storage._cdata)
            elif storage._cdata not in self._made:
                self._read.setdefault(storage._cdata, (weakref.ref(storage), func.__name__))
        found = func(*args, **kwargs)
        self._made.update(s._cdata for s in self._storages(found) if s._cdata not in self._read)
        return found

    def given_up(self) -> str | None:
        """The operation that read memory that is no more, if one did."""
        return next((name for storage, name in self._read.values() if storage() is None), None)

    def _storages(self, values: Any) -> Iterator[torch.UntypedStorage]:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.device == self.device:
                yield value.untyped_storage()


def _unfit(optimizers: Sequence[torch.optim.Optimizer]) -> str | None:
    """Why nothing can be recorded, as far as that is known before the first step."""
    processes = torch.distributed
    if processes.is_available() and processes.is_initialized() and processes.get_world_size() > 1:
        return "there are several processes"
    for optimizer in optimizers:
        # SGD counts nothing.
        counts = any("capturable" not in group for group in optimizer.param_groups)
        if counts and not isinstance(optimizer, torch.optim.SGD):
            return f"{type(optimizer).__name__} has no option capturable, expected an optimiser that has, or SGD"
    return None


def _alike(held: Batch, batch: Batch) -> bool:
    """Whether a batch fits where another one is."""
    forms = [
        [(item.shape, item.dtype) if isinstance(item, Tensor) else type(item) for item in each]
        for each in (held, batch)
    ]
    return forms[0] == forms[1]


def _numbers(pieces: Mapping[str, Any]) -> dict[str, Any]:
    """The Python numbers among the attributes of pieces and their modules, by name."""
    found = {}
    for role, piece in pieces.items():
        for name, module in piece.named_modules(prefix=role) if isinstance(piece, nn.Module) else [(role, piece)]:
            numbers = {k: v for k, v in getattr(module, "__dict__", {}).items() if isinstance(v, (bool, int, float))}
            found |= {f"{name}.{attribute}": number for attribute, number in numbers.items()}
    return found
