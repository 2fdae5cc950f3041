"""Texts: from a file, downloaded, or from Python's own library."""

import hashlib
import os
import pydoc_data.topics
import sys
import tempfile
import unicodedata
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

__all__ = ["SPLITS", "TEXTS", "cleaned", "corpus", "default_text", "read_text"]

TEXTS = ("tinyshakespeare", "python-help")

SPLITS = {"contiguous": "the last tenth", "interleaved": "the last 5 % of each of 50 pieces"}
"""Which part of a text is tested on."""

TINY = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"

PIECES, LEAST = 50, {"contiguous": 100, "interleaved": 1000}
SHOWN = 10
"""Removed characters that are named."""


def corpus(
    text: Path | str | None = None,
    *,
    root: Path | str | None = None,
    rare: int = 1,
    drop: str = "",
    split: Literal["contiguous", "interleaved"] = "contiguous",
    length: int = 100,
    order: Literal["carried", "reset", "shuffled"] = "carried",
) -> DataSet:
    """A text, its first part to train on and its last to test on, over the alphabet of both.

    A line on stderr says which text it is, and which characters were removed.

    Args:
        text: "tinyshakespeare", which is at `root/text/tinyshakespeare.txt` or downloaded to there; "python-help", the
            help that comes with Python; or a file in UTF-8. By default what `default_text` says.
        root: The folder that holds data sets; `default_root()` where it is `None`.
        rare: Characters that there are fewer than so many of are removed.
        drop: Characters that are removed.
        split: "contiguous": the first 90 % to train on and the last 10 % to test on, as in nanoGPT; "interleaved": of
            50 equal pieces the last 5 % each to test on, as in char-rnn, which is easier, every scene being known.
            The pieces are then joined, with a seam between any two.
        length: Characters of a sequence.
        order: Of the batches: see `Text`.

    Raises:
        UsageError: The text cannot be read, or there is too little in it.
    """
    root = default_root() if root is None else Path(root)
    text = default_text(root) if text is None else text
    match str(text):
        case "tinyshakespeare":
            name, content = str(text), read_text(_tiny(root))
        case "python-help":
            topics = pydoc_data.topics.topics
            name, content = str(text), "\n\n".join(topics[topic] for topic in sorted(topics))
        case _:
            name, content = Path(text).stem, read_text(Path(text))
    content, removed = cleaned(content, rare=rare, drop=drop)
    print(f"text: {name}, {len(content):,} characters of {len(set(content)):,}{_said(removed)}", file=sys.stderr)
    if split not in SPLITS:
        raise UsageError(f"--split: found {split!r}, expected {', '.join(SPLITS)}")
    if len(content) < LEAST[split]:
        without = ", without those that --rare or --drop remove" if removed else ""
        raise UsageError(f"--text: {name} has {len(content)} characters{without}, expected {LEAST[split]:,} or more")
    alphabet = "".join(sorted(set(content)))
    codes = {character: code for code, character in enumerate(alphabet)}
    train, test = _split(torch.tensor([codes[character] for character in content], dtype=torch.int32), split)
    made = {"alphabet": alphabet, "length": length, "order": order}
    return DataSet(f"{name}, {split} split", Text(train, **made), None, Text(test, **made))


def default_text(root: Path) -> str:
    """Tiny Shakespeare where it is on disk or can be downloaded, else Python's help, and a line on stderr says so."""
    try:
        _tiny(root)
    except UsageError as error:
        print(f"--text: using python-help. {error}", file=sys.stderr)
        return "python-help"
    return "tinyshakespeare"


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, composed (NFC), lines ending as on Unix.

    Raises:
        UsageError: It cannot be read or is no UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--text: {path}: {error.strerror}, expected {', '.join(TEXTS)} or a file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--text: {path}: the byte {content[error.start]:#04x} at {error.start:,} is no UTF-8, expected such text"
        ) from error
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def cleaned(text: str, *, rare: int = 1, drop: str = "") -> tuple[str, dict[str, int]]:
    """A text without some characters, and how many there were of each: those in `drop`, and fewer than `rare`."""
    counts = sorted(Counter(text).items())
    removed = {character: count for character, count in counts if count < rare or character in drop}
    return text.translate(dict.fromkeys(map(ord, removed))), removed


def _said(removed: dict[str, int]) -> str:
    if not removed:
        return ""
    named = ", ".join(f"{character!r} {count}" for character, count in list(removed.items())[:SHOWN])
    more = f" and {len(removed) - SHOWN:,} more" if len(removed) > SHOWN else ""
    return f", without {named}{more}, {sum(removed.values()):,} in all"


def _split(codes: Tensor, how: str) -> tuple[Tensor, Tensor]:
    if how == "contiguous":
        first = len(codes) * 9 // 10
        return codes[:first], codes[first:]
    piece = len(codes) // PIECES
    pieces, first = codes[: PIECES * piece].view(PIECES, piece), piece * 19 // 20
    return pieces[:, :first].flatten(), pieces[:, first:].flatten()


def _tiny(root: Path) -> Path:
    """The file of tiny Shakespeare, downloaded if it is missing.

    Raises:
        UsageError: It is neither there nor to be had.
    """
    file = root / "text" / "tinyshakespeare.txt"
    if file.exists() and hashlib.md5(file.read_bytes()).hexdigest() == MD5:
        return file
    # Slow to import, and needed only once in the life of a machine.
    from torchvision.datasets.utils import download_url

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a download that is cut off must not leave half a file to be read later.
        with impatient(), tempfile.TemporaryDirectory(dir=file.parent) as aside:
            download_url(TINY, aside, file.name, MD5)
            os.replace(Path(aside, file.name), file)
    except UNREACHABLE as error:
        raise UsageError(
            f"tinyshakespeare: {'another text is' if file.exists() else 'not'} at {file}, and there is no way to "
            f"download it ({reason(error)})"
        ) from error
    return file
