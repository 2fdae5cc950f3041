"""What a person gives wrongly ends, in every command, in one line that names it, with exit code 2 and nothing changed.

A row of `ROWS` is a line as it is typed, parts of the line that is then said, and what makes the file or folder that is
broken. Words in capitals are places in `PLACES`, `BROKEN` what the row makes. To commands that train are added, where
they are not in the row, data, few steps and a new run folder.

A new command: its `main` in `MAINS`, what to add to its lines in `GIVEN`, a run of it in `trained`, and its rows.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import small
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from guides import Refinement
from runners import assess, bench, compare, gan, interpolate, invert, mixtures, rate_distortion, study, svi, text
from runners.contenders.workload import Contender, Workload
from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.text_fit import TextFit

MAINS = {
    module.__name__.rpartition(".")[2]: module.main
    for module in (svi, gan, text, assess, invert, interpolate, compare, rate_distortion, mixtures, bench, study)
}
IMAGES = {"--data": "BLOBS.npz", "--steps": "2", "--out": "NEW"}
GIVEN = {
    "svi": IMAGES,
    "gan": IMAGES | {"--selection": "0"},
    "text": {"--text": "MOW.txt", "--steps": "2", "--out": "NEW"},
    "rate_distortion": IMAGES,
    "mixtures": {"--batch": "8", "--samples": "20", "--steps": "2", "--out": "NEW"},
    "bench": {"--device": "cpu"},
    "study": IMAGES | {"--batch": "16"},
}
"""What is added to a command's lines."""

INSTEAD = {"--data": ("--resume",), "--text": ("--resume", "--write"), "--out": ("--write",)}
INSTEAD |= {"--steps": ("--resume", "--write", "--epochs"), "--selection": ("--resume",)}
"""Options in whose presence others are not added."""

TINY = "--guide amortized --model mlp --hidden 8 --latents 2 --batch 16 --images 12"
LINES = "".join(f"{n} men went to mow, went to mow a meadow;\n" for n in range(400))
NETWORKS = """
import torch
from ppl_models import VAE, Batch, MLPDecoder

def nothing():
    raise AssertionError("called without a batch")

class Broken:
    def __init__(self):
        raise RuntimeError("no weights today\\nnor tomorrow")

class Lost(VAE):
    def __init__(self, latents):
        super().__init__(decoder=MLPDecoder(latents=latents, hidden=(4,)))
        with torch.no_grad():
            next(self.parameters()).fill_(float("nan"))
"""

Maker = Callable[[Path, Path], object]
"""Makes what is at a place; it is given that place and the folder of what was trained."""


class Row(NamedTuple):
    line: str
    said: tuple[str, ...]
    broken: Maker | None = None
    begun: bool = False
    full: str = ""


# ---------------------------------------------------------------------------------------------- what a row may name


def copied(name: str) -> Maker:
    return lambda place, trained: (shutil.copytree if (trained / name).is_dir() else shutil.copy)(trained / name, place)


def file(content: str | bytes) -> Maker:
    return lambda place, _: place.write_bytes(content.encode() if isinstance(content, str) else content)


def folder(*names: str) -> Maker:
    def made(place: Path, _: Path) -> None:
        place.mkdir()
        for name in names:
            (place / name).write_text("mine")

    return made


PLACES: dict[str, Maker] = {
    **{name.upper(): copied(name) for name in ("svi", "free", "gan", "text", "sweep", "mixtures", "saved")},
    "BLOBS": copied("blobs.npz"),
    "MOW": copied("mow.txt"),
    "NETWORKS": file(NETWORKS),
    "FILE": file("not a folder"),
    "EMPTY": folder(),
    "MINE": folder("report.html"),
    "NEW": lambda place, _: None,
    "NOWHERE": lambda place, _: None,
}


def edited(name: str, change: Callable[[Path], object]) -> Maker:
    """A copy of a run, in which something is then changed."""

    def made(place: Path, trained: Path) -> None:
        shutil.copytree(trained / name, place)
        change(place)

    return made


def begun(**options: Any) -> Maker:
    """The folder of a study that was cut before its first run, with other options in its config.json."""

    def made(place: Path, trained: Path) -> None:
        place.mkdir()
        given = {"study": "annealing", "quick": False, "data": str(trained / "blobs.npz"), "steps": 2, "batch": 16}
        (place / "config.json").write_text(json.dumps({"command": "study", "options": given | options}))

    return made


def config(name: str, *keys: str, **values: Any) -> Maker:
    """A copy of a run with other values in its config.json, deep inside where keys lead there; `None` drops one."""

    def change(place: Path) -> None:
        content = json.loads((place / "config.json").read_text())
        inner = content
        for key in keys:
            inner = inner[key]
        for key, value in values.items():
            inner.pop(key, None)
            if value is not None:
                inner[key] = value
        (place / "config.json").write_text(json.dumps(content))

    return edited(name, change)


def contents(name: str, file: str, content: bytes) -> Maker:
    """A copy of a run with other bytes in one of its files."""
    return edited(name, lambda place: (place / file).write_bytes(content))


def truncated(place: Path) -> None:
    checkpoint = place / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])


def flipped(place: Path) -> None:
    """One bit of one weight."""
    checkpoint = place / "checkpoint.pt"
    content = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as archive:
        of = max(archive.infolist(), key=lambda each: each.file_size)
    content[of.header_offset + 200 + of.file_size // 2] ^= 16
    checkpoint.write_bytes(content)


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place / "ran"),)


def evil(place: Path) -> None:
    torch.save({"model": Evil(place)}, place / "checkpoint.pt")


def bare_pickle(place: Path) -> None:
    (place / "checkpoint.pt").write_bytes(pickle.dumps({"model": Evil(place)}))


def of_a_gan(name: str) -> Maker:
    def made(place: Path, trained: Path) -> None:
        shutil.copytree(trained / name, place)
        shutil.copy(trained / "gan" / "checkpoint.pt", place)

    return made


def of_other_sizes(place: Path) -> None:
    states = torch.load(place / "checkpoint.pt", weights_only=True)
    states["model"] = {name: torch.cat([value, value]) for name, value in states["model"].items()}
    torch.save(states, place / "checkpoint.pt")


def of_numbers(place: Path) -> None:
    torch.save([1, 2, 3], place / "checkpoint.pt")


def of_nothing(place: Path) -> None:
    torch.save(dict.fromkeys(torch.load(place / "checkpoint.pt", weights_only=True)), place / "checkpoint.pt")


def without(file: str) -> Callable[[Path], object]:
    return lambda place: (place / file).unlink()


def folder_at(file: str) -> Callable[[Path], object]:
    """A folder where a file is looked for, which not even root can read as a file."""

    def change(place: Path) -> None:
        (place / file).unlink()
        (place / file).mkdir()

    return change


def npz(**arrays: Any) -> Maker:
    """A .npz file with these in place of arrays of the right kind."""
    bits = np.zeros((20, 784), np.uint8)

    def made(place: Path, _: Path) -> None:
        every = {"train": bits, "valid": bits, "test": bits} | arrays
        buffer = io.BytesIO()
        np.savez(buffer, **{name: array for name, array in every.items() if array is not None})
        place.write_bytes(buffer.getvalue())

    return made


def with_nan() -> np.ndarray:
    bits = np.zeros((20, 784))
    bits[3, 5] = np.nan
    return bits


def pictures(count: int, *, broken: bytes | None = None, size: int = 8) -> Maker:
    def made(place: Path, _: Path) -> None:
        place.mkdir()
        for number in range(count):
            Image.new("RGB", (size, size), (number, 0, 0)).save(place / f"{number:02}.png")
        if broken is not None:
            (place / "05.png").write_bytes(broken)

    return made


def idx(**broken: bytes) -> Maker:
    """A folder with MNIST's files in it, of no length or these."""

    def made(place: Path, _: Path) -> None:
        raw = place / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            for kind in ("images-idx3", "labels-idx1"):
                (raw / f"{part}-{kind}-ubyte").write_bytes(b"")
        for name, content in broken.items():
            (raw / f"train-{name}").unlink(missing_ok=True)
            (raw / f"train-{name}".replace("_", "-").replace("-gz", ".gz")).write_bytes(content)
        if any(name.endswith("gz") for name in broken):
            (raw / "train-images-idx3-ubyte").unlink()

    return made


IDX = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)


def on_other_data(place: Path) -> None:
    """The same run, had it been on a file of that size with other images."""
    data = small.write_npz(place / "other.npz", seed=1)
    for path in place.rglob("config.json"):
        content = json.loads(path.read_text())
        for source in content.keys() & {"options", "source"}:
            content[source]["data"] = str(data)
        path.write_text(json.dumps(content))


def row(line: str, *said: str, broken: Maker | None = None, begun: bool = False, full: str = "") -> Row:
    return Row(line, said, broken, begun, full)


FULL = "No space left on device; free or choose another place"
CHECKPOINT = "BROKEN/checkpoint.pt"
EXPECTED_DATA = "expected auto, mnist, fashion, fixed-binarized, digits, a folder of images or a .npz file"

ROWS: list[Row] = [
    # ------------------------------------------------------------------------------------- svi: numbers and words
    row("svi --steps 0", "--steps: found 0, expected a whole number from 1 to"),
    row("svi --steps many", "--steps: found many, expected a whole number"),
    row("svi --steps 1.5", "--steps: found 1.5, expected a whole number"),
    row("svi --steps 1e999", "--steps: found 1e999, expected a whole number"),
    row("svi --steps", "--steps: expected one argument"),
    row("svi --batch -3", "--batch: found -3, expected a whole number from 1 to"),
    row("svi --batch 100000", "batch size: found 100000", "160"),
    row(f"svi --batch {10**30}", "--batch: found 1000000", "expected a whole number from 1"),
    row("svi --batch 161 --epochs 1", "--batch: found 161, expected at most 160"),
    row("svi --latents 1000000000000000", "memory"),
    row("svi --lr 0", "--lr: found 0, expected a number above 0"),
    row("svi --lr nan", "--lr: found nan, expected a finite number"),
    row("svi --lr 1e999", "--lr: found 1e999, expected a finite number"),
    row("svi --lr fast", "--lr: found fast, expected a finite number"),
    row("svi --beta -1", "--beta: found -1, expected a finite number from 0 on"),
    row("svi --sigma2 inf", "--sigma2: found inf, expected a finite number"),
    row("svi --sigma2 1e-320", "--sigma2: found 1e-320, expected a number above 0"),
    row("svi --betas 0.9 1", "--betas: found 1, expected a number from 0 to below 1"),
    row("svi --betas 0.9", "--betas: expected 2 arguments"),
    row(f"svi --seed {2**70}", "--seed: found 1180591620717411303424, expected a whole number from 0 to"),
    row("svi --seed -1", "--seed: found -1, expected a whole number from 0"),
    row("svi --pictures -1", "--pictures: found -1, expected a whole number from 0"),
    row("svi --guide oracle", "--guide: found 'oracle', expected free, amortized, semi-amortized or FILE.py:NAME"),
    row("svi --model transformer", "--model: found 'transformer', expected conv, mlp, deep, ladder"),
    row("svi --preset s99", "--preset: invalid choice: 's99' (choose from", "s7-unlabelled"),
    row("svi --precision float8", "--precision: invalid choice: 'float8' (choose from", "bf16"),
    row("svi --nonsense", "unrecognized arguments: --nonsense"),
    row("svi --lat 5", "--lat"),
    row("svi --device meta", "--device: found 'meta', expected cpu, cuda or cuda:N"),
    row("svi --device abacus", "--device: found 'abacus', expected cpu, cuda or cuda:N"),
    row("svi --device cuda:99", "--device: found 'cuda:99', but torch sees"),
    # --------------------------------------------------------------------------- svi: what does not go together
    row("svi --epochs 2 --steps 5", "--epochs and --steps: give one of them"),
    row("svi --joint --local-lr 3", "--local-lr: changes nothing with --joint"),
    row("svi --sigma2 0.2", "--sigma2: changes nothing with --likelihood bernoulli, only with gaussian"),
    row("svi --guide amortized --cold", "--cold: changes nothing with --guide amortized, only with free"),
    row("svi --model conv --hidden 3", "--hidden: changes nothing with --model conv, only with mlp"),
    row("svi --beta 2", "--beta: changes nothing", "only with beta"),
    row("svi --target -80 --objective iwae", "--target: changes nothing", "only with constrained"),
    row("svi --schedule falling", "--schedule: changes nothing", "only with annealed"),
    row("svi --free-bits 2 --objective constrained", "--free-bits", "only with elbo or annealed or beta"),
    row("svi --gradient stl", "--gradient: changes nothing", "only with iwae"),
    row("svi --rank 3", "--rank: changes nothing", "only with low-rank"),
    row("svi --family low-rank --rank 30", "--rank: found 30, expected at most 10"),
    row("svi --learn-sigma2", "--learn-sigma2: changes nothing", "only with gaussian"),
    row("svi --activation tanh", "--activation: changes nothing", "only with mlp"),
    row("svi --first-order", "--first-order: changes nothing", "only with semi-amortized"),
    row("svi --local-steps 3 --guide amortized", "--local-steps", "only with free or semi-amortized"),
    row("svi --guide semi-amortized --local-rule adam", "--local-rule adam", "add --first-order"),
    row("svi --model ladder", "--guide free", "expected --guide amortized"),
    row("svi --model ladder --guide amortized --conditional", "--conditional: the ladder reads no labels"),
    row("svi --model ladder --guide amortized --family flow", "--family flow", "diagonal"),
    row("svi --model ladder --guide amortized --latents 3", "--latents: the ladder has 100 and 50"),
    row("svi --family echo", "--guide free", "expected --guide amortized"),
    row("svi --family echo --guide amortized --objective iwae", "--objective iwae", "no density"),
    row("svi --family echo --guide amortized --evidence 10", "--evidence", "no density"),
    row("svi --family echo --guide amortized --batch 1", "--batch 1", "expected at least 2"),
    row("svi --model deep --guide amortized", "--model deep: images of 28×28, expected sides that are multiples of 16"),
    row("svi --target nan --objective constrained", "--target: found nan, expected a finite number"),
    row("svi --objective constrained --constraint squared-error", "--constraint squared-error: needs a --target"),
    row("svi --conditional --guide amortized", "--conditional: fixed-binarized has no labels"),
    # --------------------------------------------------------------------------------------------- svi: the data
    row("svi --data NOWHERE", "--data: found", "NOWHERE'", EXPECTED_DATA),
    row("svi --data FILE", "--data: found", "FILE'", EXPECTED_DATA),
    row("svi --data ", "--data: found nothing, expected auto, mnist"),
    row("svi --data BLOBS.npz --binarize static", "--binarize: found static, expected none", "is binary already"),
    row(
        "svi --data mnist --data-root EMPTY", "MNIST: found no complete set of files in", "no network here", "or under"
    ),
    row(
        "svi --data fixed-binarized --data-root EMPTY", "binarized-mnist: found no fixed binarisation, expected a .npz"
    ),
    row(
        "svi --data mnist --data-root BROKEN", "train-images-idx3-ubyte: found magic , expected 00000803", broken=idx()
    ),
    row(
        "svi --data mnist --data-root BROKEN",
        "train-images-idx3-ubyte: found 100 bytes of data, expected 47040000",
        broken=idx(images_idx3_ubyte=IDX + bytes(100)),
    ),
    row(
        "svi --data mnist --data-root BROKEN",
        "train-images-idx3-ubyte.gz: found a file that cannot be read",
        "expected an idx file",
        broken=idx(images_idx3_ubyte_gz=gzip.compress(IDX + bytes(100))[:30]),
    ),
    row("svi --data EMPTY", "EMPTY: found 0 images", "expected at least 10"),
    row("svi --data BROKEN", "BROKEN: found 9 images", "expected at least 10", broken=pictures(9)),
    row(
        "svi --data BROKEN",
        "BROKEN/05.png: found a file that cannot be decoded",
        "expected an image",
        broken=pictures(12, broken=b"\x89PNG\r\n\x1a\n and no more"),
    ),
    row("svi --data BROKEN --all-train", "--all-train", "no validation split", broken=pictures(12)),
    row("svi --data BROKEN.npz", "BROKEN.npz: found a file that cannot be read", broken=file("text")),
    row("svi --data BROKEN.npz", "BROKEN.npz: found a file that cannot be read", broken=file("")),
    row("svi --data NOWHERE.npz", "NOWHERE.npz: found no fixed binarisation, expected a .npz file"),
    row("svi --data BROKEN.npz", "BROKEN.npz: found no fixed binarisation", broken=folder()),
    row("svi --data BROKEN.npz", "found no array valid, expected train, valid, test", broken=npz(valid=None)),
    row("svi --data BROKEN.npz", "array test: found float64 (20,), expected (N, 784)", broken=npz(test=np.zeros(20))),
    row("svi --data BROKEN.npz", "array train: found uint8 (0, 784)", broken=npz(train=np.zeros((0, 784), np.uint8))),
    row("svi --data BROKEN.npz", "found values other than 0 and 1, expected binary", broken=npz(train=with_nan())),
    row("svi --data BROKEN.npz", "array train: found no array of numbers", broken=npz(train=np.array(["a", "b"]))),
    row("svi --data BROKEN.npz", "BROKEN.npz: found a file that cannot", broken=npz(train=np.array([{}, {}]))),
    row("svi --model NETWORKS.py:Absent", "NETWORKS.py has no Absent that can be called"),
    row("svi --model NETWORKS.py:", "names nothing in the file, expected FILE.py:NAME"),
    row("svi --model NETWORKS.py:Broken", "making it raised RuntimeError: no weights today"),
    row("svi --model NETWORKS.py:nothing", "raised TypeError: nothing()"),
    row(
        "svi --model NETWORKS.py:Lost --guide amortized", "'decoder.body.0.weight' is not finite at step 0", begun=True
    ),
    row("svi --model NOWHERE.py:Mine", "NOWHERE.py: no such file"),
    row("svi --model BROKEN.py:Mine", "BROKEN.py: importing it raised SyntaxError", broken=file("def")),
    row("svi --model BROKEN.py:Mine", "BROKEN.py: importing it raised", broken=file(b"\xff\x00")),
    # ------------------------------------------------------------------------------------ svi: where it is to go
    row("svi --out ", "--out: found nothing, expected a path"),
    row("svi --out FILE", "FILE: cannot be written to (File exists)"),
    row("svi --out " + "a" * 5000, "File name too long"),
    row("svi --out MINE", "MINE: is not empty (report.html); choose another folder"),
    row("svi --out SVI", "SVI: holds a run already; --resume goes on with it"),
    row("svi --out GAN", "GAN: holds a run already; --resume goes on with it"),
    row("svi --resume --out BROKEN", "BROKEN: holds a run already", broken=edited("svi", without("checkpoint.pt"))),
    row("svi --resume --data BLOBS.npz --steps 2 --out FILE", "FILE: cannot be written to"),
    # --------------------------------------------------------------------------------------------- svi: resuming
    row("svi --resume --out SVI --latents 3", "--latents:", "SVI was started with 2, found 3; leave it out"),
    row("svi --resume --out SVI --steps 9", "--steps:", "was started with 3, found 9"),
    row("svi --resume --out SAVED", "SAVED: was not made by a command; in Python, load goes on with it"),
    row("svi --resume --out GAN", "GAN: was made by gan.py, which resumes it"),
    row("svi --resume --out SWEEP", "SWEEP: was made by rate_distortion.py, which resumes it"),
    row("svi --resume --out BROKEN", "BROKEN: was trained on", "found", broken=edited("svi", on_other_data)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable checkpoint", broken=edited("svi", truncated)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable", "is damaged", broken=edited("svi", flipped)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable", broken=contents("svi", "checkpoint.pt", b"")),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable", broken=contents("svi", "checkpoint.pt", b"PK")),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable checkpoint", broken=edited("svi", evil)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: not a readable checkpoint", broken=edited("svi", bare_pickle)),
    row("svi --resume --out BROKEN", CHECKPOINT, broken=edited("svi", folder_at("checkpoint.pt"))),
    row(
        "svi --resume --out BROKEN",
        f"{CHECKPOINT}: a checkpoint of",
        "'critic'",
        "expected one of",
        broken=of_a_gan("svi"),
    ),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: holds a list", "expected", broken=edited("svi", of_numbers)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: its 'history' does not fit", broken=edited("svi", of_nothing)),
    row("svi --resume --out BROKEN", f"{CHECKPOINT}: its 'model' does not fit", broken=edited("svi", of_other_sizes)),
    row("svi --resume --out BROKEN", "BROKEN: no config.json", broken=edited("svi", without("config.json"))),
    row("svi --resume --out BROKEN", "config.json: not readable", broken=contents("svi", "config.json", b"")),
    row("svi --resume --out BROKEN", "config.json: not readable", broken=contents("svi", "config.json", b"{'a'")),
    row("svi --resume --out BROKEN", "config.json: not readable", broken=contents("svi", "config.json", b"\xff\xfe")),
    row("svi --resume --out BROKEN", "config.json: not readable", broken=contents("svi", "config.json", b"[" * 10**5)),
    row("svi --resume --out BROKEN", "config.json: not readable", broken=edited("svi", folder_at("config.json"))),
    row("svi --resume --out BROKEN", "BROKEN: was not made by", broken=contents("svi", "config.json", b"[1, 2]")),
    row("svi --resume --out BROKEN", "BROKEN: was made by None.py", broken=config("svi", command=None)),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", steps="many")),
    row(
        "svi --resume --out BROKEN",
        "steps",
        "found inf",
        "expected 0 or more",
        broken=config("svi", "options", steps=1e400),
    ),
    row(
        "svi --resume --out BROKEN",
        "steps",
        "found -5",
        "expected 0 or more",
        broken=config("svi", "options", steps=-5),
    ),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", latents=-2)),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", hidden=10**15)),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", hidden=[10**15])),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", seed=1e400)),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", model=["os.system"])),
    row("svi --resume --out BROKEN", CHECKPOINT, broken=config("svi", "options", family="cubist")),
    row("svi --resume --out BROKEN", "config.json", broken=config("svi", "options", data=7)),
    row("svi --resume --out BROKEN", "--device", broken=config("svi", "options", device="abacus")),
    row("svi --resume --out BROKEN", "name it again", broken=config("svi", "options", guide="/tmp/evil.py:Evil")),
    row("svi --resume --out BROKEN", "BROKEN: was trained on None", broken=config("svi", data=None)),
    # ------------------------------------------------------------------------------------------------------- gan
    row("gan --loss perceptual", "--loss: invalid choice: 'perceptual' (choose from", "wgan-gp"),
    row("gan --critic-steps 0", "--critic-steps: found 0, expected a whole number from 1 to"),
    row("gan --penalty -1", "--penalty: found -1, expected a finite number from 0 on"),
    row("gan --loss wgan-gp --fuzz 0.1", "--fuzz: wgan-gp has no labels, expected --loss gan or saturating"),
    row("gan --networks deep --loss wgan-gp", "--networks deep: batch norm"),
    row("gan --networks deep", "--networks deep: images of 28×28, expected sides that are multiples of 16"),
    row("gan --augment blur", "--augment: invalid choice: 'blur' (choose from", "cutout"),
    row("gan --average 1", "--average: found 1, expected a number from 0 to below 1"),
    row("gan --batch 100000", "batch size: found 100000", "160"),
    row("gan --data NOWHERE", "--data: found", EXPECTED_DATA),
    row("gan --data BROKEN.npz", "array train: found values other than 0 and 1", broken=npz(train=with_nan())),
    row("gan --preset s2", "--preset: invalid choice: 's2' (choose from"),
    row("gan --device cuda:99", "--device: found 'cuda:99'"),
    row("gan --seed nan", "--seed: found nan, expected a whole number"),
    row("gan --latents 1000000000000000", "memory"),
    row("gan --beta 3", "unrecognized arguments: --beta 3"),
    row("gan --out GAN", "GAN: holds a run already; --resume goes on with it"),
    row("gan --out FILE", "FILE: cannot be written to"),
    row("gan --resume --out GAN --loss hinge", "--loss:", "GAN was started with 'gan', found 'hinge'"),
    row("gan --resume --out SVI", "SVI: was made by svi.py, which resumes it"),
    row("gan --resume --out BROKEN", f"{CHECKPOINT}: not a readable", "is damaged", broken=edited("gan", flipped)),
    row("gan --resume --out BROKEN", f"{CHECKPOINT}: not a readable", broken=edited("gan", evil)),
    row("gan --resume --out BROKEN", "config.json", broken=config("gan", "options", critic_betas="ab")),
    row(
        "gan --resume --out BROKEN",
        "loss: found 'perceptual', expected gan",
        broken=config("gan", "options", loss="perceptual"),
    ),
    row("gan --resume --out BROKEN", "config.json", broken=config("gan", "options", latents="x")),
    # ------------------------------------------------------------------------------------------------------ text
    row("text --text NOWHERE.txt", "--text:", "NOWHERE.txt: No such file or directory, expected tinyshakespeare"),
    row("text --text EMPTY", "--text:", "EMPTY: Is a directory, expected tinyshakespeare, python-help or a file"),
    row("text --text BROKEN.txt", "--text: BROKEN has 0 characters, expected 100 or more", broken=file("")),
    row("text --text BROKEN.txt", "--text: BROKEN has 12 characters, expected 100", broken=file("not a folder")),
    row("text --text BROKEN.txt", "BROKEN.txt: the byte 0xe9 at 3 is no UTF-8", broken=file("café ".encode("latin-1"))),
    row("text --text BROKEN.txt", "BROKEN.txt: the byte 0xff at 4 is no UTF-8", broken=file(b"\x00\x01ab\xff" * 99)),
    row("text --text BROKEN.txt --split interleaved", "has 420 characters, expected 1,000", broken=file(LINES[:420])),
    row("text --batch 100000", "batch, length: found 100000 sequences of 64 characters, expected fewer or shorter"),
    row("text --length 100000", "batch, length: found", "sequences of 100000 characters, expected fewer or shorter"),
    row("text --order sideways", "--order: invalid choice: 'sideways' (choose from"),
    row("text --temperature 0.5", "--temperature: changes nothing without --write"),
    row("text --recite 100000", "--recite: found 100000, expected 2 to"),
    row("text --recite 1", "--recite: found 1, expected 2 to"),
    row("text --rare 100000", "has 0 characters, without those that --rare or --drop remove"),
    row("text --dropout 1", "--dropout: found 1, expected a number from 0 to below 1"),
    row("text --clip inf", "--clip: found inf, expected a finite number"),
    row("text --hidden 1000000000000000", "memory"),
    row("text --preset s2", "--preset: invalid choice: 's2' (choose from"),
    row("text --epochs 1 --steps 3", "--epochs and --steps: give one of them"),
    row("text --out FILE", "FILE: cannot be written to"),
    row("text --out TEXT", "TEXT: holds a run already; --resume goes on with it"),
    row("text --resume --out SVI", "SVI: was made by svi.py, which resumes it"),
    row("text --resume --out TEXT --hidden 9", "--hidden:", "TEXT was started with 8, found 9"),
    row("text --resume --out TEXT --text NOWHERE.txt", "NOWHERE.txt: No such file"),
    row("text --resume --out BROKEN", f"{CHECKPOINT}: not a readable", "is damaged", broken=edited("text", flipped)),
    row("text --resume --out BROKEN", "config.json", broken=config("text", "options", rare="x")),
    row(
        "text --resume --out BROKEN", "found 22 inputs, -3 units, 1 layers", broken=config("text", "options", hidden=-3)
    ),
    row("text --resume --out BROKEN", "config.json", broken=config("text", "options", text=[1])),
    row("text --write NOWHERE", "NOWHERE: no config.json in it, so not a run folder"),
    row("text --write NOWHERE --steps 3", "--steps: changes nothing with --write"),
    row("text --write SVI", "SVI: was made by svi.py, expected a run of text.py"),
    row("text --write SAVED", "SAVED"),
    row("text --write FILE", "FILE"),
    row("text --write TEXT --prompt ", "prompt: found nothing, expected a character or more"),
    row("text --write TEXT --prompt @", "'@'"),
    row("text --write TEXT --characters 0", "--characters: found 0, expected a whole number from 1 to"),
    row("text --write TEXT --temperature nan", "--temperature: found nan, expected a finite number"),
    row("text --write TEXT --top-k 0", "--top-k: found 0, expected a whole number from 1 to"),
    row("text --write TEXT --device abacus", "--device: found 'abacus', expected cpu, cuda or cuda:N"),
    row("text --write BROKEN", f"{CHECKPOINT}: not a readable", broken=edited("text", truncated)),
    row("text --write BROKEN", f"{CHECKPOINT}: not a readable", broken=edited("text", evil)),
    row("text --write BROKEN", CHECKPOINT, broken=edited("text", without("checkpoint.pt"))),
    row("text --write BROKEN", f"{CHECKPOINT}: holds no such model", broken=edited("text", of_nothing)),
    row("text --write BROKEN", CHECKPOINT, broken=of_a_gan("text")),
    row(
        "text --write BROKEN", "config.json names os.system", broken=config("text", "model", **{"made by": "os.system"})
    ),
    row("text --write BROKEN", "config.json", broken=config("text", model=None)),
    row("text --write BROKEN", "config.json", broken=config("text", "model", hidden=-1)),
    row("text --write BROKEN", "config.json", broken=config("text", model={"made by": "ELBO"})),
    # ---------------------------------------------------------------------------------------------------- assess
    row("assess NOWHERE", "NOWHERE: no config.json in it, so not a run folder"),
    row("assess FILE", "FILE"),
    row("assess EMPTY", "EMPTY: no config.json in it, so not a run folder"),
    row("assess TEXT", "TEXT: was made by text.py, expected a run of svi.py"),
    row("assess SWEEP", "SWEEP: was made by rate_distortion.py, expected a run of svi.py"),
    row("assess SVI --parts everything", "--parts: invalid choice: 'everything' (choose from"),
    row("assess SVI --images 0", "--images: found 0, expected a whole number from 1 to"),
    row("assess SVI --temperatures 10 0", "--temperatures: found 0, expected a whole number from 1 to"),
    row("assess SVI --samples many", "--samples: found many, expected a whole number"),
    row("assess SVI --start encoder", "--start: invalid choice: 'encoder' (choose from"),
    row("assess SVI --device tpu", "--device: found 'tpu', expected cpu, cuda or cuda:N"),
    row("assess SVI --seed -1", "--seed: found -1, expected a whole number from 0"),
    row("assess SVI --model NETWORKS.py:Lost", "--model: the model of", "SVI is the toolkit's VAE; leave it out"),
    row("assess GAN --model NETWORKS.py:Lost", "--model:", "GAN is a run of a GAN"),
    row("assess GAN --parts importance", "importance: a GAN has no density and no guide, expected samples"),
    row("assess SVI BROKEN", "BROKEN/config.json: not readable", broken=contents("gan", "config.json", b"{")),
    row("assess BROKEN", "names os.system, which the", broken=config("svi", "model", **{"made by": "os.system"})),
    row("assess BROKEN", "names Evil, which the", broken=config("svi", "guide", **{"made by": "Evil"})),
    row("assess BROKEN", "config.json", broken=config("svi", "model", **{"made by": ["VAE"]})),
    row("assess BROKEN", "config.json", broken=config("svi", "model", "decoder", latents=-5)),
    row("assess BROKEN", "config.json", broken=config("svi", "model", "decoder", hidden=[10**15])),
    row("assess BROKEN", "config.json", broken=config("svi", "model", "decoder", colour="blue")),
    row("assess BROKEN", CHECKPOINT, broken=config("svi", "model", "decoder", latents=None)),
    row("assess BROKEN", "config.json", broken=config("svi", batch=None)),
    row("assess BROKEN", "batch size: found -1, expected 1 to 160", broken=config("svi", batch=-1)),
    row("assess BROKEN", "every: found inf, expected 1 to 1000", broken=config("svi", every=1e400)),
    row("assess BROKEN", "config.json", broken=config("svi", model=None)),
    row("assess BROKEN", "expected a model and a guide, found int", broken=config("svi", model=5)),
    row("assess BROKEN", "config.json", broken=config("svi", optimizer="Adam")),
    row("assess BROKEN", "config.json", broken=config("svi", optimizer={"made by": "torch.optim.Adam", "lr": -1})),
    row("assess BROKEN", CHECKPOINT, broken=config("svi", objective={"made by": "VAE"})),
    row("assess BROKEN", "config.json", broken=config("svi", data="digits")),
    row("assess BROKEN", "expected a run of svi.py", broken=config("svi", command=["svi"])),
    row("assess BROKEN", CHECKPOINT, broken=edited("svi", without("checkpoint.pt"))),
    row("assess BROKEN", f"{CHECKPOINT}: not a readable", "is damaged", broken=edited("svi", flipped)),
    row("assess BROKEN", f"{CHECKPOINT}: not a readable", broken=edited("gan", evil)),
    row("assess BROKEN", "BROKEN: was trained on", broken=edited("svi", on_other_data)),
    row("assess BROKEN", "NOWHERE.npz", broken=config("svi", "options", data="NOWHERE.npz")),
    # ---------------------------------------------------------------------------------------------------- invert
    row("invert NOWHERE", "NOWHERE: no config.json in it, so not a run folder"),
    row("invert TEXT", "TEXT: was made by text.py, expected a run of svi.py"),
    row("invert SVI --images 0", "--images: found 0, expected a whole number from 1 to"),
    row("invert SVI --planted -1", "--planted: found -1, expected a whole number from 0"),
    row("invert SVI --restarts none", "--restarts: found none, expected a whole number"),
    row("invert SVI --steps 1e3", "--steps: found 1e3, expected a whole number"),
    row("invert SVI --device tpu", "--device: found 'tpu'"),
    row("invert SVI --label 3", "label: the run is not conditional"),
    row("invert SVI --which best", "which: found 'best' for a run that is no GAN"),
    row("invert GAN --which best", "best: no generator was selected in this run"),
    row("invert SVI --model NETWORKS.py:Lost", "--model: the model of"),
    row("invert BROKEN", f"{CHECKPOINT}: not a readable", broken=edited("gan", truncated)),
    row("invert BROKEN", "names os.system, which", broken=config("gan", "generator", **{"made by": "os.system"})),
    row("invert BROKEN", "config.json", broken=config("gan", critic=None)),
    row("invert GAN --restarts 1000000000000000", "memory"),
    # ----------------------------------------------------------------------------------------------- interpolate
    row("interpolate NOWHERE", "NOWHERE: no config.json in it, so not a run folder"),
    row("interpolate TEXT", "TEXT: was made by text.py"),
    row("interpolate GAN --nodes 2", "nodes: found 2, expected 3 or more"),
    row("interpolate GAN --pairs 0", "--pairs: found 0, expected a whole number from 1 to"),
    row("interpolate GAN --label 1", "label: the run is not conditional"),
    row("interpolate GAN --images 0 1 2", "images: found 3, expected pairs"),
    row("interpolate GAN --images 0 1000", "images: found 1000, expected 0 to 39"),
    row("interpolate GAN --which newest", "--which: invalid choice: 'newest' (choose from"),
    row("interpolate GAN --which best", "best: no generator was selected in this run"),
    row("interpolate GAN SVI --which last", "which: found 'last' for a run that is no GAN"),
    row("interpolate GAN --device tpu", "--device: found 'tpu'"),
    row("interpolate GAN --seed -1", "--seed: found -1"),
    row("interpolate GAN --model NETWORKS.py:Lost", "--model:", "is a run of a GAN"),
    row("interpolate GAN BROKEN", "BROKEN/config.json: not readable", broken=contents("svi", "config.json", b"")),
    # --------------------------------------------------------------------------------------------------- compare
    row("compare", "runs"),
    row("compare NOWHERE", "NOWHERE: no config.json in it, so not a run folder"),
    row("compare SVI FILE", "FILE"),
    row("compare SVI GAN --free 3", "--free: is for runs of svi.py alone"),
    row("compare SVI TEXT", "found fits of a text and of images, which have no figure in common"),
    row("compare SVI --free 0", "--free: found 0, expected a whole number from 1 to"),
    row("compare SVI --refine many", "--refine: found many, expected a whole number"),
    row("compare SVI --images -1", "--images: found -1, expected a whole number from 1 to"),
    row("compare FREE --refine 3", "--refine: the guide of", "FREE is no encoder whose answers can be refined"),
    row("compare SVI BROKEN", "BROKEN: was trained on", broken=edited("svi", on_other_data)),
    row("compare SVI BROKEN", f"{CHECKPOINT}: not a readable", "is damaged", broken=edited("svi", flipped)),
    row("compare SVI BROKEN", f"{CHECKPOINT}: a checkpoint of", "expected one of", broken=of_a_gan("svi")),
    row("compare SVI --model NOWHERE.py:Mine", "--model: no run here has a model of your own; leave it out"),
    row("compare SVI --quick", "unrecognized arguments: --quick"),
    # ------------------------------------------------------------------------------------------- rate_distortion
    row("rate_distortion --objective elbo", "--objective: set for each point", "expected --beta or --target"),
    row("rate_distortion --beta 1 --target -90", "--beta and --target: give one of them"),
    row("rate_distortion --beta -1", "--beta: found -1, expected a finite number from 0 on"),
    row("rate_distortion --beta", "--beta: expected at least one argument"),
    row("rate_distortion --beta many", "--beta: found many, expected a finite number from 0 on"),
    row("rate_distortion --target inf", "--target: found inf, expected a finite number"),
    row("rate_distortion --family cubist", "--family: invalid choice: 'cubist' (choose from"),
    row("rate_distortion --betas 0.9 1", "--betas: found 1"),
    row("rate_distortion --betas 0.9 0.9 --optimizer rmsprop", "--betas: changes nothing with --optimizer rmsprop"),
    row("rate_distortion --schedule linear", "--schedule: changes nothing"),
    row("rate_distortion --constraint squared-error", "--constraint: changes nothing"),
    row("rate_distortion --constraint squared-error --target 3 -5", "squared error from 0 on"),
    row("rate_distortion --free-bits 1 --target -90", "--free-bits: changes nothing"),
    row("rate_distortion --family diagonal echo --rank 3", "--rank: changes nothing"),
    row("rate_distortion --family diagonal echo --evidence 10", "no density"),
    row("rate_distortion --family diagonal echo --batch 1", "--batch 1", "expected at least 2"),
    row("rate_distortion --family diagonal echo --guide free", "expected --guide amortized"),
    row("rate_distortion --batch 100000", "batch size: found 100000"),
    row("rate_distortion --preset s99", "--preset: invalid choice: 's99' (choose from"),
    row("rate_distortion --data NOWHERE", "--data: found", EXPECTED_DATA),
    row("rate_distortion --out SWEEP", "SWEEP: holds a run already; --resume goes on with it"),
    row("rate_distortion --out MINE", "MINE: is not empty (report.html)"),
    row("rate_distortion --out FILE", "FILE: cannot be written to"),
    row("rate_distortion --out SVI", "SVI: holds a run already; --resume goes on with it"),
    row("rate_distortion --resume --out SVI", "SVI: was made by svi.py, which resumes it"),
    row("rate_distortion --resume --out SWEEP --latents 3", "--latents:", "SWEEP was started with 2, found 3"),
    row("rate_distortion --resume --out SWEEP --betas 0.9 0.999", "--betas:", "was started with [0.9, 0.9]"),
    row("rate_distortion --resume --out SWEEP --target -90", "--target:", "was started with --beta"),
    row(
        "rate_distortion --resume --out BROKEN --beta 2",
        "BROKEN: was trained on",
        broken=edited("sweep", on_other_data),
    ),
    row("rate_distortion --resume --out BROKEN", "config.json", broken=config("sweep", "options", beta="x")),
    row("rate_distortion --resume --out BROKEN", "config.json", broken=config("sweep", "options", family=None, beta=3)),
    row(
        "rate_distortion --resume --out BROKEN",
        "diagonal-beta-1/result.json: not readable",
        broken=contents("sweep", "diagonal-beta-1/result.json", b"{"),
    ),
    row(
        "rate_distortion --resume --out BROKEN",
        "diagonal-beta-1/result.json",
        broken=contents("sweep", "diagonal-beta-1/result.json", b"[]"),
    ),
    # -------------------------------------------------------------------------------------------------- mixtures
    row("mixtures --mixture torus", "--mixture: invalid choice: 'torus' (choose from"),
    row("mixtures --mixture", "--mixture: expected at least one argument"),
    row("mixtures --loss wasserstein", "--loss: invalid choice: 'wasserstein' (choose from"),
    row("mixtures --seeds 0", "--seeds: found 0, expected a whole number from 1 to"),
    row("mixtures --steps 0", "--steps: found 0, expected a whole number from 1 to"),
    row("mixtures --batch 0", "--batch: found 0, expected a whole number from 1 to"),
    row("mixtures --batch 1", "--batch 1: one point has no variety, expected 2 or more"),
    row("mixtures --samples no", "--samples: found no, expected a whole number"),
    row("mixtures --penalty -1", "--penalty: found -1, expected a finite number from 0 on"),
    row("mixtures --lr 0", "--lr: found 0, expected a number above 0"),
    row("mixtures --seed -1", "--seed: found -1"),
    row("mixtures --device moon", "--device: found 'moon', expected cpu, cuda or cuda:N"),
    row("mixtures --resume", "unrecognized arguments: --resume"),
    row("mixtures --out FILE", "FILE: cannot be written to"),
    row("mixtures --out MINE", "MINE: is not empty (report.html)"),
    row("mixtures --out MIXTURES", "--out", "MIXTURES: holds a run already; choose another folder"),
    row("mixtures --out SVI", "--out", "SVI: holds a run already; choose another folder"),
    # ----------------------------------------------------------------------------------------------------- bench
    row("bench speed", "WORKLOAD: found 'speed', expected"),
    row("bench gan --rounds 0", "--rounds: found 0, expected a whole number from 1 to"),
    row("bench gan --threads 100000", "--threads: found 100000, expected 1 to"),
    row("bench gan --threads two", "--threads: found two, expected a whole number"),
    row("bench gan --device tpu", "--device: found 'tpu', expected cpu, cuda or cuda:N"),
    row("bench gan --precision float64", "--precision: invalid choice: 'float64' (choose from"),
    row("bench gan --out table.txt", "--out: found table.txt, expected a file .md or .csv"),
    row("bench gan --out NOWHERE/x.md", "NOWHERE/x.md, expected a file .md or .csv in a folder"),
    row("bench gan --out BROKEN.md", "--out: found", "BROKEN.md, expected a file", broken=folder()),
    row("bench gan --out ", "--out: found nothing, expected a path"),
    row("bench reach --data-root ", "--data-root: found nothing, expected a path"),
    row("bench gan --steps 3", "unrecognized arguments: --steps 3"),
    # ------------------------------------------------------------------------------------------------ a full disk
    *(
        row(line, f"{name}: {FULL}", full=name, begun=True)
        for line, name in [
            (f"svi {TINY}", "checkpoint.pt"),
            (f"svi {TINY}", "metrics.csv"),
            (f"svi {TINY}", "result.json"),
            (f"svi {TINY}", "curves.png"),
            (f"svi {TINY}", "report.html"),
            ("svi --resume --out SVI", "checkpoint.pt"),
            ("svi --resume --out SVI", "metrics.csv"),
            ("gan --batch 16", "checkpoint.pt"),
            ("gan --batch 16", "metrics.csv"),
            ("text --hidden 8 --batch 8", "checkpoint.pt"),
            ("text --hidden 8 --batch 8", "metrics.csv"),
            (f"rate_distortion {TINY} --beta 1", "checkpoint.pt"),
            (f"rate_distortion {TINY} --beta 1", "rate_distortion.json"),
            ("mixtures --mixture ring --loss gan", "result.json"),
            ("mixtures --mixture ring --loss gan", "mixtures.md"),
            ("assess SVI --parts importance --images 3 --samples 2", "assessment.json"),
            ("invert SVI --images 1 --planted 0 --restarts 2 --steps 2", "inversion.json"),
            ("bench gan --out NEW.md", "NEW.md"),
        ]
    ),
    row("svi", "NEW: cannot be written to (No space left on device)", full="config.json", begun=True),
    row("mixtures", "NEW: cannot be written to (No space left on device)", full="config.json", begun=True),
    # ----------------------------------------------------------------------------------------------------- study
    row("study q99 --out NOWHERE", "q99: no such study; expected local-rules, inner-updates,"),
    row("study --quick", "of which study? expected local-rules,"),
    row("study --list --seed 3", "of which study? expected local-rules,"),
    row("study annealing --steps 0", "--steps: found 0, expected a whole number from 1 to"),
    row("study annealing --batch none", "--batch: found none, expected a whole number"),
    row("study annealing --seed -1", "--seed: found -1"),
    row("study annealing --precision half", "--precision: invalid choice: 'half' (choose from"),
    row("study annealing --device moon", "--device: found 'moon', expected cpu, cuda or cuda:N"),
    row("study annealing --data NOWHERE", "--data: found", "NOWHERE", "expected auto, mnist"),
    row("study annealing --data BROKEN.npz", "BROKEN.npz", broken=file("no arrays")),
    row("study annealing --binarize static", "--binarize: found static, expected none, since"),
    row("study annealing --batch 100000", "batch size: found 100000, expected 1 to 160"),
    row("study annealing --text MOW.txt", "--text: changes nothing in runs of svi.py"),
    row("study temperature --data BLOBS.npz", "--data: changes nothing in runs of text.py"),
    row("study annealing --epochs 3", "unrecognized arguments: --epochs 3"),
    row("study annealing --out FILE", "FILE: cannot be written to"),
    row("study annealing --out MINE", "MINE: is not empty (report.html)"),
    row("study annealing --out SVI", "--out", "SVI: holds a run already; --resume goes on with it"),
    row("study --resume --out NOWHERE", "--resume: found no study to go on with"),
    row("study --resume --out SVI", "SVI: was made by svi.py, which resumes it"),
    row("study constraint --resume --out BROKEN", "was started with 'annealing', found 'constraint'", broken=begun()),
    row("study --resume --steps 9 --out BROKEN", "--steps: ", "was started with 2, found 9", broken=begun()),
    row("study --resume --out BROKEN", "q77: no such study; expected", broken=begun(study="q77")),
    row("study --resume --out BROKEN", "BROKEN/config.json: ", broken=begun(steps="many")),
    row("study --resume --out BROKEN", "BROKEN/config.json: ", broken=begun(study=["annealing"])),
    row("study annealing", "NEW: cannot be written to (No space left on device)", full="config.json", begun=True),
]


# ------------------------------------------------------------------------------------------------------ what is done


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each command, and data."""
    at = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        _without_pictures(patch)
        patch.setattr("runners.figures.save", lambda *_: None)
        _train(at)
    return at


def _without_pictures(patch: pytest.MonkeyPatch) -> None:
    """An empty one in place of those that a report has."""
    for kind in (Fit, GanFit, TextFit):
        patch.setattr(kind, "final_figures", lambda *_: {"curves": Figure((0.1, 0.1))})


def _train(at: Path) -> None:
    data = f"--data {small.write_npz(at / 'blobs.npz')}"
    (at / "mow.txt").write_text(LINES)
    lines = {
        "svi": f"{data} {TINY} --steps 3",
        "gan": f"{data} --latents 2 --batch 16 --steps 2 --pictures 0 --selection 0",
        "text": f"--text {at / 'mow.txt'} --hidden 8 --batch 8 --steps 2",
        "rate_distortion": f"{data} {TINY} --steps 3 --beta 1",
        "mixtures": "--mixture ring --loss gan --steps 1 --batch 8 --samples 20",
    }
    for command, line in lines.items():
        out = at / ("sweep" if command == "rate_distortion" else command)
        MAINS[command]([*line.split(), "--out", str(out)])
    free = lines["svi"].replace("amortized", "free --updates 1")
    svi.main([*free.split(), "--out", str(at / "free")])
    svi.fit(small.model(), small.amortized(), small.data_set(), batch=20, steps=1, progress=False).save(at / "saved")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no bars, and nothing under runs/."""
    monkeypatch.setattr("runners.data.mnist_files._download", _no_network)
    for bar in ("runners.loop.train.tqdm", "runners.invert.tqdm", "runners.fit.tqdm"):
        monkeypatch.setattr(bar, lambda *args, **settings: tqdm(*args, **settings | {"disable": True}))
    monkeypatch.setitem(bench.WORKLOADS, "gan", lambda _: Workload("idle", "images", 1, {"toolkit": _idle}, ()))
    monkeypatch.setattr("runners.bench.BUDGET", 0.0)
    monkeypatch.setattr("runners.bench.peak_memory", lambda *_: None)
    monkeypatch.setattr("runners.fit.REPORT", Refinement(steps=1))
    _without_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)


def _no_network(*_: object) -> None:
    raise OSError("no network here")


def _idle() -> Contender:
    return Contender(lambda: None, 1)


class _Full(io.FileIO):
    """A file on a disk that is full."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_up(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let there be no room for what is written into files of that name."""
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **settings: Any) -> Any:
        if path.name.removeprefix(".").removesuffix(".partial") != name or mode.startswith("r"):
            return opened(path, mode, *args, **settings)
        file = io.BufferedWriter(_Full(path, mode.replace("b", "")))
        return file if "b" in mode else io.TextIOWrapper(file)

    monkeypatch.setattr(Path, "open", full)


def typed(each: Row, at: Path, trained: Path) -> list[str]:
    """The line, with what is added to it, its places made."""
    command, *words = each.line.split(" ")
    for option, value in GIVEN.get(command, {}).items():
        if not {option, *INSTEAD.get(option, ())} & set(words):
            words += [option, value]
    for position, word in enumerate(words):
        named, colon, inside = word.partition(":")
        name = named.partition(".")[0].partition("/")[0]
        if name in PLACES or name == "BROKEN":
            if "/" not in named and not (at / named).exists():
                (PLACES.get(name) or each.broken)(at / named, trained)
            words[position] = f"{at / named}{colon}{inside}"
    return words


def files(at: Path) -> dict[Path, str]:
    """All files and folders, and what is in them."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in sorted(at.rglob("*"))
    }


def lines_of(said: str) -> list[str]:
    """What was said but for what text.py and a run that begins say of themselves."""
    lines = [line for line in said.splitlines() if line.strip()]
    return [line for line in lines if not re.match(r"text: \w+, [\d,]+ characters of \d+|\w*Fit\(.*\) → ", line)]


@pytest.mark.parametrize("each", ROWS, ids=lambda each: f"{each.line[:60]} {each.said[0][:30]}")
def test_bad_input_ends_in_one_line(
    each: Row, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = each.line.partition(" ")[0]
    words = typed(each, tmp_path, trained)
    before = files(tmp_path)
    if each.full:
        fill_up(monkeypatch, each.full)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        MAINS[command](words)
    (said,) = lines_of(capsys.readouterr().err)
    assert ended.value.code == 2
    assert said.startswith(f"{command}: ")
    for part in each.said:
        assert part in said
    after = files(tmp_path)
    assert not [path for path in after if path.name.endswith(".partial")]
    if each.begun:
        after = {path: content for path, content in after.items() if "NEW" not in path.parts}
    assert after == before
