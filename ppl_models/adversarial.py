r"""What adversarial training minimises: losses of scores, and penalties on a critic's slope.

A loss is a pair of functions of scores :math:`l = D(x)`, the logits of a discriminator, :math:`\sigma(l)` the
probability that an image is real, or the values of a critic. Penalties are per image, so that a step can weight,
average and show them; what they calculate is float32 at least.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.reprs import fields_repr

__all__ = [
    "HINGE",
    "LEAST_SQUARES",
    "NON_SATURATING",
    "SATURATING",
    "WASSERSTEIN",
    "AdversarialLoss",
    "cross_entropy",
    "generator_gradient",
    "gradient_penalty",
    "interpolates",
    "r1_penalty",
    "slopes",
]


class AdversarialLoss(NamedTuple):
    """What the two players minimise.

    Attributes:
        critic: From the scores of real and of generated images, `(B,)` each, to a scalar.
        generator: From the scores of generated images, `(B,)`, to a scalar.
        fooled: The critic's loss where it tells nothing apart, which pictures draw as a line.
    """

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    fooled: float

    __repr__ = fields_repr


def cross_entropy(real: Tensor, fake: Tensor, *, fuzz: float = 0.0) -> Tensor:
    r"""The discriminator's loss, the mean of :math:`-t \log \sigma(l) - (1 - t) \log \sigma(-l)` over all images.

    The label t is 1 of real images and 0 of generated ones, so that a discriminator that is fooled stands at log 2.
    Goodfellow et al. 2014, arXiv:1406.2661. Fuzzy labels are the noisy ones of Salimans et al. 2016,
    arXiv:1606.03498, on both sides: `NON_SATURATING._replace(critic=partial(cross_entropy, fuzz=0.1))`.

    Args:
        real: Logits of real images, `(B,)`.
        fake: Logits of generated images, `(B,)`.
        fuzz: Labels are uniform within so much of 1 and 0, drawn for each image.

    Returns:
        A scalar.
    """
    scores = torch.cat([real, fake])
    labels = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    if fuzz:
        labels = labels + fuzz * (2 * torch.rand_like(labels) - 1)
    # Labels may leave [0, 1]: that needs the form in logits, which no logit makes infinite.
    return F.binary_cross_entropy_with_logits(scores, labels)


def _non_saturating(fake: Tensor) -> Tensor:
    return -F.logsigmoid(fake).mean()


def _saturating(fake: Tensor) -> Tensor:
    return F.logsigmoid(-fake).mean()


def _difference(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _raised(fake: Tensor) -> Tensor:
    return -fake.mean()


def _squares(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def _squares_to_one(fake: Tensor) -> Tensor:
    return 0.5 * (fake - 1).square().mean()


def _margins(real: Tensor, fake: Tensor) -> Tensor:
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


NON_SATURATING = AdversarialLoss(cross_entropy, _non_saturating, math.log(2))
r"""Cross-entropy, the generator's loss :math:`-\log \sigma(l)` (Goodfellow et al. 2014, arXiv:1406.2661)."""

SATURATING = AdversarialLoss(cross_entropy, _saturating, math.log(2))
r"""Cross-entropy, the generator's loss :math:`\log(1 - \sigma(l))`, flat where the discriminator is sure."""

WASSERSTEIN = AdversarialLoss(_difference, _raised, 0.0)
r""":math:`E D(G(z)) - E D(x)` and :math:`-E D(G(z))` (Arjovsky et al. 2017, arXiv:1701.07875); wants a penalty."""

LEAST_SQUARES = AdversarialLoss(_squares, _squares_to_one, 0.25)
r""":math:`\tfrac12 E (D(x) - 1)^2 + \tfrac12 E D(G(z))^2`, :math:`\tfrac12 E (D(G(z)) - 1)^2` (Mao et al. 2017)."""

HINGE = AdversarialLoss(_margins, _raised, 2.0)
r""":math:`E (1 - D(x))_+ + E (1 + D(G(z)))_+`, :math:`-E D(G(z))` (Lim and Ye 2017; Miyato et al. 2018)."""


def generator_gradient(
    generator: nn.Module, critic: Callable[[Tensor], Tensor], loss: AdversarialLoss, z: Tensor
) -> Tensor:
    r"""What a loss asks of a generator's weights, :math:`\nabla_\theta L(D(G_\theta(z)))`.

    By the chain rule the mean over images of :math:`L'(l_i) \nabla_\theta l_i` with scores l. Of cross-entropy's two
    forms :math:`L'(l)` is :math:`-\sigma(l)`, saturating, and :math:`-\sigma(-l)`: an image's share has one direction
    under both, and :math:`e^l` times the length under the first. Goodfellow et al. 2014, arXiv:1406.2661, section 3.

    Args:
        generator: From latents to images.
        critic: From the generator's images to scores, `(B,)`.
        loss: Its generator's part.
        z: Latents, `(B, latents)`.

    Returns:
        All weights' gradients as one vector; those that are frozen are left out.
    """
    weights = [weight for weight in generator.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss.generator(critic(generator(z))), weights)
    return torch.cat([gradient.flatten() for gradient in gradients])


def slopes(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""How steep a critic is at each image, :math:`\sqrt{\sum_i (\partial D / \partial x_i)^2 + 10^{-5}}`.

    Batch norm in a critic makes one image's score a function of the others: while training, what this gives is then
    the slope of the batch's summed scores, not of each.

    Args:
        critic: A module `(B, *event) → (B,)`.
        x: Images, `(B, *event)`, any event; where they come from gets no gradient.

    Returns:
        `(B,)`, float32 at least, through which gradients reach the critic's weights.

    Raises:
        UsageError: The critic does not depend on its images differentiably.
    """
    # The 1e-5 keeps the root's own gradient finite where the critic is flat.
    return (_squared_slopes(critic, x) + 1e-5).sqrt()


def interpolates(real: Tensor, fake: Tensor) -> Tensor:
    r"""A point of the line between each pair of images, :math:`x + u (G(z) - x)`, u uniform and one for each image.

    Args:
        real: `(B, *event)`.
        fake: The same shape.

    Returns:
        The same shape.

    Raises:
        UsageError: The shapes differ.
    """
    if real.shape != fake.shape:
        raise UsageError(f"generated images of shape {tuple(fake.shape)}, expected the real ones', {tuple(real.shape)}")
    u = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    return real + u * (fake - real)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    r"""How far a critic is from slope one between real and generated images, :math:`(\lVert\nabla D\rVert - 1)^2`.

    Gulrajani et al. 2017, arXiv:1704.00028, who weight it by 10.

    Args:
        critic: A module `(B, *event) → (B,)`, without batch norm (see `slopes`).
        real: Images, `(B, *event)`.
        fake: Generated images, the same shape.

    Returns:
        The penalties and the slopes, `(B,)` each, float32 at least.

    Raises:
        UsageError: The shapes differ, or the critic does not depend on its images differentiably.
    """
    slope = slopes(critic, interpolates(real, fake))
    return (slope - 1).square(), slope


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    r"""How steep a critic is at real images, :math:`\tfrac12 \lVert\nabla D(x)\rVert^2`.

    Mescheder et al. 2018, arXiv:1801.04406, who weight it by 10.

    Args:
        critic: A module `(B, *event) → (B,)`; of batch norm, see `slopes`.
        real: Images, `(B, *event)`.

    Returns:
        `(B,)`, float32 at least.

    Raises:
        UsageError: The critic does not depend on its images differentiably.
    """
    return 0.5 * _squared_slopes(critic, real)


def _squared_slopes(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The squared norm of the critic's gradient at each image, `(B,)`."""
    # Measured without gradients too, for reports; a gradient has its input's dtype, whatever autocast makes in between.
    with torch.enable_grad():
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
        scores, gradient = critic(x), None
        if scores.requires_grad:
            (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True, allow_unused=True)
        if gradient is None:
            raise UsageError("the critic's scores do not depend on its images differentiably, expected a gradient")
        return gradient.flatten(1).square().sum(-1)
