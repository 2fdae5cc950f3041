"""Networks: encoders end in `features` numbers per image, decoders begin with `latents` numbers.

Every network takes any number of leading dimensions (particles, then the batch), and keeps each constructor
argument under its own name, so that a run folder can say how to build it again. An encoder with `classes` reads the
label beside the image, as a one-hot code; one without does not look at it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError

__all__ = [
    "MLP",
    "Activation",
    "ConvDecoder",
    "ConvEncoder",
    "DeepConvDecoder",
    "DeepConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "Norm",
    "dcgan_",
    "glorot_",
    "join_labels",
    "one_hot",
    "over_leading",
]

Activation = Literal["relu", "tanh", "leaky-relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "leaky-relu": partial(nn.LeakyReLU, 0.2, inplace=True),
}
Norm = Literal["none", "batch"]


def glorot_(module: nn.Module) -> nn.Module:
    """Start a module's weights Glorot-uniform and its biases at zero, as the courses' TensorFlow layers do.

    Glorot and Bengio 2010. On MNIST the convolutional pair was 2.5 nats better off after 10 000 steps than from
    torch's own start; with free parameters the decoder was 4 nats worse off after 3300.

    Returns:
        The module, changed in place.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def dcgan_(module: nn.Module) -> nn.Module:
    """Start weights at N(0, 0.02²), those of batch norm at N(1, 0.02²), and biases at zero, as in DCGAN.

    Radford, Metz and Chintala 2016, arXiv:1511.06434.

    Returns:
        The module, changed in place.
    """
    for layer in module.modules():
        norm = isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))
        if norm or isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, float(norm), 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def over_leading(net: Callable[[Tensor], Tensor], x: Tensor, *, event_dim: int) -> Tensor:
    """Apply a network that wants one batch dimension to `x` of shape `(*leading, *event)`."""
    leading = x.shape[: x.dim() - event_dim]
    if len(leading) == 1:
        return net(x)
    out = net(x.reshape(-1, *x.shape[len(leading) :]))
    return out.reshape(*leading, *out.shape[1:])


def one_hot(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels as one-hot codes, `(*) → (*, classes)`, in the dtype of `like`; nothing is read on the host.

    A label outside 0, …, classes - 1 becomes NaN, which stops a run, where zeros would train in silence.
    """
    hot = y.unsqueeze(-1) == torch.arange(classes, device=y.device)
    return hot.to(like.dtype) / hot.any(-1, keepdim=True)


def join_labels(x: Tensor, y: Tensor | None, classes: int, *, dim: int = -1) -> Tensor:
    """Join the one-hot codes of labels to `x` along `dim`; with 0 classes, `x` itself.

    Args:
        x: `(*leading, *event)`, the event beginning at `dim`.
        y: Labels, integers of a shape that broadcasts against `leading`.
        classes: How many labels there are.
        dim: Where they go, from the end: -1 for vectors, -3 for images, which get a constant plane per class.

    Returns:
        A tensor of the broadcast shape, `classes` longer along `dim`.

    Raises:
        UsageError: There are no labels, or they are not integers, or their shape does not fit.
    """
    if not classes:
        return x
    if y is None:
        raise UsageError(f"the batch has no labels y, expected them: {classes} classes are read")
    if y.is_floating_point():
        raise UsageError(f"labels y of {y.dtype}, expected integers from 0 to {classes - 1}")
    leading, after = x.shape[: x.dim() + dim], x.shape[x.dim() + dim + 1 :]
    try:
        leading = torch.broadcast_shapes(leading, y.shape)
    except RuntimeError as error:
        raise UsageError(f"labels y of shape {tuple(y.shape)}, expected one per datum, {tuple(leading)}") from error
    labels = one_hot(y, classes, x)
    labels = labels.view(*labels.shape, *[1] * len(after)).expand(*leading, classes, *after)
    return torch.cat([x.expand(*leading, *x.shape[dim:]), labels], dim)


class MLP(nn.Sequential):
    """Linear layers with an activation after each but the last: `(*, widths[0]) → (*, widths[-1])`.

    Raises:
        UsageError: The activation is none of `"relu"`, `"tanh"` and `"leaky-relu"`, whose slope is 0.2.
    """

    def __init__(self, widths: Sequence[int], *, activation: Activation = "relu") -> None:
        super().__init__(*_dense(widths, activation)[:-1])
        self.widths, self.activation = tuple(widths), activation


class MLPEncoder(nn.Module):
    """Flattened images, joined by their labels, through hidden layers: `(*, C, H, W) → (*, hidden[-1])`."""

    def __init__(
        self,
        *,
        shape: Sequence[int] = (1, 28, 28),
        hidden: Sequence[int] = (200, 200),
        activation: Activation = "relu",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.hidden, self.activation, self.classes = tuple(shape), tuple(hidden), activation, classes
        self.features = self.hidden[-1]
        widths = [math.prod(self.shape) + classes, *self.hidden]
        self.body = nn.Sequential(MLP(widths, activation=activation), _activation(activation))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.body(join_labels(x.flatten(-len(self.shape)), y, self.classes))


class MLPDecoder(nn.Module):
    """Latents through hidden layers to one output per pixel and channel: `(*, latents) → (*, C, H, W)`."""

    def __init__(
        self,
        *,
        latents: int = 10,
        shape: Sequence[int] = (1, 28, 28),
        hidden: Sequence[int] = (200, 200),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.latents, self.shape, self.hidden, self.activation = latents, tuple(shape), tuple(hidden), activation
        self.body = MLP([latents, *self.hidden, math.prod(self.shape)], activation=activation)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).unflatten(-1, self.shape)


class ConvEncoder(nn.Module):
    """5×5 convolutions, a stride for each: `(*, C, H, W) → (*, features)`.

    With the defaults 28 → 14 → 7 → 7 pixels and 1 → 8 → 16 → 32 channels; labels come as one more channel per class.

    Raises:
        UsageError: There are not as many strides as channels.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int] = (1, 28, 28),
        channels: Sequence[int] = (8, 16, 32),
        strides: Sequence[int] = (2, 2, 1),
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.channels, self.strides, self.classes = tuple(shape), tuple(channels), tuple(strides), classes
        if len(self.strides) != len(self.channels):
            raise UsageError(
                f"ConvEncoder: strides {self.strides} for channels {self.channels}, expected one stride per convolution"
            )
        layers: list[nn.Module] = []
        widths = [self.shape[0] + classes, *self.channels]
        for (into, out), stride in zip(pairwise(widths), self.strides, strict=True):
            layers += [nn.Conv2d(into, out, 5, stride=stride, padding=2), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        shrunk = math.prod(self.strides)
        self.features = self.channels[-1] * math.prod(math.ceil(side / shrunk) for side in self.shape[1:])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return over_leading(self.body, join_labels(x, y, self.classes, dim=-3), event_dim=3)


class ConvDecoder(nn.Module):
    """A dense layer and two 5×5 transposed convolutions of stride 2: `(*, latents) → (*, C, H, W)`.

    With the defaults 7 → 14 → 28 pixels and 64 → 32 → 1 channels, no activation at the end.

    Raises:
        UsageError: A side of `shape` is not a multiple of 4.
    """

    def __init__(
        self, *, latents: int = 10, shape: Sequence[int] = (1, 28, 28), channels: Sequence[int] = (64, 32)
    ) -> None:
        super().__init__()
        self.latents, self.shape, self.channels = latents, tuple(shape), tuple(channels)
        first, second = self.channels
        self.height, self.width = _halved("ConvDecoder", self.shape, times=2)
        self.dense = nn.Sequential(nn.Linear(latents, first * self.height * self.width), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.ConvTranspose2d(first, second, 5, stride=2, padding=2, output_padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(second, self.shape[0], 5, stride=2, padding=2, output_padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return over_leading(self.body, _as_images(self.dense(z), self.height, self.width), event_dim=3)


class DeepConvEncoder(nn.Module):
    """4×4 convolutions, each halving the image: `(*, C, H, W) → (*, features)`.

    After Radford, Metz and Chintala 2016, arXiv:1511.06434. With the defaults 64 → 32 → 16 → 8 → 4 pixels; labels come
    as one more channel per class.

    Args:
        shape: Of an image, `(C, H, W)`.
        channels: After each convolution.
        activation: After each convolution.
        norm: With `"batch"`, as in the paper, batch norm after each convolution but the first, over all leading
            dimensions; an image's answer then depends on the others while training, so not in a guide.
        classes: How many labels there are; 0 if they are not looked at.

    Raises:
        UsageError: A side of `shape` is not a multiple of 2 to the number of convolutions, or a name is unknown.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int] = (3, 64, 64),
        channels: Sequence[int] = (32, 64, 128, 256),
        activation: Activation = "relu",
        norm: Norm = "none",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.channels, self.classes = tuple(shape), tuple(channels), classes
        self.activation, self.norm = activation, norm
        sides = _halved("DeepConvEncoder", self.shape, times=len(self.channels))
        first, *others = pairwise([self.shape[0] + classes, *self.channels])
        layers = [nn.Conv2d(*first, 4, stride=2, padding=1), _activation(activation)]
        for into, out in others:
            layers.append(nn.Conv2d(into, out, 4, stride=2, padding=1, bias=norm == "none"))
            layers += [*_normalized(norm, out), _activation(activation)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.features = self.channels[-1] * math.prod(sides)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return over_leading(self.body, join_labels(x, y, self.classes, dim=-3), event_dim=3)


class DeepConvDecoder(nn.Module):
    """The mirror of `DeepConvEncoder`, dense layers and transposed convolutions: `(*, latents) → (*, C, H, W)`.

    With the defaults 4 → 8 → 16 → 32 → 64 pixels and 256 → 128 → 64 → 32 → 3 channels, no activation at the end.

    Args:
        latents: How many.
        shape: Of an image, `(C, H, W)`.
        channels: Before each convolution.
        hidden: Widths of dense layers before the one that makes the first, smallest image.
        activation: After every layer but the last.
        norm: With `"batch"`, as in the paper, batch norm of the smallest image and after each convolution but the
            last, a mean and a variance per channel over all leading dimensions.

    Raises:
        UsageError: A side of `shape` is not a multiple of 2 to the number of convolutions, or a name is unknown.
    """

    def __init__(
        self,
        *,
        latents: int = 10,
        shape: Sequence[int] = (3, 64, 64),
        channels: Sequence[int] = (256, 128, 64, 32),
        hidden: Sequence[int] = (),
        activation: Activation = "relu",
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.latents, self.shape, self.channels, self.hidden = latents, tuple(shape), tuple(channels), tuple(hidden)
        self.activation, self.norm = activation, norm
        self.height, self.width = _halved("DeepConvDecoder", self.shape, times=len(self.channels))
        plain, widths = norm == "none", [latents, *self.hidden]
        smallest = nn.Linear(widths[-1], self.channels[0] * self.height * self.width, bias=plain)
        dense = [*_dense(widths, activation), smallest]
        after = [*_normalized(norm, self.channels[0]), _activation(activation)]
        layers: list[nn.Module] = []
        for into, out in pairwise(self.channels):
            layers.append(nn.ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=plain))
            layers += [*_normalized(norm, out), _activation(activation)]
        layers.append(nn.ConvTranspose2d(self.channels[-1], self.shape[0], 4, stride=2, padding=1))
        # A norm per channel has to see images; without one the activation comes before, as checkpoints have it.
        self.dense = nn.Sequential(*dense, *(after if plain else []))
        self.body = nn.Sequential(*([] if plain else after), *layers)

    def forward(self, z: Tensor) -> Tensor:
        return over_leading(self.body, _as_images(self.dense(z), self.height, self.width), event_dim=3)


def _activation(name: str) -> nn.Module:
    """A new layer, of an activation's name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"activation: found {name!r}, expected {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def _normalized(norm: str, channels: int) -> list[nn.Module]:
    """What comes between a convolution and its activation."""
    if norm not in ("none", "batch"):
        raise UsageError(f"norm: found {norm!r}, expected none or batch")
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []


def _dense(widths: Sequence[int], activation: str) -> list[nn.Module]:
    """Linear layers, an activation after each."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), _activation(activation)]
    return layers


def _halved(name: str, shape: Sequence[int], *, times: int) -> tuple[int, int]:
    """An image's sides halved so many times; `name` is who asks."""
    _, height, width = shape
    if height % 2**times or width % 2**times:
        raise UsageError(f"{name}: images of {(height, width)}, expected sides that are multiples of {2**times}")
    return height // 2**times, width // 2**times


def _as_images(values: Tensor, height: int, width: int) -> Tensor:
    """A dense layer's output as images, `(*, H · W · C) → (*, C, H, W)`."""
    # Channels come last in the dense layer's output: the image is in channels_last format without a copy.
    return values.unflatten(-1, (height, width, -1)).movedim(-1, -3)
