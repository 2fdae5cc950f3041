import copy
import math
from functools import partial

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
    dcgan_,
    glorot_,
)
from ppl_models.layers import GreyConvTranspose2d, join_labels, one_hot
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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "settings"),
    [(4, {"padding": 1}), (5, {"padding": 2, "output_padding": 1}), ((3, 2), {"padding": (0, 1)})],
)
def test_one_channel_comes_out_as_of_torch_with_both_gradients(kernel: int, settings: dict, bias: bool) -> None:
    torch.manual_seed(0)
    ours = GreyConvTranspose2d(6, 1, kernel, stride=2, bias=bias, **settings).double()
    theirs = nn.ConvTranspose2d(6, 1, kernel, stride=2, bias=bias, **settings).double()
    theirs.load_state_dict(ours.state_dict())
    for x in (torch.randn(3, 6, 5, 4, dtype=torch.float64), torch.randn(0, 6, 5, 4, dtype=torch.float64)):
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        made, expected = ours(x), theirs(x)
        torch.testing.assert_close(made, expected)
        weights = torch.randn_like(made)
        both = ((made, ours), (expected, theirs))
        pairs = [torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()]) for y, layer in both]
        for found, wanted in zip(*pairs, strict=True):
            torch.testing.assert_close(found, wanted)


def test_one_channel_is_summed_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    layer, x = GreyConvTranspose2d(32, 1, 5, stride=2, padding=2, output_padding=1), torch.randn(4, 32, 7, 7)
    exact = layer.double()(x.double()).detach()
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        made, torchs = layer(x), nn.ConvTranspose2d.forward(layer, x)
    assert made.dtype == torch.float32
    assert (made - exact).square().mean() < 1.5 * (torchs - exact).square().mean()


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


# What each network was made of when its checkpoints were written: layers by name, in the order they drew weights.
WRITTEN = {
    "ConvEncoder": (
        ConvEncoder,
        {
            "body.0": lambda: nn.Conv2d(1, 8, 5),
            "body.2": lambda: nn.Conv2d(8, 16, 5),
            "body.4": lambda: nn.Conv2d(16, 32, 5),
        },
    ),
    "ConvDecoder": (
        ConvDecoder,
        {
            "dense.0": lambda: nn.Linear(10, 3136),
            "body.0": lambda: nn.ConvTranspose2d(64, 32, 5),
            "body.2": lambda: nn.ConvTranspose2d(32, 1, 5),
        },
    ),
    "DeepConvEncoder": (
        partial(DeepConvEncoder, channels=(4, 8, 16)),
        {
            "body.0": lambda: nn.Conv2d(3, 4, 4),
            "body.2": lambda: nn.Conv2d(4, 8, 4),
            "body.4": lambda: nn.Conv2d(8, 16, 4),
        },
    ),
    "DeepConvDecoder": (
        partial(DeepConvDecoder, channels=(16, 8, 4)),
        {
            "dense.0": lambda: nn.Linear(10, 1024),
            "body.0": lambda: nn.ConvTranspose2d(16, 8, 4),
            "body.2": lambda: nn.ConvTranspose2d(8, 4, 4),
            "body.4": lambda: nn.ConvTranspose2d(4, 3, 4),
        },
    ),
    "MLPEncoder": (
        MLPEncoder,
        {"body.0.0": lambda: nn.Linear(784, 200), "body.0.2": lambda: nn.Linear(200, 200)},
    ),
    "MLPDecoder": (
        MLPDecoder,
        {
            "body.0": lambda: nn.Linear(10, 200),
            "body.2": lambda: nn.Linear(200, 200),
            "body.4": lambda: nn.Linear(200, 784),
        },
    ),
}


@pytest.mark.parametrize(("make", "layers"), WRITTEN.values(), ids=WRITTEN.keys())
def test_defaults_keep_names_and_first_values_of_checkpoints(make: object, layers: dict) -> None:
    torch.manual_seed(3)
    written = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer().state_dict().items()}
    torch.manual_seed(3)
    now = make().state_dict()
    assert list(now) == list(written)
    assert all(torch.equal(now[name], value) for name, value in written.items())


def kinds(net: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in net]


def test_batch_norm_goes_where_dcgan_has_it() -> None:
    nets = {"norm": "batch", "activation": "leaky-relu"}
    encoder, decoder = DeepConvEncoder(**nets), DeepConvDecoder(hidden=(7, 6), **nets)
    normed = ["BatchNorm2d", "LeakyReLU"]
    assert kinds(encoder.body) == ["Conv2d", "LeakyReLU", *["Conv2d", *normed] * 3, "Flatten"]
    assert kinds(decoder.dense) == ["Linear", "LeakyReLU"] * 2 + ["Linear"]
    assert kinds(decoder.body) == [*normed, *["ConvTranspose2d", *normed] * 3, "GreyConvTranspose2d"]
    for net in (encoder, decoder):
        layers = [layer for layer in net.modules() if not list(layer.children())]
        assert all(layer.negative_slope == 0.2 for layer in layers if isinstance(layer, nn.LeakyReLU))
        for layer, after in zip(layers, layers[1:], strict=False):
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                assert (layer.bias is None) == isinstance(after, nn.BatchNorm2d)
    assert decoder.body[-1].bias is not None
    assert [layer.num_features for layer in decoder.body if isinstance(layer, nn.BatchNorm2d)] == [256, 128, 64, 32]


def test_batch_norm_is_over_all_leading_dimensions() -> None:
    decoder, seen = DeepConvDecoder(latents=4, shape=(3, 8, 8), channels=(6, 5), norm="batch").double(), []
    for layer in decoder.body:
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    z = torch.randn(3, 5, 4, dtype=torch.float64)
    images = decoder(z)
    assert images.shape == (3, 5, 3, 8, 8)
    torch.testing.assert_close(images.flatten(0, 1), decoder(z.flatten(0, 1)))
    for values in seen:
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-9, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(mean), atol=1e-2, rtol=0)
    alone = decoder.eval()(z)
    torch.testing.assert_close(alone[1, 2], decoder(z[1, 2]))


def test_dense_layers_before_the_projection() -> None:
    net = DeepConvDecoder(latents=3, shape=(1, 4, 4), channels=(2,), hidden=(5, 4), activation="leaky-relu").double()
    h = z = torch.randn(6, 3, dtype=torch.float64)
    for layer in net.dense:
        if isinstance(layer, nn.Linear):
            h = h @ layer.weight.mT + layer.bias
            h = torch.where(h > 0, h, 0.2 * h)
    assert [layer.out_features for layer in net.dense if isinstance(layer, nn.Linear)] == [5, 4, 8]
    torch.testing.assert_close(net(z), net.body(h.view(6, 2, 2, 2).permute(0, 3, 1, 2)))


def test_names_that_are_unknown_are_refused() -> None:
    for make in (DeepConvEncoder, DeepConvDecoder):
        with pytest.raises(UsageError, match="'gelu', expected relu or tanh or leaky-relu"):
            make(activation="gelu")
        with pytest.raises(UsageError, match="norm: found 'layer', expected none or batch"):
            make(norm="layer")


def test_strides_of_the_convolutional_encoder() -> None:
    encoder, sides, x = ConvEncoder(channels=(8, 16, 32, 64, 64), strides=(2, 1, 2, 1, 2)), [], torch.rand(2, 1, 28, 28)
    for layer in encoder.body[:-1]:
        x = layer(x)
        sides += [tuple(x.shape[1:])] if isinstance(layer, nn.Conv2d) else []
    assert sides == [(8, 14, 14), (16, 14, 14), (32, 7, 7), (64, 7, 7), (64, 4, 4)]
    assert encoder.features == 64 * 4 * 4
    odd = ConvEncoder(shape=(1, 13, 22), channels=(2, 3), strides=(3, 2))
    assert odd(torch.rand(2, 1, 13, 22)).shape == (2, odd.features)
    with pytest.raises(UsageError, match=r"strides \(2, 2, 1\) for channels \(8, 16\), expected one") as caught:
        ConvEncoder(channels=(8, 16))
    assert "\n" not in str(caught.value)


def test_starts_of_networks_without_biases() -> None:
    nets = {"shape": (3, 32, 32), "norm": "batch"}
    net = nn.ModuleList([DeepConvEncoder(**nets), DeepConvDecoder(hidden=(300,), latents=100, **nets)])
    assert dcgan_(net) is net
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            weight, error = layer.weight.detach(), 5 / math.sqrt(layer.weight.numel())
            assert float(weight.mean()) == pytest.approx(float(isinstance(layer, nn.BatchNorm2d)), abs=0.02 * error)
            assert float(weight.std()) == pytest.approx(0.02, rel=error)
            assert layer.bias is None or layer.bias.eq(0).all()
    for layer in glorot_(net).modules():
        if isinstance(layer, nn.Conv2d):
            fans = (layer.in_channels + layer.out_channels) * 16
            assert float(layer.weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / fans), rel=0.01)


@pytest.mark.parametrize(
    "net",
    [
        MLP([3, 4, 2], activation="tanh"),
        MLPDecoder(latents=3, shape=(1, 4, 4), hidden=(5,), activation="tanh"),
        DeepConvDecoder(latents=3, shape=(1, 8, 8), channels=(3, 2)),
        DeepConvDecoder(
            latents=3, shape=(1, 8, 8), channels=(3, 2), hidden=(5, 4), activation="leaky-relu", norm="batch"
        ),
        DeepConvEncoder(shape=(1, 8, 8), channels=(2, 3), activation="leaky-relu", norm="batch", classes=2),
        ConvEncoder(shape=(1, 8, 8), channels=(2, 3), strides=(1, 2)),
        *(make(3) for make in ENCODERS.values()),
    ],
    ids=lambda net: type(net).__name__,
)
def test_nets_are_made_again_from_their_description(net: nn.Module) -> None:
    again = rebuild(describe(net))
    assert repr(again) == repr(net)
    assert describe(again) == describe(net)
    again.load_state_dict(net.state_dict())
