"""Any folder of images as a data set."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet, binarized
from runners.data.images import Images

__all__ = ["image_folder"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TENTH = 10


def image_folder(path: Path | str, *, size: int = 64, binarize: str = "none", seed: int = 0) -> DataSet:
    """Return the images under a folder, however deep, as 3×size×size, unlabelled, without a validation split.

    Sorted by path; every tenth image (the 10th, the 20th, …) is for testing. Each is turned to RGB, scaled to cover
    the square and cropped to its centre.

    Raises:
        UsageError: The folder is missing or holds fewer than ten images, or one of them cannot be decoded.
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
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:  # Decoding releases the interpreter's lock.
        for row, image in enumerate(pool.map(lambda file: _decode(file, size), files)):
            pixels[row] = image
    index = torch.arange(len(files))
    tested = index % TENTH == TENTH - 1
    train, test = (Images(pixels[rows], None, index[rows]) for rows in (~tested, tested))
    return binarized(DataSet(path.resolve().name, train, None, test), binarize, seed=seed)


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
