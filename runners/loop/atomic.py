"""Files that are either whole or not there."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["named", "write_atomically"]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an error of the system name the file: a disk that is full does not say what had no room."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a neighbour of `path`, then rename it: a reader never sees half a file.

    The neighbour's name is fixed, so that what a killed process left there is overwritten by the next one.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with named(path), partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
