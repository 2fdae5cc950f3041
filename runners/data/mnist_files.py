"""MNIST and Fashion-MNIST, read from their original files, packed or not, or downloaded once."""

import contextlib
import gzip
import io
import math
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet, binarized
from runners.data.downloads import UNREACHABLE, impatient, reason
from runners.data.images import Images

__all__ = ["default_root", "fashion_mnist", "fetch", "mnist", "read_idx"]

COUNTS = {"train": 60_000, "t10k": 10_000}
FILES = [f"{part}-{kind}-ubyte" for part in COUNTS for kind in ("images-idx3", "labels-idx1")]


def default_root() -> Path:
    """Return the folder that holds data sets: PPL_DATA from the environment, or `data` in the working folder."""
    return Path(os.environ.get("PPL_DATA") or "data")


def mnist(root: Path | str | None = None, *, all_train: bool = False, binarize: str = "none", seed: int = 0) -> DataSet:
    """Return MNIST, 1×28×28: 55 000 + 5 000 + 10 000, or 60 000 + 10 000 with `all_train`.

    The files are read from `root/MNIST/raw`, and downloaded to there if they are missing.

    Raises:
        UsageError: The files are neither there nor to be had, or are damaged, or `binarize` is unknown.
    """
    return _read("mnist", fetch("MNIST", root), all_train=all_train, binarize=binarize, seed=seed)


def fashion_mnist(
    root: Path | str | None = None, *, all_train: bool = False, binarize: str = "none", seed: int = 0
) -> DataSet:
    """Return Fashion-MNIST from `root/FashionMNIST/raw`; otherwise as `mnist`.

    Raises:
        UsageError: As `mnist`.
    """
    return _read("fashion", fetch("FashionMNIST", root), all_train=all_train, binarize=binarize, seed=seed)


def fetch(name: str, root: Path | str | None = None) -> Path:
    """Return the folder `root/name/raw` with the four files of "MNIST" or "FashionMNIST", downloading what is missing.

    Raises:
        UsageError: Files are missing and cannot be downloaded.
    """
    root = default_root() if root is None else Path(root)
    raw = root / name / "raw"
    if all(_on_disk(raw, file).exists() for file in FILES):
        return raw
    try:
        _download(name, root)
    except UNREACHABLE as error:
        found = f"found no complete set of files in {raw} and no way to download one ({reason(error)})"
        expected = "expected them there, or under another folder named by --data-root or PPL_DATA"
        raise UsageError(f"{name}: {found}, {expected}; --data digits needs no files") from error
    return raw


def read_idx(path: Path, *, dims: int) -> Tensor:
    """Read one idx file of bytes, packed if its name ends in .gz: uint8 with `dims` dimensions.

    Raises:
        UsageError: The file cannot be read, is damaged, or holds something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: found a file that cannot be read ({error}), expected an idx file") from error
    magic, header = bytes([0, 0, 8, dims]), 4 + 4 * dims  # Type 8 is an unsigned byte.
    if content[:4] != magic or len(content) < header:
        raise UsageError(f"{path}: found magic {content[:4].hex()}, expected {magic.hex()}, then {dims} sizes")
    shape = np.frombuffer(content, ">u4", dims, offset=4).tolist()
    if len(content) - header != math.prod(shape):
        found = f"{len(content) - header} bytes of data"
        raise UsageError(f"{path}: found {found}, expected {math.prod(shape)} for the shape {shape} it states")
    return torch.from_numpy(np.frombuffer(content, np.uint8)[header:].reshape(shape).copy())


def _read(name: str, raw: Path, *, all_train: bool, binarize: str, seed: int) -> DataSet:
    (x, y), (x_test, y_test) = (_read_part(raw, part, count) for part, count in COUNTS.items())
    index = torch.arange(sum(COUNTS.values())).split(list(COUNTS.values()))
    known, test = Images(x, y, index[0]), Images(x_test, y_test, index[1])
    kept = len(known) if all_train else len(known) - 5_000
    valid = None if all_train else known.part(kept, len(known))
    return binarized(DataSet(name, known.part(0, kept), valid, test), binarize, seed=seed)


def _read_part(raw: Path, part: str, count: int) -> tuple[Tensor, Tensor]:
    images, labels = _on_disk(raw, f"{part}-images-idx3-ubyte"), _on_disk(raw, f"{part}-labels-idx1-ubyte")
    x, y = read_idx(images, dims=3), read_idx(labels, dims=1)
    if x.shape != (count, 28, 28):
        raise UsageError(f"{images}: found images {tuple(x.shape)}, expected {(count, 28, 28)}")
    if len(y) != count:
        raise UsageError(f"{labels}: found {len(y)} labels, expected {count}, one for each image")
    if y.max() > 9:
        raise UsageError(f"{labels}: found the label {y.max()}, expected 0 to 9")
    return x.unsqueeze(1), y.to(torch.int64)


def _on_disk(raw: Path, file: str) -> Path:
    return raw / file if (raw / file).exists() else raw / f"{file}.gz"


def _download(name: str, root: Path) -> None:
    # Slow to import, and needed only once in the life of a machine.
    from torchvision import datasets

    kind = {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}[name]
    with tempfile.TemporaryDirectory() as aside:
        # The downloader says on stdout what went wrong, and the error says it again.
        with impatient(), contextlib.redirect_stdout(io.StringIO()):
            kind(aside, download=True)
        raw = root / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for file in Path(aside, name, "raw").glob("*.gz"):
            # Renamed into place: a copy that is cut off must not leave half a file to be read later.
            shutil.copyfile(file, raw / f".{file.name}")
            os.replace(raw / f".{file.name}", raw / file.name)
