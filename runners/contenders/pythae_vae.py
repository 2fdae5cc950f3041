"""A VAE of pythae's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from runners.contenders.workload import Contender, Setting, shuffled
from runners.devices import placed

__all__ = ["pythae_vae"]


def pythae_vae(
    setting: Setting, pair: Callable[[], nn.ModuleDict], *, batch: int, betas: tuple[float, float]
) -> Contender:
    """The VAE of pythae with the same networks, trained as its trainer does, without its DataLoader.

    Chadebec, Vincent and Allassonnière 2022, arXiv:2206.08309.
    """
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, guide: nn.Module) -> None:
            super().__init__()
            self.guide = guide

        def forward(self, x: Tensor) -> Any:
            features = self.guide.encoder(x)
            heads = self.guide.heads
            return ModelOutput(embedding=heads["loc"](features), log_covariance=2 * heads["log"](features))

    class Decoder(BaseDecoder):
        def __init__(self, decoder: nn.Module) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.decoder(z).sigmoid())

    with setting.seeded():
        nets = placed(pair(), setting.device)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=nets["model"].latents, reconstruction_loss="bce")
    vae = VAE(config, Encoder(nets["guide"]), Decoder(nets["model"].decoder)).to(setting.device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, betas=betas)
    images = setting.images().pixels / 255
    rows = shuffled(len(images), batch, setting.device)

    def step() -> Tensor:
        with setting.autocast():
            loss = vae({"data": images[next(rows)]}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contender(step, batch, nets)
