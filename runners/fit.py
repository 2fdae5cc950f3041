"""A fit: a model, a guide and an objective in training on a data set, and everything that can be asked of them."""

import copy
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

from guides.evidence import bounds, inferred
from guides.objectives import ELBO, Objective, Terms
from guides.predictive import interpolation, predictive
from guides.refine import Adam, Refinement
from guides.sites import FiniteSites, Program
from ppl_models import Batch, UsageError
from runners import figures
from runners.data import DataSet
from runners.loop.blueprint import describe
from runners.loop.checkpoint import Part, load_checkpoint, save_checkpoint
from runners.loop.folder import RunFolder
from runners.loop.history import Diverged, History
from runners.loop.inference import InferenceStep
from runners.loop.random import RandomState, forked
from runners.loop.train import train

__all__ = ["ADAM", "REPORT", "Fit", "default_device"]

ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.9), fused=True)
"""The courses' Adam, updating all parameters in one call."""

REPORT = Refinement(steps=200, rule=Adam(lr=0.1, betas=(0.8, 0.95)), final=0.01, decay=0.0)
"""How rows that start from the prior are refined for reports."""

Precision = Literal["float32", "bf16"]


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Fit:
    """A model, a guide and an objective in training; `run` trains, `swap` puts another guide to the same model.

    Made by `svi.fit`, which names the settings. Training is in place: the model and the guide that were given are
    the ones that are trained. Everything random comes from a state of its own, so that what is done between two
    runs changes nothing in them.

    Attributes:
        model: The Pyro model.
        guide: The guide.
        data: The data set, on the device.
        objective: The objective.
        history: Rows of training figures and the number of steps done.
        folder: The run folder, or `None`.
        stopped: The signal that ended the last run early, or `None`.
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
        precision: Precision = "float32",
        train_model: bool = True,
        every: int = 100,
        pictures: int = 0,
        seed: int = 0,
        device: torch.device | str | None = None,
        out: Path | str | None = None,
        note: dict[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        self.device = default_device() if device is None else torch.device(device)
        self.data = data.to(self.device)
        self.model, self.guide = self._placed(model), self._placed(guide)
        self.objective = ELBO() if objective is None else objective
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
        self.note, self.progress, self.stopped = dict(note or {}), progress, None
        self.folder = None if out is None else RunFolder(Path(out))
        self.history = History()
        if hasattr(self.guide, "check_rows"):
            self.guide.check_rows(self.data.train.index)
        modules = [self.guide] if not train_model else [self.model, self.guide]
        # A ModuleList names a parameter that both share once.
        trained = list(nn.ModuleList(m for m in modules if isinstance(m, nn.Module)).parameters())
        step_optimizer = optimizer(trained) if trained else None
        self._stream = self.data.train.batches(batch, torch.Generator().manual_seed(seed))
        self._step = InferenceStep(
            self.model,
            self.guide,
            self.objective,
            step_optimizer,
            clip=clip,
            autocast=partial(torch.autocast, self.device.type, torch.bfloat16, enabled=precision == "bf16"),
            device=self.device,
        )
        self._random = RandomState(seed, self.device)
        self._parts: dict[str, Part] = {"history": self.history, "stream": self._stream, "random": self._random}
        named = {"model": self.model, "guide": self.guide, "objective": self.objective, "optimizer": step_optimizer}
        self._parts |= {name: part for name, part in named.items() if hasattr(part, "state_dict")}

    def __repr__(self) -> str:
        made = f"{type(self.guide).__name__} for {type(self.model).__name__} on {self.data.name}"
        final = ", ".join(f"{k} {v:.2f}" for k, v in self.history.final().items())
        return f"Fit({made}, {self.history.step:,} steps{': ' if final else ''}{final})"

    def run(self, steps: int | None = None) -> Self:
        """Train: for `steps` more steps, or to the end of the fit. Ctrl-C keeps what is trained.

        Raises:
            UsageError: The numbers left the finite ones, or the run folder cannot be written.
        """
        if steps is not None:
            self.settings["steps"] = self.history.step + steps
        if self.folder and not self.folder.holds_run:
            self.folder.create(self.config())
        with self._random.active():
            try:
                self.stopped = train(
                    self._step,
                    self._stream,
                    self.history,
                    until=self.settings["steps"],
                    every=self.settings["every"],
                    save=self._save_checkpoint if self.folder else None,
                    on_row=self.folder.append if self.folder else None,
                    on_step=self._picture if self.folder and self.settings["pictures"] else None,
                    progress=self.progress,
                )
            except Diverged as error:
                raise UsageError(f"{error}{self._first_not_finite(error.step)}") from error
        return self

    def swap(
        self,
        guide: Program,
        objective: Objective | None = None,
        *,
        copy_model: bool = False,
        **settings: Any,
    ) -> "Fit":
        """A new fit of the same model object, not yet run, with another guide, and perhaps another objective.

        Args:
            guide: The guide.
            objective: By default this fit's.
            copy_model: Whether the new fit gets a copy of the model, so that this one's stays as it is.
            settings: Those of `svi.fit`, by default this fit's; `train_model=False` freezes the model.
        """
        model = copy.deepcopy(self.model) if copy_model else self.model
        kept = self.settings | {"device": self.device, "progress": self.progress, "note": self.note}
        return Fit(model, guide, self.data, objective or copy.deepcopy(self.objective), **(kept | settings))

    def posterior(self, batch: Batch, *, updates: int | None = None) -> Program:
        """The guide for images that it was not trained on: free rows start from the prior and are refined."""
        return inferred(self.model, self.guide, batch, **self._refinement(updates))

    def bounds(
        self, images: Any, *, particles: int = 1, updates: int | None = None, rows: bool = False, size: int = 500
    ) -> Terms:
        """The bound of each image and its parts, `(images,)`, with noise that no refinement has seen.

        Args:
            images: A split, such as `fit.data.test.first(1000)`.
            particles: Samples of the latents per image.
            updates: Gradient steps for free rows; by default 200.
            rows: Whether free rows start where training left them, for training images, instead of from the prior.
            size: Images at a time.
        """
        with self._aside():
            batches = images.in_order(size)
            refinement = self._refinement(updates, rows=rows)
            return bounds(self.model, self.guide, batches, particles=particles, **refinement)

    def result(self, *, images: int | None = None, updates: int | None = None) -> dict[str, Any]:
        """The final figures: training, and the test set or its first `images`, in nats per image."""
        free = hasattr(self.guide, "prior")
        count = len(self.data.test) if images is None and not free else min(images or 1000, len(self.data.test))
        test = self.data.test.first(count)
        result = {
            "data": self.data.name,
            "binarize": self.data.binarize,
            **self.note,
            "steps": self.history.step,
            "seconds": round(self.history.seconds, 1),
            "train": self.history.final(),
            "test": _summary(self.bounds(test, updates=updates)),
        }
        if free:
            refined = min(count, len(self.data.train))
            result["train_refined"] = _summary(self.bounds(self.data.train.first(refined), updates=updates, rows=True))
            result["updates"] = updates or REPORT.steps
        return result

    def figures(self) -> dict[str, Figure]:
        """The pictures of a finished run by name: curves, images, an interpolation."""
        return {"curves": figures.curves(self.history.rows), **self._image_figures()}

    def show(self) -> Figure:
        """Test images, their reconstructions and samples from the prior, in one picture."""
        return self._image_figures()["images"]

    def restore(self, folder: RunFolder) -> Self:
        """Go back to a run folder's checkpoint, and read the rows up to it; the folder stays as it is."""
        load_checkpoint(folder.checkpoint, self._parts, device=self.device)
        self.history.rows = folder.rows(until=self.history.step)
        return self

    def resume(self) -> Self:
        """Go back to the checkpoint of this fit's own folder; rows of metrics.csv after it are forgotten."""
        self.restore(self.folder)
        self.folder.cut_back(self.history.step)
        return self

    def save(self, out: Path | str) -> Self:
        """Write this fit into a new run folder, from which `svi.load` makes it again."""
        self.folder = RunFolder(Path(out))
        self.folder.create(self.config())
        for row in self.history.rows:
            self.folder.append(row)
        self._save_checkpoint()
        return self

    def config(self) -> dict[str, Any]:
        """Everything that this fit was made from, as JSON."""
        versions = {"torch": torch.__version__, "pyro": pyro.__version__}
        return {
            "model": describe(self.model),
            "guide": describe(self.guide),
            "objective": describe(self.objective),
            "data": {"name": self.data.name, "binarize": self.data.binarize},
            **{name: describe(value) for name, value in self.settings.items()},
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": versions,
            "note": self.note,
        }

    def _placed(self, program: Program) -> Program:
        if isinstance(program, nn.Module):
            program = program.to(self.device, memory_format=torch.channels_last)
        return program

    def _refinement(self, updates: int | None, *, rows: bool = False) -> dict[str, Any]:
        if hasattr(self.guide, "prior"):
            start = self.guide.start if rows else self.guide.prior
            return {"refinement": _with_steps(REPORT, updates), "start": start}
        refinement = getattr(self.guide, "refinement", None)
        return {"refinement": refinement and _with_steps(refinement, updates)}

    def _save_checkpoint(self) -> None:
        save_checkpoint(self.folder.checkpoint, self._parts)

    def _first_not_finite(self, step: int) -> str:
        """Replay the run from its checkpoint to the step that diverged, and say what was first."""
        if self.folder is None:
            return " (with a run folder, out=..., the site would be named)"
        load_checkpoint(self.folder.checkpoint, self._parts, device=self.device)
        while self.history.step < step:
            self._step.before(self.history.step, self.settings["steps"])
            self.history.record(self._step(next(self._stream)))
        try:
            with FiniteSites():
                self._step(next(self._stream))
        except FloatingPointError as error:
            return f", first in {error}; {self.folder.checkpoint} is of an earlier step"
        return f", though every site is finite; {self.folder.checkpoint} is of an earlier step"

    def _picture(self, step: int) -> None:
        if step % max(self.settings["steps"] // self.settings["pictures"], 1) == 0:
            picture = self._image_figures(drawn=True)["images"]
            figures.save(picture, self.folder.path / f"predictive_{step:06d}.png")

    def _image_figures(self, *, drawn: bool = False) -> dict[str, Figure]:
        """Pictures of the first test images and of the prior; `drawn`, of pixels sampled instead of their means."""
        with self._aside():
            batch = next(self.data.test.first(min(32, len(self.data.test))).in_order(32))
            posterior = self.posterior(batch)
            again = predictive(self.model, posterior, batch)
            samples = predictive(self.model, self.model, batch._replace(x=None))
            if drawn:
                panels = {"data": batch.x, "posterior predictive": again.sample(), "prior predictive": samples.sample()}
                return {"images": figures.panels(panels)}
            strips, weights = interpolation(self.model, posterior, batch)
            panels = {"data": batch.x, "reconstructions": again.mean, "samples": samples.mean}
            return {
                "images": figures.panels(panels),
                "interpolation": figures.interpolation(strips[:8], weights=weights),
            }

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Evaluation and pictures: no gradients, no validation, and a random state that the run does not see."""
        with forked(self.settings["seed"], self.device), pyro.validation_enabled(False), torch.no_grad():
            yield


def _summary(parts: Terms) -> dict[str, float]:
    """Means over the data and their standard errors, in nats."""
    named = {"elbo": parts.elbo, "log_likelihood": parts.log_likelihood, "kl": parts.kl}
    summary = {"images": len(parts.kl)}
    for name, values in named.items():
        values = values.double()
        summary[name] = float(values.mean())
        summary[f"{name}_se"] = float(values.std() / len(values) ** 0.5)
    return summary


def _with_steps(refinement: Refinement, steps: int | None) -> Refinement:
    return refinement if steps is None else replace(refinement, steps=steps)
