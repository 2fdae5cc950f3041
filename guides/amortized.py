"""Amortized inference: an encoder reads the datum and says its variational parameters."""

from torch import Tensor, nn

from guides.families import Diagonal, sample_family
from guides.sites import Params
from ppl_models.batch import Batch
from ppl_models.nets import ConvEncoder

__all__ = ["Amortized"]


class Amortized(nn.Module):
    r"""A guide whose parameters start at an encoder's outputs, :math:`q(z \mid x) = q(z; \lambda = f(x))`.

    Kingma and Welling 2014, arXiv:1312.6114. A dense head per parameter of the family follows the encoder.

    Args:
        latents: Dimensions of the default family.
        encoder: A module `(*, C, H, W) → (*, features)`, with `features` among its attributes.
        family: The family of posteriors; `Diagonal(latents)` by default.
        site: The name of the latent.
    """

    def __init__(
        self,
        *,
        latents: int = 10,
        encoder: nn.Module | None = None,
        family: nn.Module | None = None,
        site: str = "z",
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder() if encoder is None else encoder
        self.family = Diagonal(latents) if family is None else family
        self.latents = self.family.latents
        self.site = site
        self.heads = nn.ModuleDict(
            {name: nn.Linear(self.encoder.features, len(value)) for name, value in self.family.initial().items()}
        )

    def start(self, batch: Batch) -> Params:
        """The encoder's answer, `(batch, size)` per parameter."""
        # A conditional encoder reads the labels as well.
        features = self.encoder(batch.x, batch.y) if getattr(self.encoder, "classes", 0) else self.encoder(batch.x)
        # Under autocast features are in half precision; parameters of distributions never are.
        return {name: head(features).to(batch.x.dtype) for name, head in self.heads.items()}

    def sample(self, batch: Batch, params: Params) -> Tensor:
        """Sample the latents from the family at `params`."""
        return sample_family(self.site, self.family, batch, params)

    def forward(self, batch: Batch) -> Tensor:
        return self.sample(batch, self.start(batch))
