import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ppl_models import UsageError, augmented

EVERY = ("color", "translation", "cutout")
policies = pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), EVERY], ids="+".join)


def images(*shape: int) -> Tensor:
    return 2 * torch.rand(shape, dtype=torch.float64) - 1


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """An image moved over zeros, by padding and cropping."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (width, width, height, height))
    return padded[..., height - down : 2 * height - down, width - right : 2 * width - right]


def test_translations_keep_the_pixels_and_fill_with_zeros() -> None:
    x, found = images(2, 16, 24), set()
    every = {(down, right): shifted(x, down, right) for down in range(-2, 3) for right in range(-3, 4)}
    for image in augmented(x.expand(600, 2, 16, 24), ("translation",)):
        matches = [shift for shift, expected in every.items() if torch.equal(image, expected)]
        assert len(matches) == 1
        found.update(matches)
    assert found == every.keys()


def test_cutouts_empty_a_box_and_nothing_else() -> None:
    x, corners = images(400, 3, 8, 12), set()
    out = augmented(x, ("cutout",))
    for image, cut in zip(x, out, strict=True):
        empty = cut == 0
        assert torch.equal(empty[0], empty[1])
        assert torch.equal(empty[0], empty[2])
        assert torch.equal(cut[~empty], image[~empty])
        rows, columns = empty[0].any(1).nonzero().flatten(), empty[0].any(0).nonzero().flatten()
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        assert empty[0, top:bottom, left:right].all()
        assert empty[0].sum() == (bottom - top) * (right - left)
        # Four by six pixels, fewer only where an edge cuts the box.
        assert bottom - top == 4 or (2 <= bottom - top < 4 and (top == 0 or bottom == 8))
        assert right - left == 6 or (3 <= right - left < 6 and (left == 0 or right == 12))
        corners.add((int(top), int(left), int(bottom), int(right)))
    assert len(corners) > 60
    assert len({box[0] for box in corners}) == 7
    assert len({box[3] for box in corners}) == 10


def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of each image, its grey picture without that, and what colour adds."""
    grey = x.mean(-3, keepdim=True)
    mean = grey.mean((-2, -1), keepdim=True)
    return mean, grey - mean, x - grey


def test_colours_move_the_parts_of_an_image_each_by_a_number_of_its_own() -> None:
    x = images(3, 4, 4).expand(4000, 3, 4, 4)
    (mean, grey, colour), (new_mean, new_grey, new_colour) = parts(x), parts(augmented(x, ("color",)))
    brightness = new_mean - mean
    contrast, both = new_grey[:, :, 0, 0] / grey[:, :, 0, 0], new_colour[:, 0, 0, 0] / colour[:, 0, 0, 0]
    torch.testing.assert_close(new_grey, grey * contrast[..., None, None])
    torch.testing.assert_close(new_colour, colour * both[:, None, None, None])
    draws = {"brightness": brightness.flatten() + 0.5, "contrast": contrast.flatten() - 0.5}
    draws["saturation"] = both / contrast.flatten() / 2
    for name, u in draws.items():
        assert -1e-9 <= u.min() < 0.01, name
        assert 0.99 < u.max() <= 1 + 1e-9, name
        assert float(u.mean()) == pytest.approx(0.5, abs=0.025), name
    correlations = torch.stack(list(draws.values())).corrcoef() - torch.eye(3)
    assert correlations.abs().max() < 0.08


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_unchanged_on_average(channels: int) -> None:
    x = images(channels, 4, 4)
    out = augmented(x.expand(20_000, channels, 4, 4), ("color",))
    error = out.std(0) / len(out) ** 0.5
    assert ((out.mean(0) - x).abs() < 5 * error).all()
    assert out.std(0).min() > 0.1


@policies
def test_the_same_random_numbers_are_the_same_change(policy: tuple[str, ...]) -> None:
    def change(x: Tensor) -> Tensor:
        torch.manual_seed(4)
        return augmented(x, policy)

    x, y = images(2, 6, 3, 8, 8)
    # Every change is affine in the image.
    torch.testing.assert_close(change(x + y), change(x) + change(y) - change(torch.zeros_like(x)))
    assert torch.equal(change(x), change(x))
    assert not torch.allclose(augmented(x, policy), augmented(x, policy))


@policies
def test_gradients_reach_the_images(policy: tuple[str, ...]) -> None:
    def change(x: Tensor) -> Tensor:
        torch.manual_seed(4)
        return augmented(x, policy)

    assert torch.autograd.gradcheck(change, images(2, 2, 8, 8).requires_grad_())


@policies
def test_leading_dimensions_dtype_and_device(policy: tuple[str, ...]) -> None:
    x = images(3, 2, 1, 8, 8)
    out = augmented(x, policy)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert augmented(x.float(), policy).dtype == torch.float32
    same = augmented(x[:1, :1].expand(3, 2, 1, 8, 8), policy).flatten(0, 1)
    assert len(same.flatten(1).unique(dim=0)) > 1
    assert augmented(torch.rand(4, 3, 8, 8, device="meta"), policy).shape == (4, 3, 8, 8)


def test_policies_by_name() -> None:
    x = images(4, 1, 8, 8)
    assert augmented(x, ()) is x
    with pytest.raises(UsageError, match="'flip', expected some of color, translation, cutout"):
        augmented(x, ("flip",))
