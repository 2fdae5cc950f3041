"""What does each loss of a GAN's generator ask of it where the discriminator is sure, and how does it train?"""

from collections.abc import Iterator

import torch

from ppl_models.adversarial import NON_SATURATING, SATURATING, generator_gradient
from runners import figures
from runners.gan_fit import GanFit
from runners.studies import adversaries
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 11)

LOSSES = {"−log D": NON_SATURATING, "log(1 − D)": SATURATING}
OPTIONS = {"−log D": "gan", "log(1 − D)": "saturating"}

ALONE, QUICK_ALONE = (0, 10, 30, 100, 300), (0, 3, 10, 30, 100)
"""Updates of the discriminator alone, after which a generator's gradients are measured."""

LATENTS = 256
"""By how many latents a gradient is measured, the same for all."""


def runs(*, quick: bool) -> dict[str, Point]:
    """S12 by each loss."""
    shared = adversaries.QUICKER | {"steps": 400, "selection": 0} if quick else {"steps": 2500, "selection": 10}
    return {name: of_gan(loss=loss, pictures=0, **shared) for name, loss in OPTIONS.items()}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Both gradients in each generator, as its discriminator learns on alone; and what training by each comes to."""
    ends = {name: adversaries.ended(one) for name, one in made.items()}
    found = {name: list(_gradients(one.fit, QUICK_ALONE if quick else ALONE)) for name, one in made.items()}
    column, words = adversaries.distance(list(ends.values()))
    table = []
    for name, (first, *others) in found.items():
        end = {figure: ends[name][figure] for figure in ("critic_loss", "diversity", column, "seconds")}
        table += [{"generator by": name} | row for row in (first | end, *others)]
    measured = {
        loss: {
            name: sorted((row["D(G(z))"], row[f"gradient of {loss}"]) for row in rows) for name, rows in found.items()
        }
        for loss in LOSSES
    }
    training = ("critic_loss", "held_out", "diversity")
    pictures = {
        "generator_losses": figures.generator_losses(LOSSES, measured=measured),
        "training": adversaries.curves(made, heading="A GAN by each loss of its generator", columns=training),
        "samples": adversaries.samples(made),
    }
    low, high = (choose(table, key=lambda row: row["D(G(z))"]) for choose in (min, max))
    near, far = sorted(ends, key=lambda name: ends[name][column])
    finding = [
        f"Where the discriminator is surest, D(G(z)) = {low['D(G(z))']:.2g} on average, the gradient of log(1 − D) has "
        f"{low['ratio']:.2g} times the norm of that of −log D; where it is least sure, {high['D(G(z))']:.2g}, "
        f"{high['ratio']:.2g} times.",
        f"For a single image it would be D / (1 − D) times, {low['odds']:.2g} and {high['odds']:.2g} at these means; "
        f"the cosine between both gradients is {low['cosine']:.2f} and {high['cosine']:.2f}.",
        f"After as many steps, one seed each, the generator trained by {near} is nearer to the data, a "
        f"{words} of {ends[near][column]:.3g} against {ends[far][column]:.3g}; the discriminator's loss is "
        f"{ends[near]['critic_loss']:.2f} against it and {ends[far]['critic_loss']:.2f} against the other.",
    ]
    return Answer(table, pictures, finding)


def _gradients(fit: GanFit, counts: tuple[int, ...]) -> Iterator[dict[str, float]]:
    """The gradients of both losses in a generator, after so many updates of its discriminator alone."""
    on = adversaries.alone(fit)
    z = torch.randn(LATENTS, fit.generator.latents, generator=torch.Generator().manual_seed(0)).to(fit.device)
    for count in counts:
        on.run(count - on.history.step)
        with on.aside(), torch.enable_grad():
            chances = on.critic(2 * on.generator(z) - 1).sigmoid().detach()
            by_loss = [
                generator_gradient(on.generator, lambda x: on.critic(2 * x - 1), LOSSES[name], z) for name in LOSSES
            ]
        norms = [float(gradient.norm()) for gradient in by_loss]
        row = {"discriminator_alone": count, "D(G(z))": float(chances.mean())}
        row |= {f"gradient of {name}": norm for name, norm in zip(LOSSES, norms, strict=True)}
        odds = float(chances.mean() / (1 - chances).mean())
        cosine = float(torch.cosine_similarity(*by_loss, dim=0))
        yield row | {"ratio": norms[1] / norms[0], "odds": odds, "cosine": cosine}
