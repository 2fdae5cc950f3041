"""All measures of a model's samples at once, beside those of real images in their place, and as a table.

What the figures cannot see: features know the strokes that tell the classes apart and little else, so that wrong
backgrounds and textures cost nothing there (`sliced_wasserstein` and `memorisation` look at pixels); and a model that
was trained against a classifier, or chosen by it, has to be reported by one of another seed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ppl_models import UsageError
from runners.data import DataSet
from runners.loop.random import forked
from runners.metrics.classes import class_balance
from runners.metrics.classifiers import AT_ONCE, FEATURES, Classifier, Trained
from runners.metrics.distances import SUBSET, frechet_distance, kernel_distance, sliced_wasserstein
from runners.metrics.neighbours import memorisation, prdc, two_sample_accuracy

__all__ = ["COLUMNS", "SETTINGS", "cell", "measure", "table"]

SETTINGS = ("data", "binarize", "split", "images", "k", "seed", "classifier")
"""What has to be the same for two figures to be comparable."""

COLUMNS = (
    "frechet_distance",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "two_sample_accuracy",
    "reverse_kl",
    "confidence",
    "memorisation",
    "sliced_wasserstein",
)
"""What a table shows."""

Split = Literal["train", "valid", "test"]

LEAST = 10
"""Fewer images have no subsets and no fifth neighbours."""


class _Seen(NamedTuple):
    """Images as pixels, `(N, C, H, W)`, and as the classifier sees them, `(N, 64)` and `(N, classes)`."""

    pixels: Tensor
    features: Tensor
    probabilities: Tensor


def measure(
    fake: Tensor, data: DataSet, trained: Trained, *, split: Split = "test", k: int = 5, seed: int = 0
) -> dict[str, Any]:
    """Every measure of N generated images against N images of a split, and of N other real ones in their place.

    Args:
        fake: `(N, C, H, W)` in [0, 1], drawn as the data are: binary where these are.
        data: The data set.
        trained: Its classifier.
        split: The images to compare with; "train" leaves out those that take the generated ones' place.
        k: The neighbour of precision, recall, density and coverage.
        seed: Of the choice of images, of subsets and of directions.

    Returns:
        Figures ready for JSON, standard errors as `NAME_se`, None where a figure is not to be had: `SETTINGS`, with
        the classifier's `hash`, `accuracy`, `task` and `seed`; `frechet_distance` (None for N < 128),
        `kernel_distance`, `precision`, `recall`, `density`, `coverage`, `two_sample_accuracy` with its `_real` and
        `_fake` sides, `sliced_wasserstein` of the pixels; `memorisation`, the median ratio in pixels over the whole
        training split, with `memorisation_ks` and `memorisation_p` against held-out images. Where there are labels
        also `reverse_kl` to the training split's shares, `reverse_kl_floor`, `classes` (counts),
        `classes_per_mille`, `classes_percent`, `confidence` and `unsure`. `real` has the same of training images, at
        random, in the place of the generated ones; its `memorisation` is that of the held-out images. The classifier
        has learnt these images, which makes them a little more distant than real ones that it has not seen: on MNIST
        a Fréchet distance of 0.17 from 5000 test images in the place of 0.09.

    Raises:
        UsageError: The images do not fit the data, or are too few, or more than a split has.
    """
    _check(fake, data, trained, split)
    count, device = len(fake), next(trained.network.parameters()).device
    data = data.to(device)
    generator = torch.Generator().manual_seed(seed)
    order = {
        name: torch.randperm(len(getattr(data, name)), generator=generator).to(device)
        for name in dict.fromkeys(("train", "test", split))
    }

    def some(name: str, *, skip: int = 0) -> Tensor:
        return getattr(data, name).gather(order[name][skip : skip + count]).x

    with forked(seed, device):  # training images may be binarised anew
        real, known = some(split), data.train.gather(torch.arange(len(data.train), device=device)).x
        other = some("train", skip=count if split == "train" else 0)
        held_out = some("test") if split == "train" else real
    fake = fake.to(device, real.dtype)
    shares = None
    if trained.task == "labels":
        shares = data.train.labels.bincount(minlength=trained.network.classes).double() / len(data.train)
    seen = _seen(trained.network, real)
    row, real_row = (_figures(_seen(trained.network, x), seen, shares, k=k, seed=seed) for x in (fake, other))
    copies = memorisation(fake, known, held_out)
    row |= {"memorisation": copies.median, "memorisation_ks": copies.distance, "memorisation_p": copies.p}
    real_row["memorisation"] = copies.held_out_median
    settings = {"data": data.name, "binarize": data.binarize, "split": split, "images": count, "k": k, "seed": seed}
    settings["classifier"] = {name: value for name, value in trained._asdict().items() if name != "network"}
    return settings | _plain(row) | {"real": _plain(real_row)}


def table(models: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The lines of a Markdown table: real images, then each model; a column for each of `COLUMNS` that has figures.

    Args:
        models: Names and what `measure` returned.

    Raises:
        UsageError: There are none, or they were measured in different ways, on which the figures depend.
    """
    if not models:
        raise UsageError("table: found no models, expected at least one")
    (first, found), *others = models
    for name, figures in others:
        for setting in SETTINGS:
            if figures[setting] != found[setting]:
                raise UsageError(
                    f"table: {name} was measured with {setting} {figures[setting]}, {first} with {found[setting]}: "
                    "the figures are not comparable"
                )
    rows = [("real", found["real"]), *models]
    columns = [column for column in COLUMNS if any(row.get(column) is not None for _, row in rows)]
    how = found["classifier"]
    return [
        f"| | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
        *(f"| {name} | {' | '.join(cell(row, column) for column in columns)} |" for name, row in rows),
        "",
        f"{found['images']:,} images against as many of {found['data']}'s {found['split']} split; real: training "
        f"images in their place. Features of classifier {how['hash']} ({how['task']}, {how['accuracy']:.2%} right).",
    ]


def _check(fake: Tensor, data: DataSet, trained: Trained, split: str) -> None:
    images = getattr(data, split) if split in ("train", "valid", "test") else None
    if images is None:
        raise UsageError(f"measure: found split={split!r}, expected one that {data.name} has: train, valid or test")
    if trained.network.shape != data.shape:
        raise UsageError(f"measure: the classifier is of images {trained.network.shape}, the data are {data.shape}")
    if fake.dim() != 4 or tuple(fake.shape[1:]) != data.shape or not fake.is_floating_point():
        expected = f"floating-point numbers (N, {', '.join(map(str, data.shape))})"
        raise UsageError(f"measure: found images of {fake.dtype} {tuple(fake.shape)}, expected {expected}")
    most = len(data.train) // 2 if split == "train" else min(len(images), len(data.train))
    if not LEAST <= len(fake) <= most:
        raise UsageError(
            f"measure: found {len(fake)} images, expected {LEAST} to {most}: as many of {split} and, besides these, "
            "of train are needed"
        )
    low, high = fake.aminmax()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise UsageError(f"measure: found pixels from {float(low):.3g} to {float(high):.3g}, expected 0 to 1")


@torch.no_grad()
def _seen(network: Classifier, images: Tensor) -> _Seen:
    features = torch.cat([network.features(some) for some in images.split(AT_ONCE)])
    return _Seen(images, features, network.logits(features).double().softmax(1))


def _figures(fake: _Seen, real: _Seen, shares: Tensor | None, *, k: int, seed: int) -> dict[str, Any]:
    count = len(fake.pixels)
    found: dict[str, Any] = {"frechet_distance": None}
    if count >= 2 * FEATURES:
        found["frechet_distance"] = frechet_distance(real.features, fake.features)
    size = min(SUBSET, count // 2)
    kernel = kernel_distance(real.features, fake.features, size=size, seed=seed)
    found |= {"kernel_distance": kernel.mean, "kernel_distance_se": kernel.error}
    found |= prdc(real.features, fake.features, k=k)._asdict()
    told = two_sample_accuracy(real.features, fake.features)
    found |= {"two_sample_accuracy": told.accuracy, "two_sample_accuracy_se": told.error}
    found |= {"two_sample_accuracy_real": told.real, "two_sample_accuracy_fake": told.fake}
    if shares is not None:
        balance = class_balance(fake.probabilities, shares=shares)
        found |= {"reverse_kl": balance.reverse_kl, "reverse_kl_floor": balance.floor, "classes": balance.counts}
        found |= {"classes_per_mille": balance.per_mille, "classes_percent": balance.percent}
        found |= {"confidence": balance.confidence, "unsure": balance.unsure}
    found["sliced_wasserstein"] = sliced_wasserstein(real.pixels, fake.pixels, seed=seed)
    return found


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as JSON has them, which knows neither infinity nor what is not a number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def cell(row: Mapping[str, Any], column: str) -> str:
    """A figure with its error as text."""
    value, error = row.get(column), row.get(f"{column}_se")
    if value is None:
        return "–"
    return f"{value:.3g}" + ("" if error is None else f" ± {error:.1g}")
