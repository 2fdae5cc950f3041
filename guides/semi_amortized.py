"""Semi-amortized inference: an encoder starts, gradient steps on the datum refine."""

from torch import nn

from guides.amortized import Amortized
from guides.families import has_density
from guides.refine import Refinement
from guides.rules import SGD
from ppl_models.batch import UsageError

__all__ = ["SemiAmortized"]

REFINEMENT = Refinement(steps=20, rule=SGD(lr=5e-3, momentum=0.5, clip=20.0), final=0.1, decay=0.0)
"""The paper's number of steps and momentum; the step size and clip per datum that were best of those tried on MNIST."""


class SemiAmortized(Amortized):
    r"""An encoder's answer, :math:`\lambda_0 = f(x)`, refined by K gradient steps on each datum.

    Kim et al. 2018, arXiv:1802.02550. The guide itself never refines, since it holds no model: training and reports
    do. In training the encoder learns to start well, either by the gradient of the bound through all the steps, which
    costs about twice as much, or to first order, as if the steps were a shift that does not depend on the start.

    Args:
        latents: Dimensions of the default family.
        encoder: As for `Amortized`.
        family: The family of posteriors; `Diagonal(latents)` by default.
        refinement: The gradient steps; by default 20 by `SGD` with momentum, as in the paper.
        exact: Whether training differentiates through the steps.
        site: The name of the latent.

    Raises:
        UsageError: The refinement cannot be differentiated, or is of a kind that only rows have.
    """

    def __init__(
        self,
        *,
        latents: int = 10,
        encoder: nn.Module | None = None,
        family: nn.Module | None = None,
        refinement: Refinement | None = None,
        exact: bool = True,
        site: str = "z",
    ) -> None:
        super().__init__(latents=latents, encoder=encoder, family=family, site=site)
        self.refinement = REFINEMENT if refinement is None else refinement
        self.exact = exact
        if exact and not isinstance(self.refinement.rule, SGD):
            raise UsageError(
                "SemiAmortized: exact gradients need the rule SGD: Adam's root has no derivative where a gradient is 0"
            )
        if not has_density(self.family):
            raise UsageError(
                f"SemiAmortized: {type(self.family).__name__} noise is made of other data's codes, so that a datum "
                "cannot be refined on its own; use Amortized"
            )
        if self.refinement.joint:
            raise UsageError("SemiAmortized: a joint refinement is for rows of a table, which an encoder does not keep")

    def extra_repr(self) -> str:
        return f"refinement={self.refinement!r}, exact={self.exact}"
