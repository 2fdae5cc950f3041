"""Texts: from a file, downloaded, or from Python's own library."""

import pydoc_data.topics
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data.data_set import DataSet
from runners.data.downloads import UNREACHABLE, impatient, reason
from runners.data.mnist_files import default_root
from runners.data.text import Text

__all__ = ["SPLITS", "cleaned", "corpus", "read_text"]

SPLITS = ("contiguous", "interleaved")

TINY = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"

STREAMS = 50
"""Pieces that the interleaved split takes the end of."""


def corpus(
    path: Path | str | None = None,
    *,
    root: Path | str | None = None,
    rare: int = 1,
    split: Literal["contiguous", "interleaved"] = "contiguous",
    length: int = 100,
    order: Literal["contiguous", "reset", "shuffled"] = "contiguous",
) -> DataSet:
    """A text, its first part to train on and its last to test on, over the alphabet of both.

    Without a path it is tiny Shakespeare, from `root/text/tinyshakespeare.txt` or downloaded to there; without that
    the help that comes with Python. A line on stderr says which it is, and which characters were removed.

    Args:
        path: A file in UTF-8.
        root: The folder that holds data sets; `default_root()` where it is `None`.
        rare: Characters that there are fewer than so many of are removed.
        split: "contiguous": the first 90 % to train on and the last 10 % to test on, as in nanoGPT; "interleaved": of
            50 equal pieces the last 5 % each to test on, as in char-rnn, which is easier, every scene being known.
        length: Characters of a sequence.
        order: Of the batches: see `Text`.

    Raises:
        UsageError: The file cannot be read, or there is too little in it.
    """
    if path is None:
        name, text = _default(default_root() if root is None else Path(root))
    else:
        name, text = Path(path).stem, read_text(Path(path))
    text, removed = cleaned(text, rare=rare)
    said = ", ".join(f"{character!r} {count}" for character, count in removed.items())
    print(
        f"text: {name}, {len(text):,} characters of {len(set(text))}"
        + (f", without {said}, of which there were fewer than {rare}" if said else ""),
        file=sys.stderr,
    )
    alphabet = "".join(sorted(set(text)))
    codes = {character: code for code, character in enumerate(alphabet)}
    train, test = _split(torch.tensor([codes[character] for character in text], dtype=torch.int32), split)
    if len(test) < 2:
        raise UsageError(f"--text: {name} has {len(text)} characters, expected 100 or more")
    made = {"alphabet": alphabet, "length": length, "order": order}
    return DataSet(f"{name}, {split}", Text(train, **made), None, Text(test, **made))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, lines ending as on Unix.

    Raises:
        UsageError: It cannot be read or is no UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--text: {path}: {error.strerror}, expected a file of text") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--text: {path}: the byte {content[error.start]:#04x} at {error.start:,} is no UTF-8, expected such text"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def cleaned(text: str, *, rare: int) -> tuple[str, dict[str, int]]:
    """A text without the characters that there are fewer than `rare` of, and how many there were of each of those."""
    removed = {character: count for character, count in sorted(Counter(text).items()) if count < rare}
    return text.translate(dict.fromkeys(map(ord, removed))), removed


def _split(codes: Tensor, how: str) -> tuple[Tensor, Tensor]:
    if how == "contiguous":
        first = len(codes) * 9 // 10
        return codes[:first], codes[first:]
    if how != "interleaved":
        raise UsageError(f"--split: found {how!r}, expected {', '.join(SPLITS)}")
    piece = len(codes) // STREAMS
    pieces, first = codes[: STREAMS * piece].view(STREAMS, piece), piece * 19 // 20
    return pieces[:, :first].flatten(), pieces[:, first:].flatten()


def _default(root: Path) -> tuple[str, str]:
    file = root / "text" / "tinyshakespeare.txt"
    if not file.exists():
        # Slow to import, and needed only once in the life of a machine.
        from torchvision.datasets.utils import download_url

        try:
            with impatient():
                download_url(TINY, str(file.parent), file.name, MD5)
        except UNREACHABLE as error:
            print(
                f"--text: using the help that comes with Python, not tiny Shakespeare, which is not at {file} and "
                f"cannot be downloaded ({reason(error)})",
                file=sys.stderr,
            )
            topics = pydoc_data.topics.topics
            return "python-help", "\n\n".join(topics[name] for name in sorted(topics))
    return "tinyshakespeare", read_text(file)
