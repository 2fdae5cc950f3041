"""A character model in training on a text, and what can be asked of it."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from guides.objectives import Schedule
from guides.sites import Program
from ppl_models import Batch, CharGRU, UsageError
from runners import text_summary
from runners.best import Best
from runners.data import DataSet
from runners.reading import surprise
from runners.run import Run, device_or_default, placed
from runners.text_step import TextStep, log_likelihood
from runners.writing import write

__all__ = ["ADAM", "TextFit"]

ADAM = partial(torch.optim.Adam, lr=2e-3, fused=True)

HELD_OUT = 100_000
"""Characters of the test text that are looked at during training, at most."""

ROWS = 20
"""Parts in which they are read, side by side."""


class TextFit(Run):
    """A character model in training, in place; `run` trains it.

    Args:
        model: The model.
        data: A text: see `corpus`.
        steps: Steps of the whole fit.
        batch: Sequences per step.
        optimizer: A function of the parameters; by default Adam of lr 2e-3.
        schedule: What its step size is multiplied by, a function of the step n and the steps N.
        clip: The global norm that gradients are clipped to.
        precision: Of the network; log-probabilities stay in float32.
        every: Steps between rows of the history, at most 1000; at each the test text is looked at.
        seed: Of the order of sequences, where that is random, and of all noise.
        device: Where to train; by default CUDA where there is one.
        out: The run folder to write.
        origin: What to add to config.json.
        progress: Whether to show a progress bar.

    Attributes:
        best: The model of the least surprise at a look, and what that was.

    Raises:
        UsageError: The pieces or the settings do not fit together.
    """

    def __init__(
        self,
        model: CharGRU,
        data: DataSet,
        *,
        steps: int = 3000,
        batch: int = 64,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = ADAM,
        schedule: Schedule | None = None,
        clip: float | None = 1.0,
        precision: Literal["float32", "bf16"] = "float32",
        every: int = 100,
        seed: int = 0,
        device: torch.device | str | None = None,
        out: Path | str | None = None,
        origin: dict[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        device = device_or_default(device)
        data = data.to(device)
        if model.alphabet != data.train.alphabet:
            raise UsageError(f"the model's alphabet is {model.alphabet!r}, the text's {data.train.alphabet!r}")
        self.model = placed(model, device)
        self.best = Best("nats_per_character")
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
        made = optimizer(self.model.parameters())
        step = TextStep(self.model, made, schedule=schedule, clip=clip, autocast=self.autocast)
        super().__init__(
            {"model": self.model},
            step,
            data,
            parts={"optimizer": made, "best": self.best},
            settings={
                "steps": steps,
                "batch": batch,
                "optimizer": optimizer,
                "schedule": schedule,
                "clip": clip,
                "precision": precision,
                "every": every,
                "length": data.train.length,
                "order": data.train.order,
                "seed": seed,
                "pictures": 0,
            },
            device=device,
            out=out,
            origin=origin,
            progress=progress,
        )
        step.stream = self._stream

    def __repr__(self) -> str:
        final = ", ".join(f"{name} {value:.3f}" for name, value in self.history.final().items())
        return f"TextFit({self.data.name}, {self.history.step:,} steps{': ' if final else ''}{final})"

    def check(self) -> None:
        """Observe two sequences, as the first step will."""
        length = min(self.data.train.length, len(self.data.train) - 1)
        x = self.data.train.codes[: length + 1].long().expand(2, -1)
        with self.autocast():
            log_likelihood(self.model, Batch(x, None, torch.arange(2, device=self.device)))

    def measured(self) -> dict[str, float]:
        """The test text's nats per character, of at most 100 000, read in 20 parts side by side; the best is kept."""
        held = self.data.test.first(HELD_OUT)
        with self.aside():
            found = float(surprise(self.model, held, rows=max(min(ROWS, len(held) // 2), 1)).mean())
        self.best.take(found, self.model, step=self.history.step)
        return {"held_out": found}

    def trained(self, which: Literal["last", "best"] = "last") -> Program:
        """A copy of the model in eval mode: as it is, or the best that was seen.

        Raises:
            UsageError: None was seen.
        """
        made = copy.deepcopy(self.model).eval()
        if which == "best":
            if self.best.best is None:
                raise UsageError("best: no model was looked at in this run yet")
            made.load_state_dict(self.best.best)
        return made

    def surprise(self, text: Any = None, *, which: Literal["last", "best"] = "last", rows: int = 1) -> Tensor:
        """Nats of each character of a text, the test text by default, the state carried: see `surprise`."""
        with self.aside():
            return surprise(self.trained(which), self.data.test if text is None else text, rows=rows)

    def write(self, count: int = 500, *, which: Literal["last", "best"] = "last", **settings: Any) -> str:
        """Text from the model; the settings are those of `writing.write`."""
        return "".join(self.stream(count, which=which, **settings))

    def stream(self, count: int, *, which: Literal["last", "best"] = "last", **settings: Any) -> Iterator[str]:
        """The same a character at a time, as each is drawn."""
        model = self.trained(which)
        for codes, _ in write(model, count, **settings):
            yield model.decode(codes.tolist())

    def result(self) -> dict[str, Any]:
        """The final figures, as in result.json."""
        return text_summary.result(self)

    def show(self) -> Figure:
        """The test text's first characters, coloured by how much each surprises the model."""
        return text_summary.surprise_figure(self)

    def report(self) -> dict[str, Any]:
        """Write result.json, the pictures and report.html into the run folder; returns the final figures.

        Raises:
            UsageError: There is no run folder.
        """
        if self.folder is None:
            raise UsageError("report: this fit has no run folder; give it one with save(folder) or out=folder")
        return text_summary.write(self)
