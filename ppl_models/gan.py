"""The two players of a generative adversarial network."""

import torch
from torch import Tensor, nn

__all__ = ["Critic", "Generator"]


class Generator(nn.Module):
    r"""Images from standard normal latents, :math:`G(z) = (1 + \tanh d(z)) / 2` by a decoder d.

    Goodfellow et al. 2014, arXiv:1406.2661. Images are in [0, 1], as everywhere; a training step that wants the
    tanh itself, as critics do, hands on :math:`2x - 1`.

    Args:
        decoder: A module `(*, latents) → (*, C, H, W)`, with `latents` and `shape` among its attributes.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.latents, self.shape = decoder.latents, tuple(decoder.shape)

    def forward(self, z: Tensor) -> Tensor:
        """Images `(*, C, H, W)` of latents `(*, latents)`, in their dtype."""
        # Under autocast the decoder's outputs are in half precision, too coarse for a pixel.
        return (1 + self.decoder(z).to(z.dtype).tanh()) / 2

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Images `(count, C, H, W)` of latents from N(0, I), through which gradients reach the weights.

        Args:
            count: How many.
            generator: Where random numbers come from, on the module's device; torch's own by default.
        """
        like = next(self.parameters())
        z = torch.randn(count, self.latents, generator=generator, device=like.device, dtype=like.dtype)
        return self(z)


class Critic(nn.Module):
    """A number for each image: a discriminator's logit or a critic's value, `(*, C, H, W) → (*)`.

    Args:
        encoder: A module `(*, C, H, W) → (*, features)`, with `features` among its attributes.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(*)`, in the dtype of the images, under autocast too."""
        return self.head(self.encoder(x)).squeeze(-1).to(x.dtype)
