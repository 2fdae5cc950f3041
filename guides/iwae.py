"""Importance-weighted bounds, and estimators of their gradient."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from guides.sites import At, Program, run_program
from guides.terms import Terms, terms_of
from ppl_models.batch import Batch, UsageError

__all__ = ["IWAE", "importance_terms", "stopped"]

Gradient = Literal["plain", "stl", "dreg"]


@dataclass
class IWAE:
    r"""The importance-weighted bound, :math:`E \log \frac1K \sum_k w_k`, :math:`w_k = p(x, z_k) / q(z_k \mid x)`.

    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519; one set of weights for each datum. The model's gradient is
    :math:`\sum_k \tilde w_k \nabla \log w_k` with normalised weights. The guide's is by choice

    - `"plain"`: the same;
    - `"stl"`: without the score of q, through the samples alone (Roeder, Wu and Duvenaud 2017, arXiv:1703.09194),
      biased for K > 1, and without noise where q is the posterior;
    - `"dreg"`: through the samples with :math:`\tilde w_k^2` (Tucker et al. 2019, arXiv:1810.04152), unbiased, and its
      signal does not drown in noise as K grows.

    Args:
        particles: K.
        gradient: The estimator of the guide's gradient.
    """

    particles: int = 5
    gradient: Gradient = "dreg"
    _bound: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.particles < 1 or self.gradient not in ("plain", "stl", "dreg"):
            raise UsageError(
                f"IWAE: found {self.particles} particles and gradient {self.gradient!r}, expected 1 or more and plain, "
                "stl or dreg"
            )

    def logged(self) -> dict[str, Tensor]:
        """The bound of the last step, mean over the batch."""
        return {"iwae": self._bound}

    def __call__(self, model: Program, guide: Program, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss (the negative bound, mean over the data) and the parts of its weights."""
        parts = importance_terms(model, guide, batch, particles=self.particles, gradient=self.gradient)
        bound = (parts.elbo.logsumexp(0) - math.log(self.particles)).mean()
        self._bound = bound.detach()
        return -bound, parts


def importance_terms(
    model: Program, guide: Program, batch: Batch, *, particles: int, gradient: Gradient = "plain"
) -> Terms:
    r"""The parts of importance weights: `.elbo` is :math:`\log w`, `(particles, batch)`, sampled throughout.

    Raises:
        UsageError: A site has a scale, which would sit inside the logarithm, or a rate without a density; or the
            guide's own parameters cannot be told from its samples, as in a bare function.
    """
    if hasattr(guide, "start"):
        # Samples and densities from the same parameters, also where an encoder drops out at random; and it runs once.
        guide = At(guide, guide.start(batch))
    inferred = run_program(guide, batch, particles=particles)
    values = {name: site.value for name, site in inferred.items()}
    if gradient != "plain":
        # A view of each sample, which the weights look at, while later latents of the guide look at the sample itself.
        values = {name: value.view_as(value) for name, value in values.items()}
        with stopped(guide) as fixed:
            inferred = run_program(fixed, batch, values=values, particles=particles)
    generated = run_program(model, batch, values=values, particles=particles)
    for site in (*inferred.values(), *generated.values()):
        if site.rate is not None:
            raise UsageError(f"site '{site.name}': a guide with a rate but no density has no importance weights")
        if isinstance(site.scale, Tensor) or site.scale != 1:
            raise UsageError(f"site '{site.name}': importance weights allow no scale, such as a KL weight other than 1")
    parts = terms_of(inferred, generated, shape=(particles, len(batch.index)), closed_form=False)
    if gradient == "dreg" and particles > 1:
        share = parts.elbo.detach().softmax(0)
        for value in values.values():
            if value.requires_grad:
                value.register_hook(_times(share))
    return parts


@contextmanager
def stopped(program: Program) -> Iterator[Program]:
    """A guide whose densities, computed inside, take gradients to the sampled values but to nothing of its own.

    Detaching its variational parameters would not do: a flow's weights are in its density as well.

    Raises:
        UsageError: It is neither a module nor a module at given parameters.
    """
    guide = program.guide if isinstance(program, At) else program
    if not isinstance(guide, nn.Module):
        raise UsageError(
            f"the guide is {type(guide).__name__}, not a module: its own parameters cannot be told from its samples, "
            "as this gradient estimator needs"
        )
    own = [parameter for parameter in guide.parameters() if parameter.requires_grad]
    for parameter in own:
        parameter.requires_grad_(False)
    try:
        yield At(guide, {k: v.detach() for k, v in program.params.items()}) if isinstance(program, At) else program
    finally:
        for parameter in own:
            parameter.requires_grad_()


def _times(share: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that multiplies gradients `(particles, batch, *event)` by `share`, `(particles, batch)`."""
    return lambda grad: grad * share.view(*share.shape, *[1] * (grad.dim() - 2))
