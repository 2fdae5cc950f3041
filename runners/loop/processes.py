"""Several processes that train one fit together, as torchrun starts them; in one process nothing here does anything.

    torchrun --nproc-per-node 2 runners/svi.py --guide amortized

Each process (rank r of W) draws 1/W of every batch from its own shard of the training data, with noise of its own, and
gradients are averaged before each update: where losses are means over data, W processes make the steps of one with
whole batches. What looks at a whole batch at once sees a part of it: batch norm, Echo's chains, the paths whose energy
is part of a loss. Not by `DistributedDataParallel`, which averages what passes through the one module that it wraps, by
hooks of `backward`: here Pyro's handlers call a model and a guide one by one, and penalties and refinement ask
`torch.autograd.grad`.

Tensors travel by NCCL where they are on a GPU, all else by gloo. What one process decides, to stop or to save, all do
at the same step; rank 0 alone prints and writes.
"""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ppl_models import UsageError

__all__ = [
    "SaidElsewhere",
    "agreed",
    "average",
    "average_gradients",
    "mean_over_ranks",
    "broadcast",
    "count",
    "first_alone",
    "first_then_rest",
    "from_first",
    "gathered",
    "together",
    "rank",
    "share",
    "shard",
]

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: rank 0 may train a classifier or draw for them all. Where one dies, its
connections break, or torchrun ends the others."""

FAREWELL = 5.0
"""Seconds that a process which fails leaves the others to end by themselves, before torchrun ends them."""

P = ParamSpec("P")
T = TypeVar("T")


class SaidElsewhere(UsageError):
    """Another process has failed, and says why: this one ends without a word."""


@contextmanager
def together() -> Iterator[None]:
    """Take part, for a while, in what torchrun's environment describes; ranks other than 0 print nothing meanwhile.

    Where one process fails all do, by an exception that the first of them keeps.

    Raises:
        SaidElsewhere: Another process has failed.
    """
    # Clusters set ranks for programs that know nothing of torch; where to meet only torchrun says.
    if "MASTER_ADDR" not in os.environ or int(os.environ.get("WORLD_SIZE") or 1) == 1 or count() > 1:
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # not everywhere is torch built with it

    store, own, world = next(rendezvous("env://"))
    if torch.cuda.is_available() and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=world, timeout=PATIENCE)
    try:
        with _quiet(unless=own == 0):
            yield
            dist.barrier()  # rank 0 may still be drawing
    except BaseException as error:
        first = store.add("failures", 1) == 1
        if not torch.cuda.is_available():  # NCCL would wait for the others; there it is torchrun that ends them
            dist.destroy_process_group()  # breaks the connections, so that whoever waits for this process fails too
            _bid_farewell(store, own, world)
        if not first and isinstance(error, (UsageError, RuntimeError)):
            raise SaidElsewhere("another process has failed, and says why") from error
        if isinstance(error, RuntimeError) and "onnection" in str(error):
            raise UsageError("another process has died; what was saved goes on with --resume") from error
        raise
    dist.destroy_process_group()


def rank() -> int:
    """Which process this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def local_rank() -> int:
    """Which of the processes on its machine this is, and so the CUDA device that it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average(tensors: Iterable[Tensor]) -> None:
    """Put the mean over the processes in place of each tensor."""
    if count() > 1:
        _as_one(tensors, dist.all_reduce, divisor=count())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The same for the gradients of parameters, between the backward pass and what is done with them."""
    average(parameter.grad for parameter in parameters if parameter.grad is not None)


def broadcast(tensors: Iterable[Tensor], *, source: int = 0) -> None:
    """Put one process's values, bit for bit, in place of each tensor."""
    if count() > 1:
        _as_one(tensors, lambda flat: dist.broadcast(flat.view(torch.uint8), source))


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean over the processes, by sums in one order: the same bits however many values are averaged at a time."""
    if count() == 1:
        return values
    found = [torch.empty_like(values) for _ in range(count())]
    dist.all_gather(found, values)
    return torch.stack(found).double().mean(0).to(values.dtype)


def agreed(*found: int) -> tuple[int, ...]:
    """What all processes act on: the largest of what each has found."""
    if count() == 1:
        return found
    largest = torch.tensor(found)  # on the host: no device is waited for
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return tuple(largest.tolist())


def gathered(thing: Any) -> list[Any]:
    """What each process has, in the order of ranks, its tensors on the host."""
    if count() == 1:
        return [thing]
    written = io.BytesIO()
    torch.save(thing, written)
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, written.getvalue())
    return [torch.load(io.BytesIO(each), map_location="cpu", weights_only=False) for each in found]


def from_first(ask: Callable[[], T]) -> T:
    """What a function returns on rank 0, which alone calls it."""
    if count() == 1:
        return ask()
    found = [ask() if rank() == 0 else None]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def first_then_rest(ask: Callable[[], T]) -> T:
    """What a function returns, called on rank 0 first, so that the others find what it has downloaded or decoded."""
    if rank() > 0:
        dist.barrier()
    found = ask()
    if count() > 1 and rank() == 0:
        dist.barrier()
    return found


def first_alone(method: Callable[P, None]) -> Callable[P, None]:
    """Make a function do nothing on ranks other than 0."""

    @wraps(method)
    def only(*args: P.args, **kwargs: P.kwargs) -> None:
        if rank() == 0:
            method(*args, **kwargs)

    return only


def share(length: int, *, owner: int | None = None) -> tuple[int, int]:
    """Where a rank's part of so many things, this one's by default, begins and ends: all parts together are all."""
    owner = rank() if owner is None else owner
    return owner * length // count(), (owner + 1) * length // count()


def shard(split: Any, *, owner: int | None = None) -> Any:
    """The training data of a rank, by default of this one; all are equally large, at most W - 1 data are in none.

    Raises:
        UsageError: They are a text.
    """
    if count() == 1:
        return split
    if not hasattr(split, "part"):
        raise UsageError("several processes share out images, found a text, whose batches continue each other")
    owner, size = rank() if owner is None else owner, len(split) // count()
    return split.part(owner * size, (owner + 1) * size)


@torch.no_grad()
def _as_one(tensors: Iterable[Tensor], collective: Callable[[Tensor], Any], *, divisor: int = 1) -> None:
    """Apply a collective to the tensors of each dtype as one, in place."""
    tensors = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in same])
        collective(flat)
        if divisor > 1:
            flat /= divisor
        for tensor, values in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(values.view(tensor.shape))


@contextmanager
def _quiet(*, unless: bool) -> Iterator[None]:
    if unless:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _bid_farewell(store: Any, own: int, world: int) -> None:
    """Wait a little for the others: torchrun ends them, in mid-sentence, as soon as one has ended badly."""
    until = time.monotonic() + FAREWELL
    try:
        gone = store.add("gone", 1)
        while gone < world and time.monotonic() < until:
            time.sleep(0.02)
            gone = store.add("gone", 0)
        time.sleep(0 if own else 0.2)  # where there is no torchrun, the store that the others ask is rank 0's
    except RuntimeError:
        pass
