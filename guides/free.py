"""Free variational parameters: a table with a row for each datum, as in classic stochastic variational inference."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from guides.families import Diagonal, has_density, sample_family
from guides.refine import Refinement
from guides.sites import Params
from ppl_models.batch import Batch, UsageError

__all__ = ["Free", "Rows"]


@runtime_checkable
class Rows(Protocol):
    """A guide that keeps parameters of its own for each datum, as `Free` does."""

    refinement: Refinement

    def check_rows(self, index: Tensor, *, batch: int) -> None:
        """Refuse data without a row; called once, on the host, before training."""

    def start(self, batch: Batch) -> Params:
        """The rows of a batch, where training left them."""

    def fresh(self, batch: Batch) -> Params:
        """Rows for data that have none."""

    def memory(self, batch: Batch) -> Params:
        """What earlier visits to these rows left: visits and moments."""

    def rows(self, batch: Batch) -> Params:
        """All that is kept of a batch, which `store` puts back."""

    def store(self, batch: Batch, params: Params, memory: Params) -> None:
        """Put refined rows and their memory back."""


class Free(nn.Module):
    r"""A guide whose parameters start at a table's row, :math:`q(z \mid x_i) = q(z; \lambda_i)`.

    Hoffman et al. 2013, arXiv:1206.7055. Rows are buffers, not Parameters, so that an optimiser never touches those
    of other data: they are gathered, refined on their batch and scattered back, each visit costing O(batch).

    Args:
        data: Which data have rows: a split (its `index`), a sequence of indices, or how many (0, 1, …).
        latents: Dimensions of the default family.
        family: The family of posteriors; `Diagonal(latents)` by default.
        refinement: The gradient steps at each visit.
        warm: Whether a visit starts where the last one ended, instead of at N(0, I).
        carried: Instead of a row per datum, one row per position in the batch, carried from batch to batch whatever
            is in it; `data` is then the batch size. A course's variant; it forgets each datum.
        site: The name of the latent.

    Raises:
        UsageError: `data` is nothing of that kind, or the family has no density.
    """

    def __init__(
        self,
        data: Any,
        *,
        latents: int = 10,
        family: nn.Module | None = None,
        refinement: Refinement | None = None,
        warm: bool = True,
        carried: bool = False,
        site: str = "z",
    ) -> None:
        super().__init__()
        self.family = Diagonal(latents) if family is None else family
        if not has_density(self.family):
            # Its noise is other data's rows, so that a datum cannot be refined on its own.
            raise UsageError(f"Free: {type(self.family).__name__} has no density, use it with an encoder, Amortized")
        self.latents = self.family.latents
        self.refinement = Refinement() if refinement is None else refinement
        self.warm, self.carried, self.site = warm, carried, site
        index = _indices(data)
        self.data: int | list[int] = len(index) if _is_range(index) else index.tolist()
        row_of = torch.full((int(index.max()) + 1,), -1, dtype=torch.int32)
        row_of[index] = torch.arange(len(index), dtype=torch.int32)
        self.register_buffer("row_of", row_of, persistent=False)
        initial = self.family.initial()
        for name, value in initial.items():
            self.register_buffer(f"initial_{name}", value, persistent=False)
        self.params = list(initial)
        tables = {name: value.expand(len(index), *value.shape).clone() for name, value in initial.items()}
        tables["visits"] = torch.zeros(len(index))
        if self.refinement.keep_moments:
            tables |= self.refinement.rule.start({name: tables[name] for name in self.params})
        self.tables = list(tables)
        for name, table in tables.items():
            self.register_buffer(f"table_{name}", table)

    def __len__(self) -> int:
        return len(self.table_visits)

    def extra_repr(self) -> str:
        return f"rows={len(self):,}, carried={self.carried}"

    def check_rows(self, index: Tensor, *, batch: int) -> None:
        """Refuse a split some of whose data have no row; called once, on the host, before training.

        Raises:
            UsageError: They have none, or, of a carried guide, the batch size is not the number of rows.
        """
        if self.carried:
            if batch != len(self):
                raise UsageError(
                    f"the carried guide has {len(self)} rows, one per position, but the batch size is {batch}"
                )
            return
        index, row_of = index.cpu(), self.row_of.cpu()
        known = index < len(row_of)
        missing = int((~known).sum() + (row_of[index[known]] < 0).sum())
        if missing:
            raise UsageError(
                f"the free guide has {len(self):,} rows and none for {missing:,} of these {len(index):,} data: make "
                "it from the split that it is to be trained on, Free(data.train)"
            )

    def fresh(self, batch: Batch) -> Params:
        """Rows for data that have none, at N(0, I)."""
        initial = {name: getattr(self, f"initial_{name}") for name in self.params}
        return {name: value.expand(len(batch.index), *value.shape) for name, value in initial.items()}

    def start(self, batch: Batch) -> Params:
        """The rows of this batch, `(batch, size)` per parameter."""
        return self._gather(batch, self.params) if self.warm else self.fresh(batch)

    def memory(self, batch: Batch) -> Params:
        """How often each datum has been visited, and its moments where they are kept; nothing for a cold start."""
        if not self.warm:
            return {}
        return self._gather(batch, [name for name in self.tables if name not in self.params])

    def rows(self, batch: Batch) -> Params:
        """All that is kept of a batch: parameters, visits and moments."""
        return self._gather(batch, self.tables)

    def store(self, batch: Batch, params: Params, memory: Params) -> None:
        """Put refined rows and their memory back."""
        rows = self._rows(batch)
        with torch.no_grad():
            for name, value in (params | memory).items():
                getattr(self, f"table_{name}").index_copy_(0, rows, value)

    def sample(self, batch: Batch, params: Params) -> Tensor:
        """Sample the latents from the family at `params`."""
        return sample_family(self.site, self.family, batch, params)

    def forward(self, batch: Batch) -> Tensor:
        return self.sample(batch, self.start(batch))

    def _gather(self, batch: Batch, names: Sequence[str]) -> Params:
        rows = self._rows(batch)
        return {name: getattr(self, f"table_{name}").index_select(0, rows) for name in names}

    def _rows(self, batch: Batch) -> Tensor:
        # index_select and index_copy_ raise on -1 and past the end, where plain indexing would wrap in silence.
        if self.carried:
            return torch.arange(len(batch.index), device=batch.index.device)
        return self.row_of.index_select(0, batch.index).long()


def _indices(data: Any) -> Tensor:
    """The data's indices, `(N,)` of int64, from a split, a number or a sequence."""
    index = getattr(data, "index", None)
    index = index if isinstance(index, Tensor) else range(data) if isinstance(data, int) else data
    index = torch.as_tensor(index, dtype=torch.int64, device="cpu")
    if index.dim() != 1 or not len(index) or int(index.min()) < 0 or len(index.unique()) != len(index):
        raise UsageError("Free(data): expected a split, a number of rows, or distinct indices from 0 on")
    return index


def _is_range(index: Tensor) -> bool:
    return bool((index == torch.arange(len(index))).all())
