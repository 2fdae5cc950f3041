"""One split of a text, resident on its device, in batches that continue each other."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ppl_models.batch import Batch, UsageError

__all__ = ["ORDERS", "Text", "TextStream"]

ORDERS = ("carried", "reset", "shuffled")


@dataclass(frozen=True, eq=False, repr=False)
class Text:
    """A text kept where it is used; a batch is a gather there.

    Attributes:
        codes: int32 `(N,)`, each character's place in the alphabet.
        alphabet: The characters.
        length: Characters of a sequence, S; a batch holds one more, the first, which is read and not observed.
        order: "carried": row k of a batch continues row k of the one before it, and the state is carried, to the end
            of the epoch; "reset": the same without the state; "shuffled": sequences in any order, without it.

    Raises:
        UsageError: The codes are no codes of the alphabet, or there is no such order.
    """

    codes: Tensor
    alphabet: str
    length: int = 100
    order: Literal["carried", "reset", "shuffled"] = "carried"

    def __post_init__(self) -> None:
        if self.codes.dtype != torch.int32 or self.codes.dim() != 1:
            raise UsageError(f"codes: found {self.codes.dtype} {tuple(self.codes.shape)}, expected torch.int32 (N,)")
        if len(self.codes) and not 0 <= int(self.codes.min()) <= int(self.codes.max()) < len(self.alphabet):
            raise UsageError(f"codes: expected places in the alphabet, 0 to {len(self.alphabet) - 1}")
        if self.order not in ORDERS:
            raise UsageError(f"order: found {self.order!r}, expected {', '.join(ORDERS)}")
        if self.length < 1:
            raise UsageError(f"length: found {self.length}, expected 1 or more characters")

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"Text({len(self):,} {self.kind}, {self.order}, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the text is."""
        return self.codes.device

    @property
    def kind(self) -> str:
        """What there are so many of, in words."""
        return f"characters of an alphabet of {len(self.alphabet)}"

    def read(self) -> str:
        """Return the text itself."""
        return "".join(self.alphabet[code] for code in self.codes.tolist())

    def first(self, count: int) -> "Text":
        """Return the first `count` characters, or all where there are fewer."""
        return replace(self, codes=self.codes[:count])

    def to(self, device: torch.device | str) -> "Text":
        """Return this text on `device`."""
        return replace(self, codes=self.codes.to(device))

    def fingerprint(self) -> str:
        """Return a short hash of the text: which data these are."""
        digest = hashlib.sha256(self.alphabet.encode("utf-8", "surrogatepass"))
        digest.update(self.codes.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def batches(self, size: int, generator: torch.Generator | None = None) -> "TextStream":
        """Return batches of `size` sequences without end.

        Raises:
            UsageError: The text is too short for one batch.
        """
        return TextStream(self, size, generator=generator)


class TextStream:
    """An endless iterator of batches of sequences.

    The text is cut into as many rows as a batch has sequences, and an epoch goes through all rows side by side; what
    is left over at the end of a row, less than a sequence, and of the text, less than a row, is not read.

    Attributes:
        size: Sequences in a batch.
        steps_per_epoch: Batches in an epoch.
        epoch: The epoch, from 0, that the latest batch belongs to.
        state: What the next batch carries, `(size, *)` or `None`; whoever has read a batch puts it there by `carry`.
    """

    def __init__(self, text: Text, size: int, *, generator: torch.Generator | None = None) -> None:
        self._row = (len(text) - 1) // size if size >= 1 else 0
        self.size, self.steps_per_epoch = size, self._row // text.length
        if self.steps_per_epoch < 1:
            raise UsageError(
                f"batch, length: found {size} sequences of {text.length} characters, expected fewer or shorter ones: "
                f"the text has {len(text):,}"
            )
        self.epoch, self._position = 0, 0
        self.state: Tensor | None = None
        self._text = text
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._shuffle()

    def __repr__(self) -> str:
        of = f"batches of {self.size} sequences of {self._text.length}"
        return f"TextStream({of}, {self.steps_per_epoch:,} an epoch, in epoch {self.epoch})"

    def __iter__(self) -> "TextStream":
        return self

    def __next__(self) -> Batch:
        if self._position == self.steps_per_epoch:
            self._shuffle()
            self.epoch += 1
            self._position, self.state = 0, None
        first = self._position * self.size
        index = self._order[first : first + self.size]
        self._position += 1
        # Sequence `index` is the j-th of row k for index = j · size + k.
        starts = index % self.size * self._row + index // self.size * self._text.length
        places = starts.unsqueeze(-1) + torch.arange(self._text.length + 1, device=starts.device)
        x = self._text.codes.take(places).long()
        return Batch(x, None, index, self.state)

    def carry(self, state: Tensor) -> None:
        """Take the state after a batch, for the next one, where the text's order has it carried."""
        if self._text.order == "carried":
            self.state = state.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as tensors and integers that `torch.load(weights_only=True)` reads."""
        return {
            "order": self._order.to("cpu", torch.int32),
            "position": self._position,
            "epoch": self.epoch,
            "state": self.state,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            UsageError: The state was taken from a text of another length.
        """
        if len(state["order"]) != len(self._order):
            found, expected = len(state["order"]), len(self._order)
            raise UsageError(f"checkpoint: found an epoch of {found} sequences, expected {expected}, this text's")
        device = self._text.device
        self._order = state["order"].to(device, torch.int64)
        self._position, self.epoch = state["position"], state["epoch"]
        self.state = None if state["state"] is None else state["state"].to(device)
        self._generator.set_state(state["generator"].cpu())

    def _shuffle(self) -> None:
        """The sequences of the next epoch in their order."""
        count = self.steps_per_epoch * self.size
        shuffled = self._text.order == "shuffled"
        order = torch.randperm(count, generator=self._generator) if shuffled else torch.arange(count)
        self._order = order.to(self._text.device)
