"""A run's rows and pictures as TensorBoard reads them, in the run folder: `tensorboard --logdir runs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ppl_models import UsageError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Events", "check_installed"]


def check_installed() -> None:
    """Refuse to go without the package, which is an extra.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "tensorboard: found no package of that name; pip install tensorboard, or leave --tensorboard out"
        ) from error


class Events:
    """Events of one stretch of a run; there is no file before the first row, and so none before a first checkpoint.

    Args:
        folder: The run folder.
        step: The step that the run goes on from: readers forget what events of earlier stretches are of after it.
        rows: The history so far, written where earlier stretches left no events.
    """

    def __init__(self, folder: Path, *, step: int, rows: Sequence[dict[str, float]]) -> None:
        self._folder, self._step, self._earlier = folder, step, list(rows)
        self._writer: SummaryWriter | None = None

    def row(self, row: dict[str, float]) -> None:
        """Add a row's figures as scalars, and have them on disk, where the checkpoint after it will be."""
        self._add(row)
        self._writer.flush()

    def pictures(self, step: int) -> None:
        """Add the pictures of the folder that were drawn at a step."""
        for path in sorted(self._folder.glob(f"*_{step:06d}.png")):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            self._open().add_image(path.stem.removesuffix(f"_{step:06d}"), pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                self._open().add_scalar(name, value, int(row["step"]))

    def _open(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            first = not any(self._folder.glob("events.out.tfevents.*"))
            # Rows at the checkpoint's own step stay.
            self._writer = SummaryWriter(self._folder, purge_step=self._step + 1)
            for row in self._earlier if first else ():
                self._add(row)
        return self._writer
