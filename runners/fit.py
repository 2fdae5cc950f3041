"""A fit: a model, a guide and an objective in training on a data set, and everything that can be asked of them."""

import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import pyro
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from guides.echo import echo_of
from guides.evidence import Evidence, bounds, importance_sample, posterior_for
from guides.free import Rows
from guides.objectives import ELBO, Objective
from guides.refine import Refinement
from guides.rules import Adam
from guides.sites import Program
from guides.terms import Terms
from ppl_models import Batch, UsageError
from runners import pictures, summary
from runners.blueprint import config_of
from runners.check import rehearse
from runners.data import DataSet
from runners.divergence import check_finite, is_divergence, replay
from runners.inference import InferenceStep, evaluating
from runners.loop.checkpoint import Part, load_checkpoint, save_checkpoint
from runners.loop.errors import first_line
from runners.loop.folder import RunFolder
from runners.loop.history import WINDOW, Diverged, History
from runners.loop.random import RandomState, forked
from runners.loop.train import train

__all__ = ["ADAM", "REPORT", "Fit", "default_device"]

ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.9), fused=True)
"""The courses' Adam, updating all parameters in one call."""

REPORT = Refinement(steps=200, rule=Adam(lr=0.1, betas=(0.8, 0.95)), final=0.01, decay=0.0)
"""How free rows are refined for reports."""

REMEMBERED = 1000
"""Training data of whose codes Echo noise is made in evaluation."""


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Fit:
    """A model, a guide and an objective in training; `run` trains, `swap` puts another guide to the same model.

    Training is in place: the model and the guide that were given are the ones that are trained. Everything random
    comes from a state of its own, so that what is done between two runs changes nothing in them.

    Args:
        model: A Pyro model of one `Batch`.
        guide: A Pyro guide of one `Batch` with the same latent sites.
        data: The data set.
        objective: What to minimise; the ELBO by default.
        steps: Steps of the whole fit, N of the schedules.
        batch: Data per step.
        optimizer: A function of the parameters; by default Adam of lr 1e-3, betas 0.9 and 0.9.
        clip: The global norm that gradients are clipped to.
        precision: Of the networks; densities stay in float32.
        train_model: Whether the model is trained along with the guide.
        every: Steps between rows of the history, at most 1000.
        pictures: How many pictures of predictive samples to draw during training, into the run folder.
        seed: Of the order of the data and of all noise.
        device: Where to train; by default CUDA where there is one.
        out: The run folder to write.
        origin: What to add to config.json.
        progress: Whether to show a progress bar.

    Attributes:
        history: Rows of training figures and the number of steps done.
        folder: The run folder, or `None`.
        stopped: The signal that ended the last run early, or `None`.

    Raises:
        UsageError: The pieces do not fit together.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        data: DataSet,
        objective: Objective | None = None,
        *,
        steps: int = 10_000,
        batch: int = 64,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = ADAM,
        clip: float | None = None,
        precision: Literal["float32", "bf16"] = "float32",
        train_model: bool = True,
        every: int = 100,
        pictures: int = 0,
        seed: int = 0,
        device: torch.device | str | None = None,
        out: Path | str | None = None,
        origin: dict[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        # Through a tensor, since "cuda" and "cuda:0" are different devices to torch until one is made.
        self.device = torch.empty(0, device=device or default_device()).device
        self.data = data.to(self.device)
        self.model, self.guide = self._placed(model), self._placed(guide)
        self.objective = self._placed(ELBO() if objective is None else objective)
        self.settings = {
            "steps": steps,
            "batch": batch,
            "optimizer": optimizer,
            "clip": clip,
            "precision": precision,
            "train_model": train_model,
            "every": every,
            "pictures": pictures,
            "seed": seed,
        }
        if not 1 <= every <= WINDOW:
            raise UsageError(f"every: found {every}, expected 1 to {WINDOW} steps between rows")
        if steps < 0 or precision not in ("float32", "bf16"):
            raise UsageError(f"steps, precision: found {steps}, {precision!r}, expected 0 or more, 'float32' or 'bf16'")
        if not callable(model) or not callable(guide):
            raise UsageError(f"expected a model and a guide, found {type(model).__name__} and {type(guide).__name__}")
        if isinstance(self.guide, Rows):
            self.guide.check_rows(self.data.train.index, batch=batch)
        if (echo := echo_of(self.guide)) is not None:
            echo.check_batch(batch)
        if pictures and not hasattr(model, "decode"):
            raise UsageError("pictures: the model has no decode(latents, y), the likelihood that images are drawn from")
        self.origin, self.progress, self.stopped = dict(origin or {}), progress, None
        self.folder = None if out is None else RunFolder(Path(out))
        self.history = History()
        self._begun = self._rehearsed = self._remarked = False
        modules = [self.model, self.guide] if train_model else [self.guide]
        # A ModuleList names a parameter that both share once.
        trained = list(nn.ModuleList(m for m in modules if isinstance(m, nn.Module)).parameters())
        made = optimizer(trained) if trained else None
        autocast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=precision == "bf16")
        self._step = InferenceStep(
            self.model, self.guide, self.objective, made, clip=clip, autocast=autocast, device=self.device
        )
        self._stream = self.data.train.batches(batch, torch.Generator().manual_seed(seed))
        self._random = RandomState(seed, self.device)
        self._parts: dict[str, Part] = {"history": self.history, "stream": self._stream, "random": self._random}
        named = {"model": self.model, "guide": self.guide, "objective": self.objective, "optimizer": made}
        self._parts |= {name: part for name, part in named.items() if hasattr(part, "state_dict")}

    def __repr__(self) -> str:
        made = f"{type(self.guide).__name__} for {type(self.model).__name__} on {self.data.name}"
        final = ", ".join(f"{k} {v:.2f}" for k, v in self.history.final().items())
        return f"Fit({made}, {self.history.step:,} steps{': ' if final else ''}{final})"

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
        frozen = [] if self.settings["train_model"] else [self.model]
        for program in (self.model, self.guide):
            if isinstance(program, nn.Module):
                program.train()  # Echo in eval mode, for one, makes its noise of an old bank
        with self._random.active(), evaluating(*frozen):
            try:
                self.stopped = train(
                    self._step,
                    self._stream,
                    self.history,
                    until=self.settings["steps"],
                    every=self.settings["every"],
                    save=self._save_checkpoint if self.folder else None,
                    on_row=self._row,
                    on_step=self._picture if self.folder and self.settings["pictures"] else None,
                    progress=self.progress,
                )
            except Diverged as error:
                raise UsageError(f"{error}{self._first_not_finite(error.step)}") from error
            except (torch.linalg.LinAlgError, ValueError) as error:
                if not is_divergence(error):
                    raise
                raise UsageError(f"step {self.history.step} left the finite numbers: {first_line(error)}") from error
            finally:
                if self.folder:
                    self.folder.unlock()
        return self

    def swap(
        self, guide: Program, objective: Objective | None = None, *, copy_model: bool = False, **settings: Any
    ) -> "Fit":
        """A new fit of the same model object, not yet run, with another guide, and perhaps another objective.

        Args:
            guide: The guide.
            objective: By default a copy of this fit's, with its multiplier where it has one.
            copy_model: Whether the new fit gets a copy of the model, so that this one's stays as it is.
            settings: Those of `Fit`, by default this fit's; `train_model=False` freezes the model.
        """
        model = copy.deepcopy(self.model) if copy_model else self.model
        settings.setdefault("origin", {name: value for name, value in self.origin.items() if name == "source"})
        kept = self.settings | {"device": self.device, "progress": self.progress}
        return Fit(model, guide, self.data, objective or copy.deepcopy(self.objective), **(kept | settings))

    def posterior(self, batch: Batch, *, updates: int | None = None, rows: bool = False) -> Program:
        """The guide for a batch; free rows start from the prior, or with `rows` from the table, and are refined."""
        return posterior_for(self.model, self.guide, batch, **self._refinement(updates, rows=rows))

    def bounds(
        self, images: Any, *, particles: int = 1, updates: int | None = None, rows: bool = False, size: int = 500
    ) -> Terms:
        """The bound of each image and its parts, `(images,)`, with noise that no refinement has seen, in float32.

        Args:
            images: A split, such as `fit.data.test.first(1000)`.
            particles: Samples of the latents per image.
            updates: Gradient steps for free rows; by default 200.
            rows: Whether free rows start where training left them, for training images, instead of from the prior.
            size: Images at a time.
        """
        with self.aside():
            posterior = partial(self.posterior, updates=updates, rows=rows)
            return bounds(self.model, posterior, images.in_order(size), particles=particles)

    def evidence(
        self,
        images: Any,
        *,
        samples: int = 1000,
        updates: int | None = None,
        rows: bool = False,
        size: int = 100,
        seed: int = 0,
    ) -> Evidence:
        """Importance-sampled log p(x) of each image, `(images,)`, in float32; the arguments are those of `bounds`.

        Raises:
            UsageError: The guide has no density.
        """
        with self.aside():
            posterior = partial(self.posterior, updates=updates, rows=rows)
            count = math.ceil(len(images) / size)
            bar = tqdm(images.in_order(size), "evidence", count, leave=False, disable=not self.progress)
            return importance_sample(self.model, posterior, bar, samples=samples, seed=seed)

    def remark(self) -> str | None:
        """What the objective has to say about the run so far, such as that its target is out of reach."""
        return self.objective.remark(self.history.rows) if hasattr(self.objective, "remark") else None

    def result(self, **settings: Any) -> dict[str, Any]:
        """The final figures, as in result.json; the settings are those of `summary.result`."""
        return summary.result(self, **settings)

    def show(self) -> Figure:
        """Test images, their reconstructions and samples from the prior, in one picture."""
        return pictures.image_figures(self)["images"]

    def report(self, **settings: Any) -> dict[str, Any]:
        """Write result.json, the pictures and report.html into the run folder; returns the final figures.

        The settings are those of `summary.result`.

        Raises:
            UsageError: There is no run folder.
        """
        if self.folder is None:
            raise UsageError("report: this fit has no run folder; give it one with save(folder) or out=folder")
        return summary.write(self, **settings)

    def rehearse(self) -> Self:
        """Run on two images, as `begin` and `run` do by themselves, so that nothing is written for what does not fit.

        Raises:
            UsageError: The pieces do not fit together.
        """
        if not self._rehearsed:
            self._rehearsed = True
            batch = next(self.data.train.first(min(2, len(self.data.train))).in_order(2))
            with self.aside(), torch.enable_grad(), self._step.autocast():
                self._step.before(0, max(self.settings["steps"], 1))
                rehearse(self.model, self.guide, self.objective, batch)
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
        """
        if not self.folder.checkpoint.exists():
            return self.begin(restart=True)
        self.folder.lock()
        self.restore(self.folder)
        self.folder.write_rows(self.history.rows)
        self._begun = True
        return self

    def save(self, out: Path | str) -> Self:
        """Write this fit into a new run folder, from which `svi.load` makes it again."""
        folder = RunFolder(Path(out))
        folder.create(config_of(self))
        self.folder, self._begun = folder, True
        self.folder.write_rows(self.history.rows)
        self._save_checkpoint()
        self.folder.unlock()
        return self

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Evaluation and pictures: modules in eval mode, no gradients, no validation, random numbers of their own."""
        with (
            evaluating(self.model, self.guide),
            forked(self.settings["seed"], self.device),
            pyro.validation_enabled(False),
            torch.no_grad(),
        ):
            echo = echo_of(self.guide)
            if echo is not None:
                first = self.data.train.first(min(REMEMBERED, len(self.data.train)))
                batch = next(first.in_order(REMEMBERED))
                echo.remember(self.guide.start(batch), batch.index)
            yield

    def _row(self, row: dict[str, float]) -> None:
        if self.folder:
            self.folder.append(row)
        remark = None if self._remarked else self.remark()
        if remark:
            self._remarked = True
            tqdm.write(remark, file=sys.stderr)

    def _placed(self, program: Program) -> Program:
        if isinstance(program, nn.Module):
            program = program.to(self.device, memory_format=torch.channels_last)
        return program

    def _refinement(self, updates: int | None, *, rows: bool) -> dict[str, Any]:
        own = getattr(self.guide, "refinement", None)
        if own is None:
            return {}
        free = isinstance(self.guide, Rows)
        refinement = REPORT if free else own
        if updates is not None:
            refinement = replace(refinement, steps=updates)
        start = self.guide.fresh if free and not rows else self.guide.start
        objective = self.objective
        if callable(getattr(objective, "kl_weight", None)):
            objective = ELBO()  # where a schedule happens to end says nothing about the bound that is reported
        return {"refinement": refinement, "objective": objective, "start": start}

    def _save_checkpoint(self) -> None:
        check_finite(self.model, self.guide, step=max(self.history.step - 1, 0))
        save_checkpoint(self.folder.checkpoint, self._parts)

    def _first_not_finite(self, step: int) -> str:
        """Replay the run from its checkpoint to the step that diverged, and say what was first."""
        if self.folder is None or not self.folder.checkpoint.exists():
            return " (where a run folder has a checkpoint, the site is named)"
        load_checkpoint(self.folder.checkpoint, self._parts, device=self.device)

        def once() -> None:
            self._step.before(self.history.step, self.settings["steps"])
            self.history.record(self._step(next(self._stream)))

        first = replay(once, self.history, until=step)
        return f", {first}; {self.folder.checkpoint} is of before"

    def _picture(self, step: int) -> None:
        if step % max(self.settings["steps"] // self.settings["pictures"], 1) == 0:
            pictures.draw_predictive(self, step)
