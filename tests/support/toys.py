"""What tests share: PPCA with data from it, as a data set too, and where the real data may lie."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from guides import Diagonal, Free
from guides.evidence import posterior_for
from guides.sites import Program
from ppl_models import PPCA, Batch
from runners.data.stream import Stream

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_mnist = pytest.mark.skipif(not (REAL_DATA / "MNIST").exists(), reason="MNIST is not on this machine")


@dataclass(frozen=True)
class Points:
    """A split of vectors, `(N, features)`, with what training asks of a split."""

    x: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def fingerprint(self) -> str:
        return str(float(self.x.sum()))

    def gather(self, rows: Tensor) -> Batch:
        return Batch(self.x[rows], None, self.index[rows])

    def batches(self, size: int, generator: torch.Generator | None = None) -> Stream:
        return Stream(self.gather, len(self), size, device=self.x.device, generator=generator)

    def in_order(self, size: int) -> Iterator[Batch]:
        return (self.gather(rows) for rows in torch.arange(len(self)).split(size))

    def first(self, count: int) -> "Points":
        return replace(self, x=self.x[:count], index=self.index[:count])


def points(train: Tensor, test: Tensor) -> SimpleNamespace:
    """A data set of vectors."""
    index = torch.arange(len(train) + len(test))
    splits = {"train": Points(train, index[: len(train)]), "test": Points(test, index[len(train) :])}
    data = SimpleNamespace(**splits, valid=None, name="points", binarize="none")
    data.to = lambda device: data
    return data


class VectorEncoder(nn.Module):
    """An encoder of vectors."""

    features = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).tanh()


class Off(nn.Module):
    """The best diagonal guide of PPCA, made wider."""

    def __init__(self, model: PPCA, x: Tensor, *, wider: float) -> None:
        super().__init__()
        best = model.mean_field(x)
        self.family = Free(len(x), family=Diagonal(2)).double()
        self.params = {"loc": best.mean.detach(), "log": best.stddev.log().detach().expand(len(x), 2) + wider}

    def start(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value[batch.index % len(value)] for name, value in self.params.items()}

    def sample(self, batch: Batch, params: dict[str, Tensor]) -> Tensor:
        return self.family.sample(batch, params)


def orthogonal_ppca(*, features: int = 6, latents: int = 2) -> PPCA:
    """PPCA whose posterior is diagonal, in float64."""
    columns = torch.linalg.qr(torch.randn(features, latents, dtype=torch.float64)).Q
    return PPCA(columns * torch.tensor([1.5, 0.8], dtype=torch.float64)[:latents], variance=0.3)


def general_ppca(*, features: int = 6, latents: int = 2) -> PPCA:
    """PPCA whose posterior is correlated, in float64."""
    weight = torch.randn(features, latents, dtype=torch.float64)
    weight[:, 1] += 0.8 * weight[:, 0]
    return PPCA(weight, bias=torch.randn(features, dtype=torch.float64), variance=0.5)


def sampled(model: PPCA, count: int) -> Tensor:
    """Data from the model itself, `(count, features)`."""
    with torch.no_grad():
        return model(Batch(None, None, torch.arange(count)))


def always(guide: Program) -> Callable[[Batch], Program]:
    """A guide as it is, for any batch."""
    return lambda batch: guide


def at_start(guide: Program) -> Callable[[Batch], Program]:
    """A guide at its parameters for a batch."""
    return lambda batch: posterior_for(None, guide, batch)


def batch_of(x: Tensor) -> Batch:
    """A batch of the first rows of a table."""
    return Batch(x, None, torch.arange(len(x)))
