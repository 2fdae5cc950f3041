"""Small sets of images and small networks, for tests of training; and what commands refuse."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from guides import SGD, Amortized, Diagonal, Free, Refinement, SemiAmortized
from ppl_models import CVAE, VAE, CharGRU, Critic, Generator, MLPDecoder, MLPEncoder
from runners.data import DataSet, Images, Text


def images(count: int, *, first: int = 0, fresh: bool = False) -> Images:
    """Blurry bars of two kinds with labels, 8×8."""
    generator = torch.Generator().manual_seed(first)
    y = torch.randint(0, 2, (count,), generator=generator)
    place = torch.randint(1, 7, (count, 1, 1), generator=generator)
    line = (torch.arange(8) - place).abs() < 2
    upright = line.expand(count, 8, 8)
    pixels = torch.where(y[:, None, None].bool(), upright, upright.mT).to(torch.uint8) * 230
    return Images(pixels[:, None], y, torch.arange(first, first + count), fresh=fresh)


def data_set(*, train: int = 200, test: int = 50, fresh: bool = False) -> DataSet:
    """A data set of bars."""
    splits = {"train": images(train, fresh=fresh), "valid": None, "test": images(test, first=train)}
    return DataSet(name="bars", **splits, binarize="stochastic" if fresh else "none")


def large_data_set(*, train: int, test: int = 8) -> DataSet:
    """Bars of 16×16 with labels, the smallest that all networks take."""

    def doubled(images: Images) -> Images:
        pixels = images.pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return Images(pixels, images.labels, images.index)

    bars = data_set(train=train, test=test)
    return DataSet(name="bars", train=doubled(bars.train), valid=None, test=doubled(bars.test))


def model(*, latents: int = 2, hidden: tuple[int, ...] = (16,)) -> VAE:
    """A small VAE of bars."""
    return VAE(decoder=MLPDecoder(latents=latents, shape=(1, 8, 8), hidden=hidden))


def conditional(*, latents: int = 2) -> CVAE:
    """The same, given the kind of bar."""
    return CVAE(latents=latents, classes=2, decoder=MLPDecoder(latents=latents + 2, shape=(1, 8, 8), hidden=(16,)))


def amortized(*, latents: int = 2, hidden: tuple[int, ...] = (16,)) -> Amortized:
    """A small encoder of bars."""
    encoder = MLPEncoder(shape=(1, 8, 8), hidden=hidden)
    return Amortized(encoder=encoder, family=Diagonal(latents))


def semi_amortized(*, exact: bool = True) -> SemiAmortized:
    """The same encoder, its answers refined."""
    refinement = Refinement(steps=3, rule=SGD(lr=1e-2, momentum=0.5), final=1.0, decay=0.0)
    encoder = MLPEncoder(shape=(1, 8, 8), hidden=(16,))
    return SemiAmortized(encoder=encoder, family=Diagonal(2), refinement=refinement, exact=exact)


def free(data: DataSet, *, latents: int = 2, refinement: Refinement | None = None, warm: bool = True) -> Free:
    """Free parameters of a data set's training images."""
    return Free(data.train, latents=latents, refinement=refinement, warm=warm)


def networks() -> tuple[Generator, Critic]:
    """A small generator and a small critic of bars."""
    generator = Generator(MLPDecoder(latents=3, shape=(1, 8, 8), hidden=(8,)))
    return generator, Critic(MLPEncoder(shape=(1, 8, 8), hidden=(8,), activation="leaky-relu"))


def text(*, train: int = 3000, test: int = 800, length: int = 8) -> DataSet:
    """A text of one sentence again and again, with a little noise."""
    alphabet, generator = " abcdehint.", torch.Generator().manual_seed(0)
    sentence = torch.tensor([alphabet.index(character) for character in "the cat bit the hen. "], dtype=torch.int32)
    codes = sentence.repeat((train + test) // len(sentence) + 1)[: train + test]
    noise = torch.randint(len(alphabet), codes.shape, generator=generator, dtype=torch.int32)
    codes = torch.where(torch.rand(codes.shape, generator=generator) < 0.1, noise, codes)
    splits = {"train": codes[:train], "test": codes[train:]}
    return DataSet("a cat", valid=None, **{name: Text(part, alphabet, length=length) for name, part in splits.items()})


def reader(data: DataSet) -> CharGRU:
    """A small model of a text."""
    return CharGRU(data.train.alphabet, hidden=8, layers=1)


def write_npz(path: Path, *, train: int = 160, other: int = 40, seed: int = 0) -> Path:
    """A file in the format of the fixed binarisation of MNIST, with random blobs."""
    generator = np.random.default_rng(seed)
    splits = {}
    for name, count in (("train", train), ("valid", other), ("test", other)):
        blobs = np.zeros((count, 28, 28), dtype=np.uint8)
        for blob in blobs:
            row, column = generator.integers(4, 16, 2)
            blob[row : row + 8, column : column + 5] = 1
        splits[name] = np.packbits(blobs.reshape(count, 784), axis=1)
    np.savez(path, **splits)
    return path


def refused(main: Callable[[list[str]], object], capsys: pytest.CaptureFixture, *line: object) -> str:
    """The one line that a command ends in, with its name before it and exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in line])
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{main.__module__.rpartition('.')[2]}: ")
    return said


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all of a module's parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """The names whose values are no longer those of `before`."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
