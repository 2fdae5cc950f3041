import copy

import pytest
import torch
from torch import Tensor, nn

from ppl_models import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    DeepConvDecoder,
    DeepConvEncoder,
    MLPDecoder,
    MLPEncoder,
    UsageError,
)
from ppl_models.nets import join_labels, one_hot
from runners.blueprint import describe, rebuild

ENCODERS = {
    "mlp": lambda classes: MLPEncoder(shape=(1, 8, 8), hidden=(7, 5), activation="tanh", classes=classes),
    "conv": lambda classes: ConvEncoder(shape=(1, 8, 8), channels=(4, 6, 8), classes=classes),
    "deep": lambda classes: DeepConvEncoder(shape=(1, 8, 8), channels=(6, 8), classes=classes),
}
encoders = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())


def first_weight(net: nn.Module) -> Tensor:
    return next(net.parameters())


def test_deep_convolutions_halve_and_double_the_image() -> None:
    encoder, decoder = DeepConvEncoder(), DeepConvDecoder(latents=6)
    assert encoder.features == 256 * 4 * 4
    sides, x = [], torch.rand(2, 3, 64, 64)
    for layer in encoder.body[:-1]:
        x = layer(x)
        sides += [x.shape[-1]] if isinstance(layer, nn.Conv2d) else []
    assert sides == [32, 16, 8, 4]
    assert [tuple(p.shape[:2]) for p in encoder.parameters()][::2] == [(32, 3), (64, 32), (128, 64), (256, 128)]
    shapes = [tuple(p.shape[:2]) for p in decoder.parameters()][::2]
    assert shapes == [(4096, 6), (256, 128), (128, 64), (64, 32), (32, 3)]
    assert decoder(torch.randn(2, 6)).shape == (2, 3, 64, 64)


def test_deep_convolutions_broadcast_over_particles_and_no_datum_sees_another() -> None:
    encode = DeepConvEncoder(shape=(3, 16, 8), channels=(4, 5, 6)).double()
    decode = DeepConvDecoder(latents=4, shape=(3, 16, 8), channels=(6, 5, 4)).double()
    z = torch.randn(3, 5, 4, dtype=torch.float64)
    images = decode(z)
    assert images.shape == (3, 5, 3, 16, 8)
    torch.testing.assert_close(images[1, 2], decode(z[1, 2]))
    features = encode(images)
    assert features.shape == (3, 5, encode.features)
    torch.testing.assert_close(features[2, 4], encode(images[2, 4]))


@pytest.mark.parametrize("make", [DeepConvEncoder, DeepConvDecoder])
def test_sides_that_do_not_halve_are_refused(make: type) -> None:
    with pytest.raises(UsageError, match=r"DeepConv.*\(64, 72\).*multiples of 16"):
        make(shape=(3, 64, 72))


@pytest.mark.parametrize("decoder", [ConvDecoder(), DeepConvDecoder()])
def test_dense_outputs_become_images_with_channels_last(decoder: nn.Module) -> None:
    seen = []
    decoder.body[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    decoder(torch.randn(2, 3, 10))
    assert seen[0].shape[0] == 6
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_activation_is_tanh_where_asked() -> None:
    net, x = MLP([3, 4, 2], activation="tanh").double(), torch.randn(5, 3, dtype=torch.float64)
    expected = (x @ net[0].weight.mT + net[0].bias).tanh() @ net[2].weight.mT + net[2].bias
    torch.testing.assert_close(net(x), expected)
    encoder = MLPEncoder(activation="tanh")
    assert encoder(torch.rand(4, 1, 28, 28)).min() < 0
    assert MLPEncoder()(torch.rand(4, 1, 28, 28)).min() == 0
    assert [type(layer) for layer in MLPDecoder(activation="tanh").body][1::2] == [nn.Tanh, nn.Tanh]
    with pytest.raises(UsageError, match="'gelu', expected relu or tanh"):
        MLP([2, 2], activation="gelu")


def test_one_hot_codes_and_labels_outside_them() -> None:
    y = torch.tensor([[0, 2], [1, 2]])
    codes = one_hot(y, 3, torch.zeros((), dtype=torch.float64))
    assert codes.dtype == torch.float64
    torch.testing.assert_close(codes, torch.nn.functional.one_hot(y, 3).double())
    assert one_hot(torch.tensor([-1, 3]), 3, codes).isnan().all()


@encoders
def test_encoders_read_labels_only_with_classes(make: object) -> None:
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    blind, labelled = make(0), make(3)
    assert (blind.classes, labelled.classes) == (0, 3)
    assert torch.equal(blind(x, y), blind(x))
    one, other = labelled(x, y), labelled(x, (y + 1) % 3)
    assert one.shape == (4, labelled.features)
    assert ((one - other).abs().amax(-1) > 1e-4).all()


@encoders
def test_permuting_labels_and_their_weights_changes_nothing(make: object) -> None:
    encoder = make(3).double()
    x, y = torch.rand(4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    permuted, order = copy.deepcopy(encoder), torch.tensor([2, 0, 1])
    start = first_weight(encoder).shape[1] - 3
    with torch.no_grad():
        first_weight(permuted)[:, start + order] = first_weight(encoder)[:, start:]
    torch.testing.assert_close(permuted(x, order[y]), encoder(x, y))
    assert not torch.allclose(permuted(x, y), encoder(x, y))


@encoders
def test_labels_broadcast_against_particles(make: object) -> None:
    encoder = make(3).double()
    x, y = torch.rand(2, 4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    features = encoder(x, y)
    torch.testing.assert_close(features[1], encoder(x[1], y))
    labels = torch.tensor([[0], [1], [2]])
    every = encoder(x[0], labels)
    assert every.shape == (3, 4, encoder.features)
    torch.testing.assert_close(every[2], encoder(x[0], torch.full((4,), 2)))


@encoders
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "no labels y.*3 classes"),
        (torch.zeros(5, dtype=torch.long), r"shape \(5,\), expected one per datum, \(4,\)"),
        (torch.eye(4), "float32, expected integers from 0 to 2"),
    ],
)
def test_wrong_labels_are_refused(make: object, y: Tensor | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(3)(torch.rand(4, 1, 8, 8), y)
    assert "\n" not in str(caught.value)


def test_labels_join_as_constant_planes() -> None:
    joined = join_labels(torch.zeros(2, 3, 4, 5), torch.tensor([1, 0]), 2, dim=-3)
    assert joined.shape == (2, 5, 4, 5)
    assert joined[0, 4].eq(1).all()
    assert joined[1, 3].eq(1).all()
    assert joined.sum() == 2 * 20


@encoders
def test_encoders_read_nothing_on_the_host(make: object) -> None:
    encoder = make(3).to("meta")
    x, y = torch.rand(4, 1, 8, 8, device="meta"), torch.zeros(4, dtype=torch.long, device="meta")
    encoder(x, y).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(
    "net",
    [
        MLP([3, 4, 2], activation="tanh"),
        MLPDecoder(latents=3, shape=(1, 4, 4), hidden=(5,), activation="tanh"),
        DeepConvDecoder(latents=3, shape=(1, 8, 8), channels=(3, 2)),
        *(make(3) for make in ENCODERS.values()),
    ],
    ids=lambda net: type(net).__name__,
)
def test_nets_are_made_again_from_their_description(net: nn.Module) -> None:
    again = rebuild(describe(net))
    assert repr(again) == repr(net)
    assert describe(again) == describe(net)
    again.load_state_dict(net.state_dict())
