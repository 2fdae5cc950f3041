"""Figures as PNG files and bytes."""

from io import BytesIO
from pathlib import Path
from typing import IO

from matplotlib.figure import Figure

from runners.loop.atomic import write_atomically

__all__ = ["DPI", "png_bytes", "save"]

DPI = 150
"""Pixels an inch, of figures and files alike: at this value an image's pixels fall on the file's pixels."""


def save(figure: Figure, path: Path | str, *, dpi: int = DPI) -> None:
    """Write `figure` to `path` as a PNG, whole or not at all.

    Args:
        figure: What to write.
        path: The file; its folder exists.
        dpi: Pixels an inch; multiples of 150 keep every image pixel the same size.
    """
    write_atomically(Path(path), lambda file: _write(figure, file, dpi=dpi))


def png_bytes(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The PNG of `figure`, as `save` would write it."""
    file = BytesIO()
    _write(figure, file, dpi=dpi)
    return file.getvalue()


def _write(figure: Figure, file: IO[bytes], *, dpi: int) -> None:
    # matplotlib signs its files with its version: equal pictures would differ in bytes after an upgrade.
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
