"""A character model in training on a text, and what can be asked of it."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from guides.objectives import Schedule
from ppl_models import Batch, CharGRU, UsageError
from runners import text_summary
from runners.best import Best
from runners.data import DataSet, Text
from runners.devices import device_or_default, placed
from runners.reading import surprise
from runners.run import Run
from runners.text_step import TextStep, log_likelihood
from runners.writing import write

__all__ = ["ADAM", "TextFit"]

ADAM = partial(torch.optim.Adam, lr=2e-3, fused=True)

HELD_OUT = 120_000
"""Characters of the test text that are looked at during training, at most."""

ROWS = 20
"""Parts in which they are read, side by side."""

SHORTEST = 1000
"""Characters of such a part: in shorter ones their beginnings, from a state of zeros, would decide."""


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
        tensorboard: Whether rows and pictures are written into the run folder as TensorBoard's events too.

    Attributes:
        best: The model of the least surprise at a look, and what that was.

    Raises:
        UsageError: The pieces or the settings do not fit together.
    """

    digits = 3

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
        tensorboard: bool = False,
    ) -> None:
        device = device_or_default(device)
        data = data.to(device)
        if getattr(model, "alphabet", None) != data.train.alphabet:
            raise UsageError("the model's alphabet is not the text's: CharGRU(data.train.alphabet) has that")
        if clip is not None and not clip > 0:
            raise UsageError(f"clip: found {clip}, expected a norm above 0, or None")
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
            tensorboard=tensorboard,
        )
        step.stream = self._stream

    def __repr__(self) -> str:
        return f"TextFit({self.data.name}, {self.told})"

    def check(self) -> None:
        """Observe two sequences, as the first step will.

        Raises:
            UsageError: The model has latents, observes nothing, or returns no state.
        """
        length = min(self.data.train.length, len(self.data.train) - 1)
        x = self.data.train.codes[: length + 1].long().expand(2, -1)
        with self.autocast():
            _, state = log_likelihood(self.model, Batch(x, None, torch.arange(2, device=self.device)))
        if not isinstance(state, Tensor) or len(state) != 2:
            raise UsageError("the model returns no state, expected a tensor with a row for each sequence")

    def measured(self) -> dict[str, float]:
        """The test text's nats per character, of at most 120 000, in 20 parts or fewer, side by side; best is kept."""
        held = self.data.test.first(HELD_OUT)
        with self.aside():
            found = float(surprise(self.model, held, rows=max(min(ROWS, len(held) // SHORTEST), 1)).mean())
        self.best.take(found, self.model, step=self.history.step)
        return {"held_out": found}

    def trained(self, which: Literal["last", "best"] | None = None) -> CharGRU:
        """A copy of the model in eval mode: as it is, or the best that was seen, by default that where there is one.

        Raises:
            UsageError: There is none of that kind.
        """
        if which not in ("last", "best", None):
            raise UsageError(f"which: found {which!r}, expected last or best")
        if which == "best" and self.best.state is None:
            raise UsageError("best: no model was looked at in this run yet")
        made = copy.deepcopy(self.model).eval()
        if which != "last" and self.best.state is not None:
            made.load_state_dict(self.best.state)
        return made

    def surprise(
        self, text: Text | str | None = None, *, which: Literal["last", "best"] | None = None, rows: int = 1
    ) -> Tensor:
        """Nats of each character of a text but the first, by default the test text, `(rows, characters)`.

        The state is carried; the other arguments are those of `reading.surprise` and `trained`.
        """
        model = self.trained(which)
        if isinstance(text, str):
            text = replace(self.data.test, codes=model.codes_of(text).to(self.device, torch.int32))
        with self.aside():
            return surprise(model, self.data.test if text is None else text, rows=rows)

    def write(self, count: int = 500, *, which: Literal["last", "best"] | None = None, **settings: Any) -> str:
        """Text from the model; the settings are those of `writing.write`."""
        model = self.trained(which)
        return "".join(model.text_of(codes.tolist()) for codes, _ in write(model, count, **settings))

    def result(self) -> dict[str, Any]:
        """The final figures, as in result.json, in nats per character."""
        return text_summary.result(self)

    def show(self, passage: str | None = None) -> Figure:
        """A passage, by default of the test text, coloured by how much each character surprises the model."""
        return text_summary.surprise_figure(self, passage)

    def curves(self) -> Figure:
        """Nats per character of training and, at each row, of the test text against the step."""
        return text_summary.curves(self)

    def final_figures(self, found: dict[str, Any]) -> dict[str, Figure]:
        """The curves, what temperatures do, and a passage coloured by its surprise."""
        return text_summary.final_figures(self, found)

    def report(self) -> dict[str, Any]:
        """As every run's; the texts of all temperatures are in texts.txt."""
        found = super().report()
        text_summary.write_texts(self.folder.path / "texts.txt", found["temperatures"])
        return found
