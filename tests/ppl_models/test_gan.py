import json

import pytest
import torch
from torch import nn

from ppl_models import (
    ConvDecoder,
    ConvEncoder,
    Critic,
    DeepConvDecoder,
    DeepConvEncoder,
    Generator,
    MLPDecoder,
    MLPEncoder,
    dcgan_,
)
from runners.blueprint import describe, rebuild

FACES = {"channels": (16, 8), "shape": (3, 16, 16), "norm": "batch"}
PAIRS = {
    "conv": lambda: (
        ConvDecoder(latents=10),
        ConvEncoder(channels=(8, 16, 32, 64, 64), strides=(2, 1, 2, 1, 2)),
    ),
    "dcgan": lambda: (
        DeepConvDecoder(latents=6, **FACES),
        DeepConvEncoder(**FACES, activation="leaky-relu"),
    ),
    "connected": lambda: (
        MLPDecoder(latents=128, hidden=(256, 512, 1024), activation="leaky-relu"),
        MLPEncoder(hidden=(1024, 512, 256), activation="leaky-relu"),
    ),
    "mixed": lambda: (
        DeepConvDecoder(
            latents=5, shape=(1, 28, 28), channels=(128, 64), hidden=(1024,), norm="batch", activation="leaky-relu"
        ),
        MLPEncoder(hidden=(1024, 512, 256), activation="leaky-relu"),
    ),
    "points": lambda: (
        MLPDecoder(latents=3, shape=(2,), hidden=(8,)),
        MLPEncoder(shape=(2,), hidden=(8,), activation="leaky-relu"),
    ),
}
pairs = pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS.keys())


@pairs
def test_shapes_and_range(make: object) -> None:
    decoder, encoder = make()
    generator, critic = Generator(decoder), Critic(encoder)
    assert (generator.latents, generator.shape) == (decoder.latents, decoder.shape)
    images = generator(torch.randn(3, 2, decoder.latents))
    assert images.shape == (3, 2, *encoder.shape)
    assert images.min() >= 0
    assert images.max() <= 1
    assert critic(images).shape == (3, 2)
    assert generator.sample(4).shape == (4, *encoder.shape)


def test_images_are_the_decoders_outputs_between_zero_and_one() -> None:
    generator = Generator(MLPDecoder(latents=3, shape=(1, 2, 2), hidden=(4,))).double()
    z = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(generator(z), (2 * generator.decoder(z)).sigmoid())
    with torch.no_grad():
        generator.decoder.body[-1].weight.mul_(1e4)
    images = generator(z)
    assert images.amin() == 0
    assert images.amax() == 1


def test_scores_are_linear_in_the_features() -> None:
    critic = Critic(MLPEncoder(shape=(1, 2, 2), hidden=(5,))).double()
    x = torch.rand(6, 1, 2, 2, dtype=torch.float64)
    expected = critic.encoder(x) @ critic.head.weight[0] + critic.head.bias
    torch.testing.assert_close(critic(x), expected)


def test_samples_are_images_of_standard_normal_latents() -> None:
    generator, seen = Generator(MLPDecoder(latents=3, shape=(1, 2, 2), hidden=(4,))).double(), []
    generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    one, again, other = (generator.sample(20_000, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.dtype == torch.float64
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    torch.testing.assert_close(seen[0].mT.cov(), torch.eye(3, dtype=torch.float64), atol=0.05, rtol=0)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(3, dtype=torch.float64), atol=0.05, rtol=0)
    assert torch.equal(generator(seen[0]), one)
    one.sum().backward()
    assert all(p.grad is not None for p in generator.parameters())


@pairs
def test_players_are_made_again_from_their_description(make: object) -> None:
    decoder, encoder = make()
    inputs = torch.randn(4, decoder.latents), torch.rand(4, *encoder.shape)
    for net, x in zip((Generator(decoder), Critic(encoder)), inputs, strict=True):
        again = rebuild(json.loads(json.dumps(describe(net))))
        assert repr(again) == repr(net)
        assert describe(again) == describe(net)
        again.load_state_dict(net.state_dict())
        assert torch.equal(again.eval()(x), net.eval()(x))


@pairs
def test_autocast_leaves_images_and_scores_in_single_precision(make: object) -> None:
    decoder, encoder = make()
    generator, critic = Generator(decoder), Critic(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(torch.randn(4, decoder.latents))
        scores = critic(images)
    assert (images.dtype, scores.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(images, images.bfloat16().float())


def test_running_statistics_move_while_training_only() -> None:
    decoder, encoder = PAIRS["dcgan"]()
    generator, critic = dcgan_(Generator(decoder)), dcgan_(Critic(encoder))
    x = torch.rand(8, 3, 16, 16)
    for net, run in ((generator, lambda: generator.sample(8)), (critic, lambda: critic(x))):
        norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
        assert statistics
        for training in (False, True):
            net.train(training)
            before = [value.clone() for value in statistics]
            run()
            assert [not torch.equal(*both) for both in zip(before, statistics, strict=True)] == [training] * len(before)
    critic.eval()
    torch.testing.assert_close(critic(x)[3:5], critic(x[3:5]))
    critic.train()
    assert not torch.allclose(critic(x)[3:5], critic(x[3:5]))
