"""Steps of adversarial training, S12 and S13: the toolkit and torch by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_models import ConvDecoder, ConvEncoder, Critic, Generator, glorot_
from runners.adversarial_losses import loss_of
from runners.adversarial_step import AdversarialStep
from runners.contenders.workload import BY_HAND, Contender, Setting, Workload, plain, shuffled, toolkit
from runners.devices import placed

__all__ = ["by_hand", "gan", "ours", "wgan_gp"]

BATCH, LATENTS, PENALTY = 64, 10, 10.0


def gan(setting: Setting) -> Workload:
    """S12: one update of each."""
    contenders = _contenders(setting)
    return Workload(f"GAN (S12), batch {BATCH}", "images", BATCH, contenders)


def wgan_gp(setting: Setting, *, critic_steps: int = 5) -> Workload:
    """S13: five updates of the critic, with a gradient penalty, for one of the generator."""
    contenders = _contenders(setting, critic_steps=critic_steps, wasserstein=True)
    title = f"WGAN-GP (S13), {critic_steps} + 1 updates, batch {BATCH}"
    return Workload(title, "images", critic_steps * BATCH, contenders)


def _contenders(setting: Setting, **how: Any) -> dict[str, Callable[[], Contender]]:
    contenders = {"toolkit": partial(ours, setting, **how), BY_HAND: partial(by_hand, setting, **how)}
    if setting.device.type == "cuda":
        contenders["toolkit, no graph"] = partial(ours, setting, graph=False, **how)
    return contenders


def _players(setting: Setting) -> nn.ModuleDict:
    with setting.seeded():
        critic = Critic(ConvEncoder(channels=(8, 16, 32, 64, 64), strides=(2, 1, 2, 1, 2)))
        players = nn.ModuleDict({"generator": Generator(ConvDecoder(latents=LATENTS)), "critic": critic})
        return placed(glorot_(players), setting.device)


def _optimizers(players: nn.ModuleDict, *, wasserstein: bool) -> dict[str, torch.optim.Optimizer]:
    adam = partial(torch.optim.Adam, fused=True)
    lr, betas = (1e-4, (0.5, 0.9)) if wasserstein else (3e-4, (0.9, 0.9))
    return {
        "critic_optimizer": adam(players["critic"].parameters(), lr=1e-4, betas=(0.5, 0.9)),
        "generator_optimizer": adam(players["generator"].parameters(), lr=lr, betas=betas),
    }


def ours(setting: Setting, *, critic_steps: int = 1, wasserstein: bool = False, graph: bool | None = None) -> Contender:
    """The toolkit."""
    players = _players(setting)
    optimizers = _optimizers(players, wasserstein=wasserstein)
    step = AdversarialStep(
        players["generator"],
        players["critic"],
        loss_of("wasserstein" if wasserstein else "gan"),
        **optimizers,
        critic_steps=critic_steps,
        penalty=PENALTY if wasserstein else 0.0,
        autocast=setting.autocast,
    )
    stream = setting.images().batches(BATCH)
    units = critic_steps * BATCH
    return toolkit(
        step, stream, players, units=units, loss="generator_loss", optimizers=list(optimizers.values()), graph=graph
    )


def by_hand(setting: Setting, *, critic_steps: int = 1, wasserstein: bool = False) -> Contender:
    """One pass of the critic over real and generated images together, no gradient that is not used."""
    players = plain(_players(setting))
    decoder, critic = players["generator"].decoder, players["critic"]
    adam_critic, adam_generator = _optimizers(players, wasserstein=wasserstein).values()
    pixels = setting.images().pixels
    rows = shuffled(len(pixels), BATCH, setting.device)
    labels = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)]).to(setting.device)

    def noise() -> Tensor:
        return torch.randn(BATCH, LATENTS, device=setting.device)

    def generated(z: Tensor) -> Tensor:
        return decoder(z).to(z.dtype).tanh()

    def criticise(real: Tensor) -> None:
        with setting.autocast():
            with torch.no_grad():
                fake = generated(noise())
            scores = critic(torch.cat([real, fake]))
            if wasserstein:
                u = torch.rand(BATCH, 1, 1, 1, device=real.device)
                between = (real + u * (fake - real)).requires_grad_()
                (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
                norm = (slope.flatten(1).square().sum(1) + 1e-5).sqrt()
                loss = scores[BATCH:].mean() - scores[:BATCH].mean() + PENALTY * (norm - 1).square().mean()
            else:
                loss = F.binary_cross_entropy_with_logits(scores, labels)
        adam_critic.zero_grad()
        loss.backward()
        adam_critic.step()

    def step() -> Tensor:
        critic.requires_grad_(True)
        for _ in range(critic_steps):
            criticise(pixels.index_select(0, next(rows)) / 127.5 - 1)
        critic.requires_grad_(False)
        with setting.autocast():
            scores = critic(generated(noise()))
            loss = -scores.mean() if wasserstein else F.softplus(-scores).mean()
        adam_generator.zero_grad()
        loss.backward()
        adam_generator.step()
        return loss.detach()

    return Contender(step, critic_steps * BATCH, players)
