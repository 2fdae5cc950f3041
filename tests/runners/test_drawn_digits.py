"""Drawn digits are what their factors say, and repeatable."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ppl_models.batch import UsageError
from runners.data import drawn_digits
from runners.data.drawn_digits import RANGES, draw, render, sample_factors
from runners.data.glyphs import FONTS


def test_the_seed_decides_every_pixel_and_the_global_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    pixels, factors = draw(200, seed=3)
    again, _ = draw(200, seed=3)
    other, _ = draw(200, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pixels, again)
    assert torch.equal(pixels, render(factors))
    assert not (pixels == other).flatten(1).all(1).any()


def test_factors_cover_their_ranges_and_classes_are_balanced() -> None:
    factors = sample_factors(5_000, seed=0)
    assert factors["class"].bincount().tolist() == [500] * 10
    assert len(factors["font"].unique()) == len(FONTS)
    for name, (low, high) in RANGES.items():
        margin = 0.01 * (high - low)
        assert low <= factors[name].min() < low + margin, name
        assert high - margin < factors[name].max() <= high, name


def test_digits_are_grey_inside_the_frame_and_about_as_heavy_and_tall_as_mnist() -> None:
    pixels, _ = draw(2_000, seed=1)
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert (pixels[:, 0, frame].amax(1) > 127).float().mean() == 0
    assert (pixels[:, 0, frame].amax(1) > 0).float().mean() < 0.005
    assert 0.10 < pixels.float().mean() / 255 < 0.15
    grey = (pixels > 0) & (pixels < 255)
    assert 0.2 < grey.sum() / (pixels > 0).sum() < 0.8
    heights = (pixels > 50).any(3).sum(2).float()
    assert 17 < heights.mean() < 21


@pytest.mark.parametrize(
    ("name", "low", "high", "measure"),
    [
        ("thickness", 1.6, 3.0, lambda x: x.sum((1, 2, 3))),
        ("scale", 0.85, 1.1, lambda x: (x.sum((1, 3)) > 128).sum(1)),
        ("shift_x", -1.0, 1.0, lambda x: (x.sum((1, 2)) * torch.arange(28)).sum(1) / x.sum((1, 2, 3))),
        ("shift_y", -1.0, 1.0, lambda x: (x.sum((1, 3)) * torch.arange(28)).sum(1) / x.sum((1, 2, 3))),
    ],
)
def test_a_factor_does_what_it_says(name: str, low: float, high: float, measure: Callable[[Tensor], Tensor]) -> None:
    factors = sample_factors(50, seed=2)
    small, large = (measure(render({**factors, name: torch.full((50,), value)}).float()) for value in (low, high))
    assert (large > small).all()
    if name.startswith("shift"):
        assert (large - small - (high - low)).abs().max() < 0.6


def test_positive_angles_turn_clockwise() -> None:
    factors = sample_factors(50, seed=2) | {"class": torch.ones(50, dtype=torch.int64)}
    low, high = (render({**factors, "angle": torch.full((50,), angle)}).float() for angle in (-15.0, 15.0))
    places = torch.arange(28)

    def lean(x: Tensor) -> Tensor:
        top, bottom = ((part.sum((1, 2)) * places).sum(1) / part.sum((1, 2, 3)) for part in x.split(14, dim=2))
        return top - bottom

    assert (lean(high) > lean(low) + 1).all()


def test_classes_can_be_told_apart_by_their_nearest_neighbour() -> None:
    data = drawn_digits(train=4_000, test=300)
    known, unseen = (images.pixels.flatten(1).float() for images in (data.train, data.test))
    nearest = torch.cdist(unseen, known).argmin(1)
    assert (data.train.labels[nearest] == data.test.labels).float().mean() > 0.95


def test_splits_are_like_those_of_mnist() -> None:
    data = drawn_digits(train=1_200, test=240, seed=1)
    assert (data.name, len(data.train), len(data.valid), len(data.test)) == ("digits", 1_100, 100, 240)
    index = torch.cat([split.index for split in (data.train, data.valid, data.test)])
    assert index.tolist() == list(range(1_440))
    assert all(torch.equal(split.labels, split.factors["class"]) for split in (data.train, data.valid, data.test))
    joined = drawn_digits(train=600, test=240, seed=1, all_train=True)
    assert joined.valid is None
    assert len(joined.train) == 600
    assert torch.equal(joined.test.pixels, data.test.pixels)


def test_no_draw_is_shared_by_splits_or_by_seeds() -> None:
    # Of one size: the same generator would make the same digits.
    sets = [drawn_digits(train=60, test=60, seed=seed, all_train=True) for seed in (0, 1)]
    splits = [images for data in sets for images in (data.train, data.test)]
    for one, other in itertools.combinations(splits, 2):
        assert not torch.isin(one.factors["warp"][:, 0, 0], other.factors["warp"][:, 0, 0]).any()


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UsageError, match="found train=5, test=1"):
        drawn_digits(train=5, test=1)
