"""Networks: encoders end in `features` numbers per image, decoders begin with `latents` numbers.

Every network takes any number of leading dimensions (particles, then the batch), and keeps each constructor
argument under its own name, so that a run folder can say how to build it again. An encoder with `classes` reads the
label beside the image, as a one-hot code; one without does not look at it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.layers import (
    Activation,
    GreyConvTranspose2d,
    Norm,
    activation_of,
    dense,
    join_labels,
    normalized,
    over_leading,
)

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "DeepConvDecoder",
    "DeepConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
]


class MLP(nn.Sequential):
    """Linear layers with an activation after each but the last: `(*, widths[0]) → (*, widths[-1])`.

    Raises:
        UsageError: The activation is none of `"relu"`, `"tanh"` and `"leaky-relu"`, whose slope is 0.2.
    """

    def __init__(self, widths: Sequence[int], *, activation: Activation = "relu") -> None:
        super().__init__(*dense(widths, activation)[:-1])
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
        self.body = nn.Sequential(MLP(widths, activation=activation), activation_of(activation))

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
            GreyConvTranspose2d(second, self.shape[0], 5, stride=2, padding=2, output_padding=1),
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
        layers = [nn.Conv2d(*first, 4, stride=2, padding=1), activation_of(activation)]
        for into, out in others:
            layers.append(nn.Conv2d(into, out, 4, stride=2, padding=1, bias=norm == "none"))
            layers += [*normalized(norm, out), activation_of(activation)]
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
        before = [*dense(widths, activation), smallest]
        after = [*normalized(norm, self.channels[0]), activation_of(activation)]
        layers: list[nn.Module] = []
        for into, out in pairwise(self.channels):
            layers.append(nn.ConvTranspose2d(into, out, 4, stride=2, padding=1, bias=plain))
            layers += [*normalized(norm, out), activation_of(activation)]
        layers.append(GreyConvTranspose2d(self.channels[-1], self.shape[0], 4, stride=2, padding=1))
        # A norm per channel has to see images; without one the activation comes before, as checkpoints have it.
        self.dense = nn.Sequential(*before, *(after if plain else []))
        self.body = nn.Sequential(*([] if plain else after), *layers)

    def forward(self, z: Tensor) -> Tensor:
        return over_leading(self.body, _as_images(self.dense(z), self.height, self.width), event_dim=3)


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
