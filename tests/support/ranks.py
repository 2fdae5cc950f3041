"""Two processes that train together, for tests: their pool, what they train, and noise that both have of one stream."""

import io
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import small
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from guides import ELBO, IWAE, SGD, Amortized, Constrained, Echo, Free, Refinement, SemiAmortized
from ppl_models import Batch, Critic, Generator, MLPDecoder, MLPEncoder, UsageError
from runners import svi, text
from runners.data import DataSet, Images
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.loop import processes
from runners.loop.command import command
from runners.run import Run

W, BATCH, STEPS = 2, 10, 7
KINDS = ("amortized", "free", "cold", "joint", "constrained", "clipped", "iwae", "semi-amortized", "wgan-gp", "r1")


class Exact(Images):
    """Images in float64."""

    def gather(self, rows: Tensor) -> Batch:
        batch = super().gather(rows)
        return batch._replace(x=batch.x.double())


class Noise(TorchDispatchMode):
    """Draws the noise of a whole batch from one stream, and hands out the rank's part of it."""

    DRAWS = {"normal_": torch.randn, "randn": torch.randn, "uniform_": torch.rand, "rand": torch.rand}

    def __init__(self) -> None:
        super().__init__()
        self.size, self.generator = BATCH // processes.count(), torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn, draw = func(*args, **(kwargs or {})), self.DRAWS.get(func.overloadpacket.__name__)
        if draw is None or (kwargs or {}).get("generator") is not None:
            return drawn
        shape, settings = list(drawn.shape), {"generator": self.generator, "dtype": drawn.dtype}
        if self.size not in shape:
            return drawn.copy_(draw(shape, **settings))
        place = shape.index(self.size)
        shape[place] = BATCH
        return drawn.copy_(draw(shape, **settings).narrow(place, processes.rank() * self.size, self.size))


class Side:
    """Batches made of those of all shards, side by side: what several processes see together."""

    def __init__(self, images: Images) -> None:
        size = len(images) // W
        parts = [images.part(rank * size, (rank + 1) * size) for rank in range(W)]
        self.streams = [
            part.batches(BATCH // W, torch.Generator().manual_seed(rank)) for rank, part in enumerate(parts)
        ]

    def __next__(self) -> Batch:
        fields = zip(*map(next, self.streams), strict=True)
        return Batch(*(None if field[0] is None else torch.cat(field) for field in fields))


class Normed(nn.Module):
    """A generator with batch norm, whose statistics each process gathers by itself."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator, self.norm, self.latents = generator, nn.BatchNorm2d(1), generator.latents

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(self.generator(z)).sigmoid()


def data() -> DataSet:
    """Few images, so that an epoch ends, of which one is in no shard."""
    made = small.data_set(train=21, test=47)
    splits = (Exact(each.pixels, each.labels, each.index) for each in (made.train, made.test))
    return DataSet("bars", next(splits), None, next(splits))


def made(kind: str, *, out: Path | None = None, steps: int = STEPS) -> Run:
    """A small fit in float64; each process starts from a seed of its own but the first one's networks."""
    torch.manual_seed(processes.rank())
    settings = {"steps": steps, "batch": BATCH, "every": 3, "out": out, "device": "cpu", "progress": False}
    if kind in ("wgan-gp", "r1"):
        nets = Generator(MLPDecoder(latents=3, shape=(1, 8, 8), hidden=(16,))), Critic(MLPEncoder(shape=(1, 8, 8)))
        loss, how = ("wasserstein", {"penalty": 10.0, "critic_steps": 2}) if kind == "wgan-gp" else ("gan", {"r1": 1.0})
        return GanFit(*(net.double() for net in nets), data(), loss, average=0.9, **how, **settings)
    model, guide, objective = small.model(latents=3), small.amortized(latents=3), ELBO()
    if kind in ("free", "cold"):
        guide = small.free(data(), latents=3, warm=kind == "free")
    elif kind == "joint":
        guide = small.free(data(), latents=3, refinement=Refinement(steps=1, decay=0.0, joint=True))
    elif kind == "constrained":
        objective = Constrained(-30.0, rule="moving_average", lr=1e-2).double()
    elif kind == "iwae":
        objective = IWAE(4)
    elif kind == "semi-amortized":
        refinement = Refinement(steps=2, rule=SGD(lr=0.01, momentum=0.5), keep_moments=False, decay=0.0)
        guide = SemiAmortized(encoder=MLPEncoder(shape=(1, 8, 8)), latents=3, refinement=refinement)
    elif kind == "clipped":
        settings["clip"] = 1.0
    return Fit(model.double(), guide.double(), data(), objective, **settings)


def state(run: Run) -> dict[str, np.ndarray]:
    """All of a run's numbers but those that each rank has for itself."""
    found = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                walk(f"{name}.{key}", each)
        elif isinstance(value, Tensor):
            found[name] = value.numpy().copy()

    for name in run._parts.keys() - {"stream", "random", "history"}:
        walk(name, run._parts[name].state_dict())
    rows = [[value for name, value in row.items() if name not in ("seconds", "diversity")] for row in run.history.rows]
    final = [value for name, value in run.history.final().items() if name != "diversity"]  # a variance over the batch
    return found | {"rows": np.array(rows), "final": np.array(final)}


def trained(kind: str) -> dict[str, np.ndarray]:
    """A run to its end: of one process, on what several see together."""
    run = made(kind)
    if processes.count() == 1:
        run._stream = Side(run.data.train)
    torch.set_default_dtype(torch.float64)  # for the latents that a GAN's rows draw
    try:
        with Noise():
            run.run()
    finally:
        torch.set_default_dtype(torch.float32)
    return state(run)


def normed() -> tuple[dict[str, np.ndarray], list[int], list[int]]:
    """A run's numbers, those of a generator with batch norm, and what the process draws next, of data and noise."""
    run = made("wgan-gp", steps=2)
    generator = Normed(run.generator).float()
    run = GanFit(generator, run.critic.float(), small.data_set(), batch=BATCH, steps=2, device="cpu", progress=False)
    run.run()
    return state(run), next(run._stream).index.tolist(), run._random.state_dict()["cpu"].tolist()


def stopped(folder: Path) -> tuple[int | None, int]:
    """A run that the last rank alone is told to stop in its third step."""
    run = made("free", out=folder)
    before = run._step.before

    def tell(step: int, steps: int) -> None:
        before(step, steps)
        if step == 2 and processes.rank() == W - 1:
            signal.raise_signal(signal.SIGTERM)

    run._step.before = tell
    run.run()
    return run.stopped, run.history.step


def ended(folder: Path) -> dict[str, np.ndarray]:
    """A run in a folder to its end, from where it stands there."""
    return state(made("free", out=folder).resume().run())


def judged() -> list[np.ndarray]:
    """Bounds and evidence of test images that cannot be shared out evenly."""
    run = made("amortized")
    run.unite()
    images = run.data.test.first(45)
    parts = run.bounds(images, size=10)
    assert len(run.bounds(images, size=100).elbo) == 45, "a share of nothing"
    return [parts.elbo.numpy(), parts.site_kl["z"].numpy(), run.evidence(images, size=10, samples=5).elbo.numpy()]


def diverged(folder: Path | None) -> None:
    """A run whose last rank alone sees something that is not finite."""
    run = made("amortized", out=folder)
    if processes.rank() == W - 1:
        run._stream = (batch._replace(x=batch.x * float("nan")) for batch in run._stream)
    run.run()


def refused(kind: str) -> None:
    """A fit that several processes refuse."""
    settings = {"batch": BATCH, "device": "cpu", "progress": False}
    if kind == "batch":
        settings["batch"] = 9
    guide = small.amortized()
    if kind == "carried":
        guide = Free(BATCH, latents=2, carried=True)
    elif kind == "echo":
        guide = Amortized(encoder=MLPEncoder(shape=(1, 8, 8)), family=Echo(2, depth=BATCH - 1))
    Fit(small.model(), guide, small.data_set(), ELBO(free_bits=0.1 if kind == "free_bits" else 0.0), **settings)


@command(shared=True)
def failing(argv: list[str]) -> None:
    """A command in which one rank finds what it was given wrong, and the others wait for it."""
    if str(processes.rank()) in argv:
        raise UsageError("what was given is wrong")
    processes.agreed(0)


def said(main: str, argv: list[str]) -> tuple[Any, str]:
    """What a command of a process ends in, and says on stderr."""
    commands = {"failing": failing, "svi": svi.main, "text": text.main}
    with redirect_stderr(io.StringIO()) as heard:
        try:
            code = commands[main](argv) and 0
        except SystemExit as end:
            code = end.code
    return code, heard.getvalue()


class Pair:
    """Two processes that carry out one function after another, together."""

    def __init__(self) -> None:
        self.pools = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(W)]

    def __call__(self, function: Callable[..., Any], *args: Any, joined: bool = True) -> list[Any]:
        """What the function returns in each, or the exception that it ends in."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        futures = [pool.submit(_in_rank, rank, port, function, args, joined) for rank, pool in enumerate(self.pools)]
        return [future.exception(timeout=60) or future.result() for future in futures]


@contextmanager
def pair() -> Iterator[Pair]:
    """Two processes, for a while."""
    made = Pair()
    try:
        yield made
    finally:
        for process in [process for pool in made.pools for process in pool._processes.values()]:
            process.kill()  # one that still waits for the other would wait for long
        for pool in made.pools:
            pool.shutdown()


def _in_rank(rank: int, port: int, function: Callable[..., Any], args: tuple[Any, ...], joined: bool) -> Any:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(W)}
    os.environ.update(where | {"LOCAL_RANK": str(rank)})
    torch.set_num_threads(1)
    if not joined:  # a command does that by itself
        return function(*args)
    with processes.together():
        return function(*args)
