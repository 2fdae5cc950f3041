"""One step of adversarial training, for the training loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ppl_models import Batch, UsageError
from ppl_models.adversarial import AdversarialLoss, gradient_penalty, r1_penalty
from ppl_models.augmentation import augmented
from ppl_models.average import Average
from ppl_models.path_energy import normalised_path_energy
from runners.loop import processes

__all__ = ["AdversarialStep"]

NODES = 6
"""Points of a path whose energy is part of the generator's loss."""

PATH_IMAGES = NODES + 1
"""Images of such a path: both ends and the middles of its segments. A batch has room for so many paths as make no more
images than it has itself."""


class AdversarialStep:
    """So many updates of the critic, each on a batch of its own, then so many of the generator.

    Images are in [0, 1] everywhere but here: the critic sees 2x - 1. Every update is one backward pass, which penalties
    pass twice, and none computes a gradient of the other network's weights. Of several processes each has its part of
    the batches, and gradients are averaged; batch norm sees the part alone, as torch's SyncBatchNorm has no CPU form.

    Args:
        generator: From latents to images.
        critic: From images to scores.
        loss: What they minimise.
        critic_optimizer: Of the critic's parameters.
        generator_optimizer: Of the generator's.
        critic_steps: Updates of the critic in a step: so many batches it takes.
        generator_steps: Updates of the generator.
        penalty: Weight of (slope - 1)² between real and generated images; 0 for none.
        r1: Weight of half the squared slope at real images; 0 for none.
        path_energy: Weight of the normalised energy of straight paths, in the generator's loss; 0 for none.
        augment: What is done at random to every image that the critic sees, as in `augmented`.
        average: Follows the generator.
        autocast: Makes the context that networks run in.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        loss: AdversarialLoss,
        critic_optimizer: torch.optim.Optimizer,
        generator_optimizer: torch.optim.Optimizer,
        *,
        critic_steps: int = 1,
        generator_steps: int = 1,
        penalty: float = 0.0,
        r1: float = 0.0,
        path_energy: float = 0.0,
        augment: Sequence[str] = (),
        average: Average | None = None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.generator, self.critic, self.loss, self.average = generator, critic, loss, average
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer
        self.batches, self.generator_steps = critic_steps, generator_steps
        self.penalty, self.r1, self.path_energy = penalty, r1, path_energy
        self.augment, self.autocast = tuple(augment), autocast
        # Batch norm would mix the statistics of real and generated images where both are in one pass.
        self.apart = False
        if any(isinstance(module, _BatchNorm) for module in critic.modules()):
            self.keep_apart()

    def keep_apart(self) -> None:
        """Show the critic real and generated images one after the other: its score of one depends on those beside it.

        Raises:
            UsageError: There is a penalty on its slope at each image.
        """
        if self.penalty or self.r1:
            raise UsageError(
                "a critic whose scores depend on the other images of a batch, as by batch norm: images' slopes do too, "
                "expected no penalty on them"
            )
        self.apart = True

    def before(self, step: int, steps: int) -> None:
        """Nothing: no schedule is filled in."""

    def __call__(self, *batches: Batch) -> dict[str, Tensor]:
        for batch in batches:
            logged, made = self._criticise(batch.x)
        # How much of the data's variance the generator's images have: near 0 they are all the same.
        logged["diversity"] = made.var(0).sum() / batch.x.var(0).sum().clamp(min=1e-8)
        for _ in range(self.generator_steps):
            logged |= self._generate(len(batches[0].x), like=batches[0].x)
        return logged

    def seen(self, x: Tensor) -> Tensor:
        """Images as the critic gets them."""
        x = 2 * x - 1
        return augmented(x, self.augment) if self.augment else x

    def _criticise(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Update the critic; returns what to log, and the images that were generated."""
        with self.autocast():
            with torch.no_grad():
                made = self.generator(self._noise(len(x), like=x))
            real, fake = self.seen(x), self.seen(made)
            if self.apart:
                real_score, fake_score = self.critic(real), self.critic(fake)
            else:
                real_score, fake_score = self.critic(torch.cat([real, fake])).chunk(2)
            # A critic of the user's own may give half precision here.
            real_score, fake_score = real_score.to(x.dtype), fake_score.to(x.dtype)
            loss = total = self.loss.critic(real_score, fake_score)
            logged = {"critic_loss": loss}
            if self.penalty:
                penalty, slope = (each.mean() for each in gradient_penalty(self.critic, real, fake))
                total = total + self.penalty * penalty
                logged |= {"penalty": penalty, "slope": slope}
            if self.r1:
                penalty = r1_penalty(self.critic, real).mean()
                total = total + self.r1 * penalty
                logged |= {"r1": penalty}
        _descend(total, self.critic_optimizer)
        return logged, made

    def _generate(self, count: int, *, like: Tensor) -> dict[str, Tensor]:
        """Update the generator; returns what to log."""
        with self.autocast():
            made = self.generator(self._noise(count, like=like))
            loss = total = self.loss.generator(self.critic(self.seen(made)).to(like.dtype))
            logged = {"generator_loss": loss}
            if self.path_energy:
                ends = self._noise(2 * max(count // PATH_IMAGES, 1), like=like)
                with _statistics_held(self.generator):
                    energy = normalised_path_energy(self.generator, *ends.chunk(2), nodes=NODES).mean()
                total = total + self.path_energy * energy
                logged |= {"path_energy": energy}
        _descend(total, self.generator_optimizer)
        if self.average is not None:
            self.average.update(self.generator)
        return logged

    def _noise(self, count: int, *, like: Tensor) -> Tensor:
        return torch.randn(count, self.generator.latents, device=like.device, dtype=like.dtype)


@contextmanager
def _statistics_held(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, but take nothing in: points of paths are nearer to 0 than latents are."""
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One update of an optimiser's parameters; the gradients of no others are computed."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss.backward(inputs=parameters)
    processes.average_gradients(parameters)
    optimizer.step()
