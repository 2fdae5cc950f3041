"""An average of a network's weights over training."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average(nn.Module):
    r"""An exponential average of a module's parameters and buffers, :math:`a \leftarrow d\, a + (1 - d)\, w`.

    It starts as what the module is at the first update; buffers of integers, such as counts, are rounded down. The
    numbers and the state are those of torch's `AveragedModel`, which reads its count of updates on the host.

    Args:
        module: Whose average it is.
        decay: d.

    Attributes:
        module: The average, a module of its own.
        n_averaged: How many updates it has seen.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module, self.decay = copy.deepcopy(module), decay
        device = next(module.parameters()).device
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.long, device=device))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module as it is."""
        first = self.n_averaged == 0
        for average, value in zip(_tensors(self.module), _tensors(module), strict=True):
            if average.is_floating_point():
                moved = torch.lerp(average, value, 1 - self.decay)
            else:
                moved = average * self.decay + value * (1 - self.decay)
            average.copy_(torch.where(first, value, moved))
        self.n_averaged += 1


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
