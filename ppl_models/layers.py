"""What networks are made of: activations, norms, initial values, labels beside images, leading dimensions."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_models.batch import UsageError

__all__ = [
    "Activation",
    "Gates",
    "GreyConvTranspose2d",
    "Norm",
    "activation_of",
    "dcgan_",
    "dense",
    "glorot_",
    "join_labels",
    "normalized",
    "one_hot",
    "over_leading",
]

Activation = Literal["relu", "tanh", "leaky-relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # In place: what comes before them, a layer of weights, does not need its output for its gradient.
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "leaky-relu": partial(nn.LeakyReLU, 0.2, inplace=True),
}
Norm = Literal["none", "batch"]


class GreyConvTranspose2d(nn.ConvTranspose2d):
    """torch's transposed convolution; where one channel comes out, on a CPU, as a product and a sum of patches.

    torch's own kernels fill their vectors with channels: for the last layer of networks for grey images they take
    longer, as `bench.py conv` shows, whose contender by hand has them.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        plain = self.groups == 1 and self.dilation == (1, 1) and x.dim() == 4 and output_size is None
        if self.out_channels > 1 or x.is_cuda or not plain:
            return super().forward(x, output_size)
        sides = [
            (side - 1) * self.stride[i] - 2 * self.padding[i] + self.kernel_size[i] + self.output_padding[i]
            for i, side in enumerate(x.shape[-2:])
        ]
        # Summed in the precision of the weights: autocast would have the patches in half of it.
        patches = (self.weight.flatten(1).t() @ x.flatten(2)).to(self.weight.dtype)
        image = functional.fold(patches, sides, self.kernel_size, 1, self.padding, self.stride)
        return image if self.bias is None else image + self.bias


class Gates(nn.Linear):
    """Several layers with the same input in one product, their outputs side by side.

    Args:
        inputs: The size of what they read.
        outputs: The size of each one's output.
        count: How many they are.
        bias: Whether they have biases.
    """

    def __init__(self, inputs: int, outputs: int, *, count: int, bias: bool = True) -> None:
        super().__init__(inputs, count * outputs, bias=bias)
        self.count = count


def glorot_(module: nn.Module) -> nn.Module:
    """Start a module's weights Glorot-uniform and its biases at zero, as the courses' TensorFlow layers do.

    The gates of a recurrent layer count as layers, each with one matrix for what it reads and one for its state.

    Glorot and Bengio 2010. On MNIST the convolutional pair was 2.5 nats better off after 10 000 steps than from
    torch's own start; with free parameters the decoder was 4 nats worse off after 3300.

    Returns:
        The module, changed in place.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.GRU)):
            count = 3 if isinstance(layer, nn.GRU) else getattr(layer, "count", 1)
            for parameter in layer.parameters(recurse=False):
                if parameter.dim() == 1:
                    nn.init.zeros_(parameter)
                    continue
                for weight in parameter.detach().chunk(count):
                    nn.init.xavier_uniform_(weight)
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


def activation_of(name: str) -> nn.Module:
    """A new layer, of an activation's name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"activation: found {name!r}, expected {' or '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def normalized(norm: str, channels: int) -> list[nn.Module]:
    """What comes between a convolution and its activation."""
    if norm not in ("none", "batch"):
        raise UsageError(f"norm: found {norm!r}, expected none or batch")
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []


def dense(widths: Sequence[int], activation: str) -> list[nn.Module]:
    """Linear layers, an activation after each."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation_of(activation)]
    return layers
