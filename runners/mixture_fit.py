"""A GAN of multilayer perceptrons in training on a mixture of Gaussians in the plane."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from ppl_models import MLP, WASSERSTEIN, Batch, Critic, MLPEncoder, UsageError, slopes
from ppl_models.reprs import fields_repr
from runners.adversarial_losses import LOSSES
from runners.adversarial_step import AdversarialStep
from runners.devices import device_or_default
from runners.loop.command import Options
from runners.loop.history import Diverged, History
from runners.loop.random import forked
from runners.loop.train import train
from runners.mixture import Mixture

__all__ = ["BETAS", "BY_LOSS", "BY_NAME", "HIDDEN", "LATENTS", "MixtureFit", "fit"]

LATENTS, HIDDEN, BETAS = 2, (128, 128, 128), (0.5, 0.9)

BY_LOSS: dict[str, Options] = {"wgan-gp": {"critic_steps": 5, "penalty": 0.1}}
"""What a loss brings along where nothing else is said: Gulrajani et al.'s own settings for these mixtures."""

OTHERWISE: Options = {"critic_steps": 1, "penalty": 0.0}

BY_NAME = {name: loss for name, loss in LOSSES.items() if loss is not WASSERSTEIN} | {"wgan-gp": WASSERSTEIN}


class _Points(MLP):
    """A generator of points, which a step that takes 2x - 1 sees as the network's outputs."""

    latents = LATENTS

    def forward(self, z: Tensor) -> Tensor:
        return (1 + super().forward(z)) / 2


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """A generator and a critic that were trained on a mixture.

    Attributes:
        mixture: The mixture.
        loss: What they minimised.
        seed: Of the networks and all noise.
        generator: From latents to points x, as (x / scale + 1) / 2.
        critic: From scaled points to scores.
        history: Rows of training figures, and the seconds.
        stopped: The signal that ended it early, or `None`.
    """

    mixture: Mixture
    loss: str
    seed: int
    generator: nn.Module
    critic: nn.Module
    history: History
    stopped: int | None = None

    __repr__ = fields_repr

    @torch.no_grad()
    def sample(self, count: int, *, seed: int = 0) -> Tensor:
        """Generated points, `(count, 2)`."""
        device = next(self.generator.parameters()).device
        draw = torch.Generator(device).manual_seed(seed)
        z = torch.randn(count, self.generator.latents, generator=draw, device=device)
        return self.mixture.scale * (2 * self.generator(z) - 1)

    def criticise(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        r"""The critic's own Wasserstein distance of data from generated points, in the units of the points.

        :math:`E D(x) - E D(G(z))` is that of a critic with slope one; a penalty as weak as is usual here lets the slope
        be larger, so it is divided by the mean slope between data and generated points. By duality no critic comes
        above the exact distance where it is divided by the largest slope there is.

        Args:
            real: `(N, 2)`.
            fake: `(N, 2)`.

        Returns:
            `critic_w1` and, of scaled points, the mean `slope`.
        """
        real, fake = real / self.mixture.scale, fake / self.mixture.scale
        middle = torch.rand(len(real), 1, generator=torch.Generator().manual_seed(0)).to(real.device)
        slope = float(slopes(self.critic, real + middle * (fake - real)).detach().mean())
        with torch.no_grad():
            difference = float(self.critic(real).mean() - self.critic(fake).mean())
        return {"critic_w1": self.mixture.scale * difference / slope, "slope": slope}


def fit(
    mixture: Mixture,
    loss: str = "wgan-gp",
    *,
    steps: int = 5000,
    batch: int = 256,
    critic_steps: int | None = None,
    penalty: float | None = None,
    lr: float = 1e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> MixtureFit:
    """Train multilayer perceptrons on fresh points of a mixture.

    Networks, optimisers and batches are those of Gulrajani et al. 2017, arXiv:1704.00028, on these mixtures (three
    hidden layers, relu, two latents, Adam with betas 0.5 and 0.9), in a few thousand steps instead of a hundred
    thousand: 128 units instead of 512, and a step size that falls from 1e-3 to 0 instead of 1e-4. Every loss gets
    the same.

    Args:
        mixture: The mixture.
        loss: A name in `BY_NAME`.
        steps: Steps, each of `critic_steps` critic updates and one of the generator.
        batch: Real and generated points of an update.
        critic_steps: By default 1, for `"wgan-gp"` 5.
        penalty: Weight of the gradient penalty; by default 0, for `"wgan-gp"` 0.1.
        lr: Adam's step size at the start, from which it falls to 0.
        seed: Of the networks and all noise.
        device: Where to train; by default CUDA where there is one.
        progress: Whether to show a progress bar.

    Raises:
        UsageError: There is no such loss, or the run diverged.
    """
    if loss not in BY_NAME:
        raise UsageError(f"loss: found {loss!r}, expected {', '.join(BY_NAME)}")
    device = device_or_default(device)
    settings = OTHERWISE | BY_LOSS.get(loss, {})
    settings |= {k: v for k, v in {"critic_steps": critic_steps, "penalty": penalty}.items() if v is not None}
    history = History()
    with forked(seed, device):
        generator = _Points([LATENTS, *HIDDEN, 2]).to(device)
        critic = Critic(MLPEncoder(shape=(2,), hidden=HIDDEN)).to(device)
        adams = [torch.optim.Adam(net.parameters(), lr=lr, betas=BETAS, fused=True) for net in (critic, generator)]
        step = AdversarialStep(generator, critic, BY_NAME[loss], *adams, **settings, autocast=nullcontext)
        stream = _stream(mixture, batch, torch.Generator(device).manual_seed(seed))
        falling = [LinearLR(adam, 1.0, 0.0, total_iters=steps) for adam in adams]

        def after(done: int) -> None:
            for schedule in falling:
                schedule.step()

        try:
            stopped = train(step, stream, history, until=steps, on_step=after, progress=progress)
        except Diverged as error:
            raise UsageError(f"{loss} on the {mixture.name}, seed {seed}: {error}") from error
    return MixtureFit(mixture, loss, seed, generator, critic, history, stopped)


def _stream(mixture: Mixture, batch: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless fresh points, as (x / scale + 1) / 2: what the step then hands on is x / scale."""
    index = torch.arange(batch, device=generator.device)
    while True:
        yield Batch((mixture.sample(batch, generator) / mixture.scale + 1) / 2, None, index)
