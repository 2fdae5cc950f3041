"""One split of a set of images, resident on its device or, where that is too small, in a file."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppl_models.batch import Batch, UsageError
from runners.data.stream import Stream

__all__ = ["Images", "head"]


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images kept as bytes; a batch is a gather there, and no step waits for the host, unless they are streamed.

    Attributes:
        pixels: uint8 `(N, C, H, W)`.
        labels: int64 `(N,)`, or `None`.
        index: int64 `(N,)`, unique across the splits of a data set.
        fresh: Whether each batch draws its binary pixels anew, with the grey values as probabilities.
        factors: What is known of how each image was made, by name, each `(N, …)`, or `None`.
        streamed: Whether the pixels stay where they are, such as in a file that is mapped into memory, wherever
            batches go, which then wait for the disk.

    Raises:
        UsageError: The tensors do not fit together.
    """

    pixels: Tensor
    labels: Tensor | None
    index: Tensor
    fresh: bool = False
    factors: dict[str, Tensor] | None = None
    streamed: bool = False

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            found = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise UsageError(f"pixels: found {found}, expected torch.uint8 (N, C, H, W)")
        for name, tensor in {"labels": self.labels, "index": self.index, **(self.factors or {})}.items():
            if tensor is not None and len(tensor) != len(self.pixels):
                raise UsageError(f"{name}: found {len(tensor)}, expected {len(self.pixels)}, one for each image")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        labels = "labelled" if self.labels is not None else "unlabelled"
        drawn = ", binarised anew for each batch" if self.fresh else ""
        return f"Images({len(self):,} {self.kind}, {labels}{drawn}, on {self.device})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def kind(self) -> str:
        """What there are so many of, in words."""
        return f"images of {'×'.join(map(str, self.shape))}"

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.index.device

    def to(self, device: torch.device | str) -> "Images":
        """Return these images on `device`."""
        return self._each(lambda tensor: tensor if self.streamed and tensor is self.pixels else tensor.to(device))

    def part(self, start: int, stop: int) -> "Images":
        """Return the images from row `start` up to, not including, row `stop`; they share memory with these."""
        return self._each(lambda tensor: tensor[start:stop])

    def first(self, count: int) -> "Images":
        """Return the first `count` images.

        Raises:
            UsageError: `count` is not within 1 … `len(self)`.
        """
        if not 1 <= count <= len(self):
            raise UsageError(f"first images: found {count}, expected 1 to {len(self)}, the images in this split")
        return self.part(0, count)

    def drawn_once(self, *, seed: int) -> "Images":
        """Return these images with binary pixels, drawn from a seed, the grey values their probabilities."""
        generator = torch.Generator(self.device).manual_seed(seed)
        # In chunks: as floats a whole split would take four times its memory.
        chunks = (torch.bernoulli(chunk / 255, generator=generator) for chunk in self.pixels.split(4096))
        return replace(self, pixels=torch.cat([chunk.to(torch.uint8) * 255 for chunk in chunks]), fresh=False)

    def fingerprint(self) -> str:
        """Return a short hash of at most 4096 images, evenly spaced, with their indices: which data these are."""
        rows = torch.arange(0, len(self), max(len(self) // 4096, 1), device=self.device)
        digest = hashlib.sha256()
        for tensor in (self.pixels, self.index):
            chosen = tensor.index_select(0, rows.to(tensor.device))
            digest.update(chosen.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def gather(self, rows: Tensor) -> Batch:
        """Return the batch of these rows, an integer tensor on this device; pixels float32 in [0, 1]."""
        pixels = self.pixels.index_select(0, rows.to(self.pixels.device)).to(self.device)
        x = pixels.to(torch.float32) / 255
        if self.fresh:
            x = torch.bernoulli(x)
        y = None if self.labels is None else self.labels.index_select(0, rows)
        return Batch(x, y, self.index.index_select(0, rows))

    def batches(self, size: int, generator: torch.Generator | None = None) -> Stream:
        """Return shuffled batches of `size` without end; see `Stream`.

        Raises:
            UsageError: `size` is not within 1 … `len(self)`.
        """
        return Stream(self.gather, len(self), size, device=self.device, generator=generator)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield every image once, in order, `size` at a time; the last batch may be smaller."""
        for rows in torch.arange(len(self), device=self.device).split(size):
            yield self.gather(rows)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Images":
        return replace(
            self,
            pixels=change(self.pixels),
            labels=None if self.labels is None else change(self.labels),
            index=change(self.index),
            factors=None if self.factors is None else {name: change(f) for name, f in self.factors.items()},
        )


def head(images: Images, count: int) -> Batch:
    """The first `count` images of a split, or all where there are fewer, as one batch."""
    return next(images.first(min(count, len(images))).in_order(count))
