"""Gated recurrent units in both of their forms."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ppl_models.batch import UsageError
from ppl_models.layers import Gates

__all__ = ["GRU"]


class GRU(nn.Module):
    r"""Layers of gated recurrent units, with dropout on every layer's output, that of the last one included.

    .. math:: r_t &= \sigma(x_t W_{xr} + h_{t-1} W_{hr} + b_r), \quad z_t = \sigma(x_t W_{xz} + h_{t-1} W_{hz} + b_z) \\
        h_t &= z_t \odot h_{t-1} + (1 - z_t) \odot \tilde h_t

    with, where the reset comes after the product, as in cuDNN and torch (Chung et al. 2014, arXiv:1412.3555),

    .. math:: \tilde h_t = \tanh(x_t W_{xh} + b_{xh} + r_t \odot (h_{t-1} W_{hh} + b_{hh})),

    and where it comes before it (Cho et al. 2014, arXiv:1406.1078, version 3)

    .. math:: \tilde h_t = \tanh(x_t W_{xh} + b_h + (r_t \odot h_{t-1}) W_{hh}).

    After it, all products with the state are one, and torch's own kernels do the work; before it they are two.

    Args:
        inputs: The size of what is read at each step.
        hidden: The size of the state of a layer.
        layers: How many layers.
        dropout: The probability that a unit of a layer's output is zero in training; states are not touched.
        reset_after: Whether the reset comes after the product.

    Raises:
        UsageError: A size or the dropout is out of its range.
    """

    def __init__(
        self, inputs: int, hidden: int, *, layers: int = 1, dropout: float = 0.0, reset_after: bool = True
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.layers, self.dropout = inputs, hidden, layers, dropout
        self.reset_after = reset_after
        if min(inputs, hidden, layers) < 1 or not 0 <= dropout < 1:
            raise UsageError(
                f"GRU: found {inputs} inputs, {hidden} units, {layers} layers, dropout {dropout}, expected 1 or more "
                "of each, and dropout from 0 to below 1"
            )
        sizes, make = [inputs] + [hidden] * (layers - 1), nn.GRU if reset_after else _ResetBefore
        self.cells = nn.ModuleList(make(size, hidden, batch_first=True) for size in sizes)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read sequences.

        Args:
            x: `(B, S, inputs)`.
            state: Where the layers stand before, `(B, layers, hidden)`; zeros by default.

        Returns:
            The last layer's outputs `(B, S, hidden)`, and where the layers stand after, `(B, layers, hidden)`.
        """
        if state is None:
            state = x.new_zeros(len(x), self.layers, self.hidden)
        after = []
        for cell, h in zip(self.cells, state.unbind(1), strict=True):
            # cuDNN's layers know float16 alone under autocast, which would need its loss scaled.
            with torch.autocast("cuda", enabled=False) if x.is_cuda else nullcontext():
                x, h = cell(x.to(h.dtype), h.unsqueeze(0).contiguous())
            after.append(h.squeeze(0))
            x = nn.functional.dropout(x, self.dropout, self.training)
        return x, torch.stack(after, 1)


class _ResetBefore(nn.Module):
    """One layer with the reset before the product, called as `nn.GRU` is; gates in the order r, z, candidate."""

    def __init__(self, inputs: int, hidden: int, *, batch_first: bool) -> None:
        super().__init__()
        self.read, self.gates = Gates(inputs, hidden, count=3), Gates(hidden, hidden, count=2, bias=False)
        self.candidate = nn.Linear(hidden, hidden, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # as torch starts its own

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h, outputs = h.squeeze(0), []
        width = h.shape[-1]
        # What is read is known beforehand: one product for all steps.
        for step in self.read(x).unbind(1):
            read_gates, read_candidate = step.split([2 * width, width], -1)
            r, z = (read_gates + self.gates(h)).sigmoid().chunk(2, -1)
            h = z * h + (1 - z) * (read_candidate + self.candidate(r * h)).tanh()
            outputs.append(h)
        return torch.stack(outputs, 1), h.unsqueeze(0)
