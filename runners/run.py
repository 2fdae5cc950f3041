"""A run: a step in training on a stream of data, in a run folder from which it goes on to the same bits."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pyro
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from ppl_models import UsageError
from runners import figures
from runners.blueprint import config_of
from runners.data import DataSet
from runners.divergence import check_finite, is_divergence, replay
from runners.inference import evaluating
from runners.loop import processes
from runners.loop.capture import graphed
from runners.loop.checkpoint import OfRank, Part, load_checkpoint, save_checkpoint
from runners.loop.command import interrupted
from runners.loop.errors import first_line
from runners.loop.events import Events, check_installed
from runners.loop.folder import RunFolder
from runners.loop.history import WINDOW, Diverged, History
from runners.loop.random import RandomState, forked
from runners.loop.train import Step, train

__all__ = ["Run"]


class Run:
    """What every fit can do: train, be evaluated aside, save and resume; what its step is a subclass says.

    Everything random comes from a state of its own, so that what is done between two runs changes nothing in them.

    Of several processes (`runners.loop.processes`) each draws its part of a batch from its own shard of the training
    data; all call the same methods in the same order.

    Args:
        pieces: What is trained and by what, by name, as config.json and the checkpoint call it.
        step: One step of it.
        data: The data set, on `device`.
        parts: What else a checkpoint holds, optimisers above all, by the names that it calls them.
        frozen: Pieces that stay in eval mode.
        settings: Everything else that a run folder needs to make it again, `steps`, `batch`, `every`, `precision`,
            `pictures` and `seed` among it.
        graph: Whether the step is recorded as a CUDA graph, or, with `None`, where that is possible.
        device: Where all that is.
        out: The run folder to write.
        origin: What to add to config.json.
        progress: Whether to show a progress bar.
        tensorboard: Whether rows and pictures are written into the run folder as TensorBoard's events too.

    Attributes:
        history: Rows of training figures and the number of steps done.
        folder: The run folder, or `None`.
        stopped: The signal that ended the last run early, or `None`.

    Raises:
        UsageError: A setting is out of its range.
    """

    digits = 2
    """Behind the point of figures in its repr."""

    def __init__(
        self,
        pieces: Mapping[str, Any],
        step: Step,
        data: DataSet,
        *,
        parts: Mapping[str, Part | None],
        frozen: Sequence[Any] = (),
        settings: Mapping[str, Any],
        graph: bool | None = False,
        device: torch.device,
        out: Path | str | None,
        origin: Mapping[str, Any] | None,
        progress: bool,
        tensorboard: bool = False,
    ) -> None:
        steps, every, precision = (settings[name] for name in ("steps", "every", "precision"))
        if not 1 <= every <= WINDOW:
            raise UsageError(f"every: found {every}, expected 1 to {WINDOW} steps between rows")
        if not 0 <= steps < math.inf or precision not in ("float32", "bf16"):
            raise UsageError(f"steps, precision: found {steps}, {precision!r}, expected 0 or more, 'float32' or 'bf16'")
        if graph and device.type != "cuda":
            raise UsageError(
                f"graph: found the device {device}, expected CUDA; --no-graph, or graph=False, goes without"
            )
        if settings["batch"] % processes.count():
            raise UsageError(
                f"batch: found {settings['batch']}, expected a multiple of {processes.count()}, the processes that "
                "share it out"
            )
        self.pieces, self.data, self.device, self.settings = dict(pieces), data, device, dict(settings)
        self.origin, self.progress, self.stopped, self.graph = dict(origin or {}), progress, None, graph
        self.folder = None if out is None else RunFolder(Path(out))
        if tensorboard:
            if out is None:
                raise UsageError("tensorboard: its events are written into the run folder, expected out=")
            check_installed()
        self.tensorboard, self._events = tensorboard, None
        self.history = History(averaged=processes.mean_over_ranks if processes.count() > 1 else None)
        self._step, self._frozen = step, list(frozen)
        self._begun = self._rehearsed = self._remarked = False
        # A stream for each rank that no other seed has.
        seed = settings["seed"] * processes.count() + processes.rank()
        size = settings["batch"] // processes.count()
        self._stream = processes.shard(data.train).batches(size, torch.Generator().manual_seed(seed))
        self._random = RandomState(seed, device)
        own = {"history": self.history, "stream": OfRank(self._stream), "random": OfRank(self._random)} | self.pieces
        self._parts: dict[str, Part] = {k: part for k, part in (own | parts).items() if hasattr(part, "state_dict")}

    def run(self, steps: int | None = None) -> Self:
        """Train: to the end of the fit, or for `steps` more, which then is its end. Ctrl-C keeps what is trained.

        Raises:
            UsageError: The run folder holds another run, or the numbers left the finite ones; where there is a
                folder, the run has then been replayed from its checkpoint to the step before.
        """
        if steps is not None:
            if steps < 0:
                raise UsageError(f"run: found {steps} steps, expected 0 or more")
            self.settings["steps"] = self.history.step + steps
        self.rehearse()
        if self.folder and not self._begun:
            self.begin()
        elif self.folder and steps is not None:
            self.folder.write_json("config.json", config_of(self))
        if self.folder:
            self.folder.lock()
        for piece in self.pieces.values():
            if isinstance(piece, nn.Module):
                piece.train()  # Echo in eval mode, for one, makes its noise of an old bank
        if self.tensorboard and processes.rank() == 0:
            self._events = Events(self.folder.path, step=self.history.step, rows=self.history.rows)
        self.unite()  # ranks start from different random numbers
        optimizers = [part for part in self._parts.values() if isinstance(part, torch.optim.Optimizer)]
        with self._random.active(), evaluating(*self._frozen):
            try:
                self.stopped = train(
                    graphed(self._step, self.device, optimizers=optimizers, pieces=self.pieces, graph=self.graph),
                    self._stream,
                    self.history,
                    until=self.settings["steps"],
                    every=self.settings["every"],
                    save=self._save_checkpoint if self.folder else None,
                    on_row=self._row,
                    on_step=self.after if processes.rank() == 0 else None,
                    agreed=processes.agreed,
                    progress=self.progress,
                )
            except Diverged as error:
                raise UsageError(f"{error}{self._first_not_finite(error.step)}") from error
            except (torch.linalg.LinAlgError, ValueError) as error:
                if not is_divergence(error):
                    raise
                raise UsageError(f"step {self.history.step} left the finite numbers: {first_line(error)}") from error
            finally:
                if self._events:
                    self._events.close()
                if self.folder:
                    self.folder.unlock()
        self.unite()
        return self

    def carry_out(self, *, resume: bool, command: str) -> None:
        """Begin or resume, and run to the end, for a command; a signal ends the process, which says how to go on."""
        if resume:
            starts = not self.folder.checkpoint.exists()
            self.resume()
            if starts:
                print(f"{self.folder.path}: no checkpoint to go on from, so this run starts at step 0", file=sys.stderr)
        else:
            self.begin()
        print(f"{self!r} → {self.folder.path}", file=sys.stderr)
        self.run()
        if self.stopped:
            interrupted(self.stopped, self.folder.path, command)

    def _repr_html_(self) -> str:
        return figures.html(repr(self), *([self.curves()] if self.history.rows else []))

    @property
    def told(self) -> str:
        """How far the run is, and the means of its last 1000 steps, for its repr."""
        of = f" of {self.settings['steps']:,}" if self.stopped else ""
        final = ", ".join(f"{name} {value:.{self.digits}f}" for name, value in self.history.final().items())
        return f"{self.history.step:,}{of} steps{', stopped' * bool(self.stopped)}{': ' * bool(final)}{final}"

    def curves(self) -> Figure:
        """What the history has, against the step."""
        return figures.curves(self.history.rows)

    def remark(self) -> str | None:
        """What is to be said about the run so far, in one line."""
        return None

    def check(self) -> None:
        """Try the pieces on a little data, as the first step will."""

    def result(self, **settings: Any) -> dict[str, Any]:
        """The final figures, as in result.json."""
        raise NotImplementedError

    def final_figures(self, found: dict[str, Any]) -> dict[str, Figure]:
        """The pictures that go with the final figures, by name."""
        return {}

    def report(self, **settings: Any) -> dict[str, Any]:
        """Write result.json, the pictures and report.html into the run folder; returns the final figures.

        The settings are those of `result`.

        Raises:
            UsageError: There is no run folder.
        """
        if self.folder is None:
            raise UsageError("report: this fit has no run folder; give it one with save(folder) or out=folder")
        found = self.result(**settings)
        self.folder.write_json("result.json", found)
        if processes.rank() == 0:
            for name, figure in self.final_figures(found).items():
                figures.save(figure, self.folder.path / f"{name}.png")
            figures.report(self.folder.path)
        return found

    def measured(self) -> dict[str, float]:
        """What a row of the history says beside the means of its steps."""
        return {}

    def after(self, step: int) -> None:
        """What rank 0 does between two steps, so many done: a picture into the folder, where one is due."""
        if self.folder and self.settings["pictures"] and self.due(step, self.settings["pictures"]):
            self.draw(step)
            if self._events:
                self._events.pictures(step)

    def due(self, step: int, times: int) -> bool:
        """Whether something that is to be done so many times in a run is to be done after a step."""
        return step % max(self.settings["steps"] // times, 1) == 0 or step == self.settings["steps"]

    def draw(self, step: int) -> None:
        """Draw a picture of where the run stands into its folder."""

    def rehearse(self) -> Self:
        """Try the pieces, as `begin` and `run` do by themselves, so that nothing is written for what does not fit.

        Raises:
            UsageError: The pieces do not fit together.
        """
        if not self._rehearsed:
            self._rehearsed = True
            with self.aside(), torch.enable_grad():
                self.check()
        return self

    def begin(self, *, restart: bool = False) -> Self:
        """Make the run folder, as `run` does by itself; with `restart`, also where a run died before a checkpoint.

        Raises:
            UsageError: The folder holds a run, or cannot be written to.
        """
        self.rehearse()
        self.folder.create(config_of(self), restart=restart)
        self._begun = True
        return self

    def restore(self, folder: RunFolder) -> Self:
        """Go back to a run folder's checkpoint; the folder stays as it is.

        Where the run was one of another number of processes, the order of the data and the noise begin anew.

        Raises:
            UsageError: The checkpoint is broken or of other pieces, or the run was on other data.
        """
        was, now = folder.read_json("config.json").get("data"), config_of(self)["data"]
        if was != now:
            raise UsageError(f"{folder.path}: was trained on {was}, found {now}")
        load_checkpoint(folder.checkpoint, self._parts, device=self.device)
        return self

    def resume(self) -> Self:
        """Go back to the checkpoint of this fit's own folder, or begin there if it has none.

        Rows of metrics.csv after the checkpoint are forgotten.

        Raises:
            UsageError: As for `restore`, or the run is one of another number of processes.
        """
        if not self.folder.checkpoint.exists():
            return self.begin(restart=True)
        was = self.folder.read_json("config.json").get("processes", 1)
        if was != processes.count():
            started = f"torchrun --nproc-per-node {was}" if was != 1 else "python"
            raise UsageError(
                f"{self.folder.path}: is a run of {was} processes, found {processes.count()}; it goes on by {started}"
            )
        self.folder.lock()
        self.restore(self.folder)
        self.folder.write_rows(self.history.rows)
        self._begun = True
        return self

    def save(self, out: Path | str) -> Self:
        """Write this fit into a new run folder, from which `load` makes it again."""
        folder = RunFolder(Path(out))
        folder.create(config_of(self))
        self.folder, self._begun = folder, True
        self.folder.write_rows(self.history.rows)
        self._save_checkpoint()
        self.folder.unlock()
        return self

    def unite(self) -> None:
        """Broadcast the first process's networks and running statistics."""
        modules = [part for part in self._parts.values() if isinstance(part, nn.Module)]
        # Of their states, not all of their buffers: what is not part of those may be there on one process alone.
        processes.broadcast(value for module in modules for value in module.state_dict().values())

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluation and pictures: modules in eval mode, no gradients, no validation, random numbers of their own."""
        with (
            evaluating(*self.pieces.values()),
            forked(self.settings["seed"], self.device),
            pyro.validation_enabled(False),
            torch.no_grad(),
        ):
            yield

    def _row(self, row: dict[str, float]) -> None:
        row |= self.measured()  # the history's own row, so that a checkpoint has it too
        if self.folder:
            self.folder.append(row)
        if self._events:
            self._events.row(row)
        remark = None if self._remarked else self.remark()
        if remark:
            self._remarked = True
            tqdm.write(remark, file=sys.stderr)

    def _save_checkpoint(self) -> None:
        self.unite()
        check_finite(*self.pieces.values(), step=max(self.history.step - 1, 0))
        save_checkpoint(self.folder.checkpoint, self._parts)

    def _first_not_finite(self, step: int) -> str:
        """Replay the run from its checkpoint to the step that diverged, and say what was first."""
        if self.folder is None or not self.folder.checkpoint.exists():
            return " (where a run folder has a checkpoint, the site is named)"
        load_checkpoint(self.folder.checkpoint, self._parts, device=self.device)

        def once() -> None:
            self._step.before(self.history.step, self.settings["steps"])
            self.history.record(self._step(*(next(self._stream) for _ in range(self._step.batches))))

        first = replay(once, self.history, until=step)
        return f", {first}; {self.folder.checkpoint} is of before"
