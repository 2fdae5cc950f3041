"""Any folder of images as a data set."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet, binarized
from runners.data.images import Images
from runners.data.mnist_files import default_root
from runners.loop.atomic import write_atomically

__all__ = ["image_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TENTH = 10

RESIDENT = 0.5
"""The share of the machine's memory, not of a GPU's, that pixels may take; those of larger folders stay in a file."""


def image_folder(
    path: Path | str,
    *,
    size: int = 64,
    binarize: str = "none",
    seed: int = 0,
    resident: bool | None = None,
    root: Path | str | None = None,
) -> DataSet:
    """Return the images under a folder, however deep, as 3×size×size, unlabelled, without a validation split.

    Sorted by path; every tenth image (the 10th, the 20th, …) is for testing. Each is turned to RGB, scaled to cover
    the square and cropped to its centre.

    Args:
        path: The folder.
        size: Height and width, pixels.
        binarize: One of `BINARISATIONS`; none for what is not resident.
        seed: Of a static binarisation.
        resident: Whether all pixels are kept in memory, by default where they take up to half of it. Else they are
            decoded once, into a file from which batches are read, `root/decoded/NAME-SIZE-DIGEST.npy`.
        root: The folder that holds data sets; `default_root()` by default.

    Raises:
        UsageError: The folder is missing or holds fewer than ten images, one of them cannot be decoded, or binary
            pixels are wanted of what is not resident.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: found no such folder, expected a folder of images ({' '.join(SUFFIXES)})")
    if size < 1:
        raise UsageError(f"--size: found {size}, expected at least 1 pixel")
    found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    # What begins with a dot is a cache, or the other half of a file that came from a Mac.
    files = sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
    if len(files) < TENTH:
        raise UsageError(f"{path}: found {len(files)} images ({' '.join(SUFFIXES)}), expected at least {TENTH}")
    tested = torch.arange(len(files)) % TENTH == TENTH - 1
    index = torch.cat([(~tested).nonzero(), tested.nonzero()]).flatten()  # training images first, in one piece each
    files, count = [files[i] for i in index.tolist()], int((~tested).sum())
    name = path.resolve().name
    if resident is None:
        resident = len(files) * 3 * size * size <= RESIDENT * _memory()
    if resident:
        pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
        for row, image in enumerate(_decoded(files, size)):
            pixels[row] = image
    elif binarize != "none":
        raise UsageError(f"--binarize: found {binarize}, expected none, since {path} is too large for memory")
    else:
        root = default_root() if root is None else Path(root)
        pixels = _in_file(files, size, root / "decoded" / f"{name}-{size}-{_digest(path, files)}.npy")
    images = Images(pixels, None, index, streamed=not resident)
    train, test = images.part(0, count), images.part(count, len(files))
    return binarized(DataSet(name, train, None, test), binarize, seed=seed)


def _memory() -> float:
    """Bytes of memory that the machine has, where it says so."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _decoded(files: Sequence[Path], size: int) -> Iterator[Tensor]:
    """The images of files, in order, uint8 `(3, size, size)`."""
    with ThreadPoolExecutor() as pool:  # Decoding releases the interpreter's lock.
        for start in range(0, len(files), 4096):  # not all at once: what is decoded waits in memory to be taken
            yield from pool.map(lambda file: _decode(file, size), files[start : start + 4096])


def _in_file(files: Sequence[Path], size: int, decoded: Path) -> Tensor:
    """The images of files, uint8 `(N, 3, size, size)`, in a file that is mapped into memory; made where it is not."""
    if not decoded.exists():
        print(f"{decoded}: decoding {len(files):,} images, once", file=sys.stderr)
        decoded.parent.mkdir(parents=True, exist_ok=True)

        def write(file: IO[bytes]) -> None:
            shape = (len(files), 3, size, size)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for image in _decoded(files, size):
                file.write(image.contiguous().numpy().tobytes())

        # A name of its own: another process may be decoding the same folder.
        ours = decoded.with_suffix(f".{os.getpid()}")
        write_atomically(ours, write)
        ours.replace(decoded)
    try:
        # Copy on write: torch knows no tensors that must not be written to.
        return torch.from_numpy(np.load(decoded, mmap_mode="c"))
    except ValueError as error:
        raise UsageError(f"{decoded}: found no decoded images ({error}), remove the file to have them again") from error


def _digest(path: Path, files: Sequence[Path]) -> str:
    """12 hexadecimal digits that change when any of the files does, by name, size or time."""
    made = hashlib.sha256()
    for file in files:
        known = file.stat()
        made.update(f"{file.relative_to(path)}\0{known.st_size}\0{known.st_mtime_ns}\0".encode())
    return made.hexdigest()[:12]


def _rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit colour: 16-bit grey scaled, where Pillow would clip it, and what is transparent on white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _decode(file: Path, size: int) -> Tensor:
    try:
        with Image.open(file) as image:
            # Cameras store the turn beside the pixels.
            square = ImageOps.fit(_rgb(ImageOps.exif_transpose(image)), (size, size), Image.Resampling.BICUBIC)
    # Every decoder fails in its own way.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{file}: found a file that cannot be decoded ({error}), expected an image") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)
