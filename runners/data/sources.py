"""Data sets by the names that commands take."""

import sys
from pathlib import Path

from ppl_models.batch import UsageError
from runners.data.binarized_files import fixed_binarized_mnist
from runners.data.data_set import DataSet
from runners.data.drawn_digits import drawn_digits
from runners.data.image_files import image_folder
from runners.data.mnist_files import default_root, fashion_mnist, fetch, mnist

__all__ = ["NAMES", "is_image_folder", "load"]

NAMES = ("auto", "mnist", "fashion", "fixed-binarized", "digits")


def load(
    name: str = "auto",
    *,
    root: Path | str | None = None,
    binarize: str = "none",
    seed: int = 0,
    all_train: bool = False,
    size: int = 64,
) -> DataSet:
    """Return the data set that `--data` names: one of `NAMES`, a folder of images, or a .npz file.

    "auto" is MNIST, or, where that is neither on disk nor to be downloaded, the drawn digits, and a line on stderr
    says so.

    Args:
        name: What to load.
        root: The folder that holds data sets; `default_root()` where it is `None`.
        binarize: One of `BINARISATIONS`.
        seed: Seed of the drawn digits and of a static binarisation: part of what the data are.
        all_train: Leave no validation split.
        size: Height and width of images from a folder, pixels.

    Raises:
        UsageError: There is no such data set, it cannot be had, or an option does not fit it.
    """
    if not name.strip():
        raise UsageError(f"--data: found nothing, expected {', '.join(NAMES)}, a folder of images or a .npz file")
    root = default_root() if root is None else Path(root)
    if name == "auto":
        name = _mnist_or_digits(root)
    match name:
        case "mnist":
            return mnist(root, all_train=all_train, binarize=binarize, seed=seed)
        case "fashion":
            return fashion_mnist(root, all_train=all_train, binarize=binarize, seed=seed)
        case "digits":
            return drawn_digits(all_train=all_train, binarize=binarize, seed=seed)
    path = root / "binarized-mnist" if name == "fixed-binarized" else Path(name)
    if name == "fixed-binarized" or path.suffix == ".npz" or _is_binarized(path):
        if binarize != "none":
            raise UsageError(f"--binarize: found {binarize}, expected none, since {path} is binary already")
        return fixed_binarized_mnist(path, all_train=all_train)
    if path.is_dir() and all_train:
        raise UsageError(f"--all-train: {path} has no validation split to train on; take it back by --no-all-train")
    if path.is_dir():
        return image_folder(path, size=size, binarize=binarize, seed=seed, root=root)
    raise UsageError(f"--data: found {name!r}, expected {', '.join(NAMES)}, a folder of images or a .npz file")


def is_image_folder(name: Path | str | None) -> bool:
    """Whether `--data` names a folder of images, of any size and in colour, and none of the sets of 28×28 digits."""
    return name is not None and name not in NAMES and Path(name).is_dir() and not _is_binarized(Path(name))


def _is_binarized(path: Path) -> bool:
    return any(path.glob("binarized_mnist[._]*"))


def _mnist_or_digits(root: Path) -> str:
    try:
        fetch("MNIST", root)
    except UsageError as error:
        print(f"--data auto: using the drawn digits, not MNIST. {error}", file=sys.stderr)
        return "digits"
    return "mnist"
