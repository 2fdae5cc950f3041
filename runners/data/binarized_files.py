"""MNIST in the fixed binarisation of Larochelle and Murray, which published likelihoods are measured on."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet
from runners.data.images import Images

__all__ = ["fixed_binarized_mnist"]

SPLITS = ("train", "valid", "test")
NPZ, AMAT = "binarized_mnist.npz", "binarized_mnist_{}.amat"
SIDE, PIXELS, PACKED = 28, 784, 98


UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for files that are not what they seem."""


def fixed_binarized_mnist(path: Path | str, *, all_train: bool = False) -> DataSet:
    """Return the fixed binarisation, 1×28×28, unlabelled: 50 000 + 10 000 + 10 000, or what the files hold.

    In the files digits of a kind lie together. Here each split is in a random order, the same each time, so that its
    first images are a fair sample.

    Args:
        path: A .npz file with the arrays train, valid and test, 784 columns of 0 and 1 or the same packed into 98
            bytes a row; or a folder with binarized_mnist.npz or with binarized_mnist_{train,valid,test}.amat.
        all_train: Join the validation images to the training images.

    Raises:
        UsageError: The files are missing, damaged, or hold something else.
    """
    path, inside = Path(path), Path(path, NPZ)
    if inside.exists():
        path = inside
    elif not path.exists() or path.is_dir() and not (path / AMAT.format("train")).exists():
        expected = f"a .npz file, or a folder with {NPZ} or {AMAT.format('{train,valid,test}')}"
        raise UsageError(f"{path}: found no fixed binarisation, expected {expected}")
    bits = [_read_amat(path / AMAT.format(s)) for s in SPLITS] if path.is_dir() else _read_npz(path)
    if all_train:
        bits = [np.concatenate(bits[:2]), bits[2]]
    index = torch.arange(sum(map(len, bits))).split([len(part) for part in bits])
    splits = [Images(_shuffled(_pixels(part)), None, rows) for part, rows in zip(bits, index, strict=True)]
    return DataSet("fixed-binarized", splits[0], None if all_train else splits[1], splits[-1], binarize="fixed")


def _read_npz(path: Path) -> list[np.ndarray]:
    try:
        # Opened here, since a load that fails would leave it open.
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {split: file[split] for split in SPLITS if split in file}
    # A lone array is loaded too, but has no `with`: the TypeError.
    except UNREADABLE as error:
        raise UsageError(f"{path}: found a file that cannot be read ({error}), expected a .npz file") from error
    missing = [split for split in SPLITS if split not in arrays]
    if missing:
        raise UsageError(f"{path}: found no array {', '.join(missing)}, expected {', '.join(SPLITS)}")
    return [_unpacked(arrays[split], f"{path}, array {split}") for split in SPLITS]


def _unpacked(array: np.ndarray, what: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise UsageError(f"{what}: found no array of numbers, expected binary pixels")
    if array.ndim == 2 and array.shape[1] == PACKED and array.dtype == np.uint8:
        array = np.unpackbits(array, axis=1)
    if array.ndim != 2 or array.shape[1] != PIXELS or not len(array):
        found = f"{array.dtype} {array.shape}"
        raise UsageError(f"{what}: found {found}, expected (N, {PIXELS}), or (N, {PACKED}) of packed uint8")
    if not np.isin(array, (0, 1)).all():
        raise UsageError(f"{what}: found values other than 0 and 1, expected binary pixels")
    return array


def _read_amat(path: Path) -> np.ndarray:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path}: found nothing to read ({error.strerror}), expected a text file") from error
    # Bytes, not numbers: the training file has 39 million of them.
    rows = [line.replace(b" ", b"") for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != PIXELS:
            raise UsageError(f"{path}, line {number}: found {len(row)} columns, expected {PIXELS}")
    return _unpacked(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, PIXELS) - ord("0"), str(path))


def _shuffled(pixels: Tensor) -> Tensor:
    return pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))]


def _pixels(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(bits.astype(np.uint8)).mul_(255).view(-1, 1, SIDE, SIDE)
