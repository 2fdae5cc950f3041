"""A GAN in training: a generator, a critic and a loss on a data set, and what can be asked of them."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ppl_models import UsageError
from ppl_models.average import Average
from ppl_models.paths import variance_preserving
from runners import figures, gan_summary
from runners.adversarial_check import check_settings, rehearse
from runners.adversarial_losses import LOSSES, loss_of
from runners.adversarial_step import AdversarialStep
from runners.data import DataSet, Images, head
from runners.devices import device_or_default, placed
from runners.loop import processes
from runners.metrics.classifiers import Trained
from runners.run import Run
from runners.selection import Selection

__all__ = ["GanFit"]

CRITIC = partial(torch.optim.Adam, lr=1e-4, betas=(0.5, 0.9), fused=True)
GENERATOR = partial(torch.optim.Adam, lr=3e-4, betas=(0.9, 0.9), fused=True)

HELD_OUT = 1000
"""Held-out images that the critic is asked about at each row."""

LOOKED_AT = 2000
"""Images by which a generator is judged during training."""

FEWEST = 4
"""Held-out images of which a kernel distance can be estimated."""

CHOOSING = 2**32 - 1
"""The seed of the latents by which the best generator is chosen, far from those that reports use; torch's generator on
the CPU takes 32 bits."""

OF_STEP = ("critic_steps", "generator_steps", "penalty", "r1", "path_energy", "augment")
"""Settings of the step alone."""

SAMPLED = 500
"""Images generated at a time."""


class GanFit(Run):
    """A generator and a critic in training, in place; `run` trains them.

    Args:
        generator: From latents `(*, latents)` to images in [0, 1].
        critic: From images `(B, C, H, W)`, mapped to [-1, 1], to scores `(B,)`.
        data: The data set.
        loss: A name in `LOSSES`.
        steps: Steps of the whole fit, each of `critic_steps` and `generator_steps` updates.
        batch: Real and generated images of an update.
        critic_steps: Updates of the critic in a step.
        generator_steps: Updates of the generator in a step; 0 leaves it as it is.
        penalty: Weight of the gradient penalty, (slope - 1)² between real and generated images.
        r1: Weight of R1, half the squared slope at real images.
        path_energy: Weight of the straight paths' energy over its lower bound, in the generator's loss.
        fuzz: How far the labels of cross-entropy stray from 0 and 1.
        augment: What is done at random to all images that the critic sees, of "color", "translation", "cutout".
        average: Decay of an exponential average of the generator's weights, which samples then come from.
        critic_optimizer: A function of the critic's parameters.
        generator_optimizer: A function of the generator's.
        precision: Of the networks; losses and penalties stay in float32.
        every: Steps between rows of the history, at most 1000.
        pictures: How many pictures of samples to draw during training, into the run folder.
        selection: How often to look for the best generator, by `classifier`.
        classifier: Whose features that is judged by, or a function that makes it when it is needed; another one than
            reports use.
        seed: Of the order of the data and of all noise.
        graph: Whether steps are recorded as a CUDA graph; by default where that is possible.
        device: Where to train; by default CUDA where there is one.
        out: The run folder to write.
        origin: What to add to config.json.
        progress: Whether to show a progress bar.
        tensorboard: Whether rows and pictures are written into the run folder as TensorBoard's events too.

    Raises:
        UsageError: The pieces or the settings do not fit together.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        data: DataSet,
        loss: str = "gan",
        *,
        steps: int = 10_000,
        batch: int = 64,
        critic_steps: int = 1,
        generator_steps: int = 1,
        penalty: float = 0.0,
        r1: float = 0.0,
        path_energy: float = 0.0,
        fuzz: float = 0.0,
        augment: Sequence[str] = (),
        average: float | None = None,
        critic_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = CRITIC,
        generator_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = GENERATOR,
        precision: Literal["float32", "bf16"] = "float32",
        every: int = 100,
        pictures: int = 0,
        selection: int = 0,
        classifier: Trained | Callable[[], Trained] | None = None,
        seed: int = 0,
        graph: bool | None = None,
        device: torch.device | str | None = None,
        out: Path | str | None = None,
        origin: dict[str, Any] | None = None,
        progress: bool = True,
        tensorboard: bool = False,
    ) -> None:
        device = device_or_default(device)
        data = data.to(device)
        self.generator, self.critic, self.loss = placed(generator, device), placed(critic, device), loss
        settings = {
            "loss": loss,
            "steps": steps,
            "batch": batch,
            "critic_steps": critic_steps,
            "generator_steps": generator_steps,
            "penalty": penalty,
            "r1": r1,
            "path_energy": path_energy,
            "fuzz": fuzz,
            "augment": list(augment),
            "average": average,
            "critic_optimizer": critic_optimizer,
            "generator_optimizer": generator_optimizer,
            "precision": precision,
            "every": every,
            "pictures": pictures,
            "selection": selection,
            "seed": seed,
        }
        check_settings(settings)
        if selection and classifier is None:
            raise UsageError("selection: the best generator is chosen by a classifier's features, expected classifier=")
        if selection and len(_held_out(data)) < FEWEST:
            raise UsageError(
                f"selection: found {len(_held_out(data))} images that are not trained on, expected {FEWEST} or more to "
                "choose the best generator by; 0 goes without"
            )
        self.average = None if average is None else Average(self.generator, average)
        self._classifier = classifier
        self.selection = Selection() if selection else None
        optimizers = {
            "critic_optimizer": critic_optimizer(_trainable(self.critic)),
            "generator_optimizer": generator_optimizer(_trainable(self.generator)),
        }
        step = AdversarialStep(
            self.generator,
            self.critic,
            loss_of(loss, fuzz=fuzz),
            **optimizers,
            **{name: settings[name] for name in OF_STEP},
            average=self.average,
            autocast=partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16"),
        )
        super().__init__(
            {"generator": self.generator, "critic": self.critic},
            step,
            data,
            parts=optimizers | {"average": self.average, "selection": self.selection},
            settings=settings,
            graph=graph,
            device=device,
            out=out,
            origin=origin,
            progress=progress,
            tensorboard=tensorboard,
        )

    def __repr__(self) -> str:
        return f"GanFit({self.loss} on {self.data.name}, {self.told})"

    @property
    def fooled(self) -> float:
        """The critic's loss where it tells nothing apart."""
        return LOSSES[self.loss].fooled

    def remark(self) -> str | None:
        """What has gone wrong, in one line with its number."""
        return gan_summary.remark(self)

    def result(self) -> dict[str, Any]:
        """The final figures, as in result.json."""
        return gan_summary.result(self)

    def curves(self) -> Figure:
        """Both losses against the step, and what else was logged."""
        return gan_summary.curves(self)

    def final_figures(self, found: dict[str, Any]) -> dict[str, Figure]:
        """The curves, images, and what else a GAN's run shows."""
        return gan_summary.final_figures(self, found)

    def check(self) -> None:
        """Ask both networks for two images, as the first step will; have the classifier that chooses, if there is one.

        Raises:
            UsageError: They do not fit the data.
        """
        batch = head(self.data.train, 2)
        if rehearse(self.generator, self.critic, batch.x, seen=self._step.seen):
            self._step.keep_apart()
        # Rank 0 alone looks for the best generator.
        if self.selection is not None and self.selection.real is None and processes.rank() == 0:
            self._find_classifier()

    def _find_classifier(self) -> None:
        try:
            found = self._classifier() if callable(self._classifier) else self._classifier
        except UsageError as error:
            raise UsageError(f"selection: {error}; selection 0 goes without a classifier") from error
        with torch.no_grad():
            self.selection.judge_by(found, head(_held_out(self.data), LOOKED_AT).x)

    @torch.no_grad()
    def samples(self, count: int, *, which: Literal["last", "average", "best"] | None = None, seed: int = 0) -> Tensor:
        """Images from the generator in eval mode, `(count, C, H, W)` in [0, 1], black and white where the data are.

        Args:
            count: How many.
            which: The generator as it is, its average, or the best that was seen; by default the average, where one
                is kept, else as it is.
            seed: Of their latents, which do not depend on `which`.

        Raises:
            UsageError: None of that kind was kept.
        """
        generator = self.trained(which)
        with self.aside():
            draw = torch.Generator(self.device).manual_seed(seed)
            z = torch.randn(count, generator.latents, generator=draw, device=self.device)
            made = torch.cat([generator(part) for part in z.split(SAMPLED)])
        # A generator's pixels are grey even where the data's are not.
        return made if self.data.binarize == "none" else (made > 0.5).to(made.dtype)

    def trained(self, which: Literal["last", "average", "best"] | None = None) -> nn.Module:
        """A copy of the generator in eval mode: as it is, its average, or the best that was seen, as for `samples`."""
        if which == "average" and self.average is None:
            raise UsageError("average: this run keeps none; give it average=, such as 0.999")
        if which == "best" and (self.selection is None or self.selection.state is None):
            raise UsageError("best: no generator was selected in this run; give it selection= looks")
        averaged = which in ("average", None) and self.average is not None
        made = copy.deepcopy(self.average.module if averaged else self.generator).eval()
        if which == "best":
            made.load_state_dict(self.selection.state)
        return made

    def measured(self) -> dict[str, float]:
        """The critic's loss on images that it was not trained on; near that of training where it does not overfit.

        By copies in training mode, whose batch norms see what they see in training: so the two losses are comparable.
        """
        held = _held_out(self.data)
        held = held.first(min(HELD_OUT, len(held)))
        generator, critic = (copy.deepcopy(net).train() for net in (self.generator, self.critic))
        with self.aside():
            batch = next(held.in_order(len(held)))
            made = generator(torch.randn(len(held), generator.latents, device=self.device))
            scores = [critic(self._step.seen(x)) for x in (batch.x, made)]
            return {"held_out": float(loss_of(self.loss).critic(*scores))}

    def after(self, step: int) -> None:
        """A look for the best generator, beside the losses since the last one, and a picture, where they are due."""
        if self.selection is not None and self.due(step, self.settings["selection"]):
            means = self.history.recent(step - int(self.selection.rows[-1]["step"] if self.selection.rows else 0))
            losses = {name: means[name] for name in ("generator_loss", "critic_loss") if name in means}
            images = self.samples(len(self.selection.real), seed=CHOOSING)
            self.selection.look(self.trained(), images, step=step, **losses)
        super().after(step)

    def draw(self, step: int) -> None:
        """Draw samples of the same latents each time into the run folder."""
        figures.save(figures.grid(self.samples(64)), self.folder.path / f"samples_{step:06d}.png")

    def show(self) -> Figure:
        """Held-out images and samples, side by side."""
        batch = head(_held_out(self.data), 64)
        return figures.panels({"data": batch.x, "samples": self.samples(64)})

    def interpolation(self, *, rows: int = 8, steps: int = 9) -> Figure:
        """Images along variance-preserving paths between latents, a path a row."""
        with self.aside():
            ends = torch.randn(2, rows, self.generator.latents, device=self.device)
            weights = torch.linspace(0, 1, steps, device=self.device)
            path = variance_preserving(*ends, weights)
            made = self.trained()(path.flatten(0, 1)).unflatten(0, (rows, steps))
            return figures.interpolation(made, weights=weights)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _held_out(data: DataSet) -> Images:
    """The images that choices during training are made by."""
    return data.test if data.valid is None else data.valid
