"""A fit: a model, a guide and an objective in training on a data set, and everything that can be asked of them."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from guides.echo import echo_of
from guides.evidence import Evidence, bounds, importance_sample, joined, posterior_for
from guides.free import Rows
from guides.objectives import ELBO, Objective
from guides.refine import Refinement
from guides.rules import Adam
from guides.sites import Program
from guides.terms import Terms
from ppl_models import Batch, UsageError
from runners import pictures, summary
from runners.check import rehearse
from runners.data import DataSet, head
from runners.devices import device_or_default, placed
from runners.inference import InferenceStep
from runners.loop import processes
from runners.run import Run

__all__ = ["ADAM", "REPORT", "Fit", "settled"]

ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.9), fused=True)
"""The courses' Adam, updating all parameters in one call."""

REPORT = Refinement(steps=200, rule=Adam(lr=0.1, betas=(0.8, 0.95)), final=0.01, decay=0.0)
"""How free rows are refined for reports."""

REMEMBERED = 1000
"""Training data of whose codes Echo noise is made in evaluation."""


def settled(images: Any) -> Any:
    """Images that are the same each time they are asked for: of those drawn anew, one draw, from one seed.

    What is measured of several guides, or in several ways, is then about the same data.
    """
    return images.drawn_once(seed=0) if getattr(images, "fresh", False) else images


def _check_shared(guide: Program, objective: Objective) -> None:
    """Refuse what needs whole batches, where several processes have parts of them.

    Raises:
        UsageError: The guide or the objective does.
    """
    if getattr(guide, "carried", False):
        raise UsageError("carried: rows are of a whole batch's positions, and several processes have parts of it")
    if getattr(objective, "free_bits", 0):
        raise UsageError(
            "free_bits: are of a whole batch's mean KL, and several processes have parts of it; expected 0"
        )


class Fit(Run):
    """A model, a guide and an objective in training; `run` trains, `swap` puts another guide to the same model.

    Training is in place: the model and the guide that were given are the ones that are trained.

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
        graph: Whether steps are recorded as a CUDA graph; by default where that is possible.
        device: Where to train; by default CUDA where there is one.
        out: The run folder to write.
        origin: What to add to config.json.
        progress: Whether to show a progress bar.
        tensorboard: Whether rows and pictures are written into the run folder as TensorBoard's events too.

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
        graph: bool | None = None,
        device: torch.device | str | None = None,
        out: Path | str | None = None,
        origin: dict[str, Any] | None = None,
        progress: bool = True,
        tensorboard: bool = False,
    ) -> None:
        device = device_or_default(device)
        data, objective = data.to(device), ELBO() if objective is None else objective
        self.model, self.guide, self.objective = (placed(piece, device) for piece in (model, guide, objective))
        if not callable(model) or not callable(guide):
            raise UsageError(f"expected a model and a guide, found {type(model).__name__} and {type(guide).__name__}")
        if isinstance(self.guide, Rows):
            self.guide.check_rows(data.train.index, batch=batch)
        if (echo := echo_of(self.guide)) is not None:
            echo.check_batch(batch // processes.count())
        if processes.count() > 1:
            _check_shared(self.guide, self.objective)
        if pictures and not hasattr(model, "decode"):
            raise UsageError("pictures: the model has no decode(latents, y), the likelihood that images are drawn from")
        modules = [self.model, self.guide] if train_model else [self.guide]
        # A ModuleList names a parameter that both share once.
        trained = list(nn.ModuleList(m for m in modules if isinstance(m, nn.Module)).parameters())
        made = optimizer(trained) if trained else None
        autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
        step = InferenceStep(self.model, self.guide, self.objective, made, clip=clip, autocast=autocast, device=device)
        super().__init__(
            {"model": self.model, "guide": self.guide, "objective": self.objective},
            step,
            data,
            parts={"optimizer": made},
            frozen=[] if train_model else [self.model],
            settings={
                "steps": steps,
                "batch": batch,
                "optimizer": optimizer,
                "clip": clip,
                "precision": precision,
                "train_model": train_model,
                "every": every,
                "pictures": pictures,
                "seed": seed,
            },
            graph=graph,
            device=device,
            out=out,
            origin=origin,
            progress=progress,
            tensorboard=tensorboard,
        )

    def __repr__(self) -> str:
        made = f"{type(self.guide).__name__} for {type(self.model).__name__} on {self.data.name}"
        return f"Fit({made}, {self.told})"

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
        kept = self.settings | {"graph": self.graph, "device": self.device, "progress": self.progress}
        return Fit(model, guide, self.data, objective or copy.deepcopy(self.objective), **(kept | settings))

    def posterior(self, batch: Batch, *, updates: int | None = None, rows: bool = False) -> Program:
        """The guide for a batch; free rows start from the prior, or with `rows` from the table, and are refined."""
        return posterior_for(self.model, self.guide, batch, **self._refinement(updates, rows=rows))

    def bounds(
        self, images: Any, *, particles: int = 1, updates: int | None = None, rows: bool = False, size: int = 500
    ) -> Terms:
        """The bound of each image and its parts, `(images,)`, with noise that no refinement has seen, in float32.

        Of several processes each measures its share of the images, and all get all figures, those of one process.

        Args:
            images: A split, such as `fit.data.test.first(1000)`.
            particles: Samples of the latents per image.
            updates: Gradient steps for free rows; by default 200.
            rows: Whether free rows start where training left them, for training images, instead of from the prior.
            size: Images at a time.
        """
        posterior = partial(self.posterior, updates=updates, rows=rows)
        return self._shared(images, size, partial(bounds, self.model, posterior, particles=particles))

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
        posterior = partial(self.posterior, updates=updates, rows=rows)
        measure = partial(importance_sample, self.model, posterior, samples=samples, seed=seed)
        return self._shared(images, size, measure, bar="evidence")

    @torch.no_grad()
    def samples(self, count: int, *, seed: int = 0) -> Tensor:
        """Images from the model, `(count, C, H, W)` in [0, 1]: pixels where the data are binary, else means.

        Labels, where the model takes them, are those of the first test images; with Echo the codes are its own.

        Args:
            count: How many.
            seed: Of the latents and pixels.
        """
        return pictures.samples(self, count, seed=seed)

    def remark(self) -> str | None:
        """What the objective has to say about the run so far, such as that its target is out of reach."""
        return self.objective.remark(self.history.rows) if hasattr(self.objective, "remark") else None

    def result(self, **settings: Any) -> dict[str, Any]:
        """The final figures, as in result.json; the settings are those of `summary.result`."""
        return summary.result(self, **settings)

    def show(self) -> Figure:
        """Test images, their reconstructions and samples from the prior, in one picture."""
        return pictures.image_figures(self)["images"]

    def curves(self) -> Figure:
        """The bound and its parts against the step, and the target of a constraint where there is one."""
        return summary.curves(self)

    def final_figures(self, found: dict[str, Any]) -> dict[str, Figure]:
        """The curves, and where images can be decoded, images."""
        return summary.final_figures(self)

    def check(self) -> None:
        """Ask the objective once for its loss on two images.

        Raises:
            UsageError: The pieces do not fit together.
        """
        batch = head(self.data.train, 2)
        with self._step.autocast():
            self._step.before(0, max(self.settings["steps"], 1))
            rehearse(self.model, self.guide, self.objective, batch)

    def draw(self, step: int) -> None:
        """Draw predictive samples into the run folder."""
        pictures.draw_predictive(self, step)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """As every run's, with Echo making its noise of the codes of training data."""
        with super().aside():
            echo = echo_of(self.guide)
            if echo is not None:
                batch = head(self.data.train, REMEMBERED)
                echo.remember(self.guide.start(batch), batch.index)
            yield

    def unite(self) -> None:
        """As every run's; free rows are those of the process whose shard they are of, the only one that moves them."""
        owners = range(processes.count() if processes.count() > 1 and isinstance(self.guide, Rows) else 0)
        for owner in owners:
            batch = Batch(None, None, processes.shard(self.data.train, owner=owner).index)
            rows = self.guide.rows(batch)
            processes.broadcast(rows.values(), source=owner)
            self.guide.store(batch, rows, {})
        super().unite()

    def _shared(self, images: Any, size: int, measure: Callable[..., Any], *, bar: str | None = None) -> Any:
        """Figures of images: of several processes each measures a share of their batches, and all get all figures."""
        first, last = processes.share(math.ceil(len(images) / size))
        images, mine = settled(images), None
        if processes.count() > 1:
            images = images.part(first * size, min(last * size, len(images)))
        if last > first:
            with self.aside():
                batches = tqdm(
                    images.in_order(size), bar, last - first, leave=False, disable=not (bar and self.progress)
                )
                mine = measure(batches, passed=first)
        found = [figures for figures in processes.gathered(mine) if figures is not None]
        return found[0] if len(found) == 1 else joined(found)

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
