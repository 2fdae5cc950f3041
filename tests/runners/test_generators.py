"""Generators out of fits of either kind."""

import pytest
import small
import torch

from guides import Amortized, AmortizedLadder
from ppl_models import CVAE, VAE, Critic, Generator, Ladder, MLPDecoder, MLPEncoder, UsageError
from runners import gan, svi
from runners.fit import Fit
from runners.generators import generator_of

SHAPE = (1, 8, 8)


def vae(**labels: int) -> Fit:
    classes = labels.get("classes", 0)
    decoder = MLPDecoder(latents=3 + classes, shape=SHAPE, hidden=(8,))
    model = CVAE(decoder=decoder, **labels) if labels else VAE(decoder=decoder)
    guide = Amortized(encoder=MLPEncoder(shape=SHAPE, hidden=(8,), **labels), latents=3)
    return svi.fit(model, guide, small.data_set(), steps=1, batch=16, progress=False)


def test_a_models_generator_is_its_decoders_mean() -> None:
    fit, conditional, z = vae(), vae(classes=10), torch.randn(2, 5, 3)
    made = generator_of(fit)
    assert made.latents == 3
    torch.testing.assert_close(made(z), fit.model.decode(z).mean)
    labelled = generator_of(conditional, label=4)
    torch.testing.assert_close(labelled(z), conditional.model.decode(z, torch.full((2, 5), 4)).mean)
    assert not any(module.training for module in made.modules())
    before = [p.clone() for p in fit.model.parameters()]
    for parameter in made.double().parameters():
        parameter.zero_()
    assert all(torch.equal(p, kept) for p, kept in zip(fit.model.parameters(), before, strict=True))
    for other, label in ((fit, 1), (conditional, None), (conditional, 10)):
        with pytest.raises(UsageError, match="label"):
            generator_of(other, label=label)


def test_a_ladder_is_no_generator() -> None:
    fit = Fit(
        Ladder(decoder=MLPDecoder(latents=100, shape=SHAPE)),
        AmortizedLadder(encoder=MLPEncoder(shape=SHAPE)),
        small.data_set(),
        batch=16,
        progress=False,
    )
    with pytest.raises(UsageError, match="has latents .*, expected one"):
        generator_of(fit)


def test_a_gans_generator_is_its_average_where_one_is_kept() -> None:
    networks = Generator(MLPDecoder(latents=3, shape=SHAPE)), Critic(MLPEncoder(shape=SHAPE))
    adversarial = gan.fit(*networks, small.data_set(), steps=3, batch=16, average=0.5, progress=False)
    z = torch.randn(4, 3)
    average, last = adversarial.average.module.eval(), adversarial.generator.eval()
    assert not torch.equal(average(z), last(z))
    for which, expected in ((None, average), ("average", average), ("last", last)):
        torch.testing.assert_close(generator_of(adversarial, which=which)(z), expected(z))
    with pytest.raises(UsageError, match="best: no generator"):
        generator_of(adversarial, which="best")
    with pytest.raises(UsageError, match="which: found 'last'"):
        generator_of(vae(), which="last")
