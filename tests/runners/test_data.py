"""What is read is what was written, once an epoch, to the same bits after a reload; wrong files end in one line."""

import gzip
import io
import itertools
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ppl_models.batch import UsageError
from runners import data
from runners.data import Images, downloads, image_files, mnist_files, sources
from runners.data.mnist_files import fetch, read_idx

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> str:
    """The one line that a wrong input ends in."""
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert "expected" in line
    return line


def idx(array: np.ndarray, *, magic: bytes | None = None) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return (magic or bytes([0, 0, 8, array.ndim])) + sizes + array.tobytes()


def some_images(count: int = 23, *, fresh: bool = False, grey: int | None = None) -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (count, 1, 4, 5), generator=generator, dtype=torch.uint8)
    pixels = pixels if grey is None else torch.full_like(pixels, grey)
    return Images(pixels, torch.arange(count) % 10, torch.arange(100, 100 + count), fresh=fresh)


# --- Images and their stream


def test_images_gather_what_was_asked() -> None:
    images = some_images()
    batch = images.gather(torch.tensor([3, 0, 3]))
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, images.pixels[[3, 0, 3]] / 255)
    assert batch.y.tolist() == [3, 0, 3]
    assert batch.index.tolist() == [103, 100, 103]
    assert batch.state is None
    assert (len(images), images.shape, images.device.type) == (23, (1, 4, 5), "cpu")
    assert repr(images) == "Images(23 images of 1×4×5, labelled, on cpu)"


def test_first_and_parts_keep_rows_together() -> None:
    images = Images(some_images().pixels, None, torch.arange(23), factors={"angle": torch.arange(23.0)})
    for part, rows in [(images.first(5), slice(0, 5)), (images.part(7, 9), slice(7, 9))]:
        assert torch.equal(part.pixels, images.pixels[rows])
        assert torch.equal(part.index, images.index[rows])
        assert torch.equal(part.factors["angle"], images.factors["angle"][rows])
        assert part.gather(torch.tensor([0])).y is None
    for count in (0, 24):
        assert f"found {count}, expected 1 to 23" in refusal(images.first, count)


def test_images_that_do_not_fit_together_are_refused() -> None:
    pixels, index = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3)
    assert "torch.float32 (3, 1, 2, 2)" in refusal(Images, pixels.float(), None, index)
    assert "found torch.uint8 (3, 2, 2)" in refusal(Images, pixels[:, 0], None, index)
    assert "labels: found 2, expected 3" in refusal(Images, pixels, index[:2], index)
    assert "index: found 2, expected 3" in refusal(Images, pixels, None, index[:2])


@pytest.mark.parametrize("fresh", [False, True])
def test_gathering_never_reads_the_device(fresh: bool) -> None:
    # The meta device has no values: any read by the host raises.
    images = some_images(fresh=fresh).to("meta")
    batch = next(images.batches(4))
    assert (batch.x.device.type, batch.x.shape, batch.index.shape) == ("meta", (4, 1, 4, 5), (4,))


def test_fresh_binarisation_is_drawn_anew_with_the_grey_value_as_probability() -> None:
    images = some_images(200, fresh=True, grey=64)
    torch.manual_seed(0)
    one, two = (images.gather(torch.arange(200)).x for _ in range(2))
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(one, two)
    assert torch.cat([one, two]).mean().item() == pytest.approx(64 / 255, abs=0.02)


def test_in_order_gives_each_datum_once() -> None:
    batches = list(some_images().in_order(10))
    assert [len(batch.index) for batch in batches] == [10, 10, 3]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(100, 123))


def test_an_epoch_covers_each_datum_at_most_once_and_drops_the_partial_batch() -> None:
    stream = some_images().batches(5)
    assert stream.steps_per_epoch == 4
    epochs = []
    for epoch in range(3):
        batches = [next(stream) for _ in range(4)]
        assert stream.epoch == epoch
        epochs.append(torch.cat([batch.index for batch in batches]).tolist())
        assert len(set(epochs[-1])) == 20
    assert epochs[0] != epochs[1] != epochs[2]
    whole = some_images(20).batches(5)
    for _ in range(2):
        assert sorted(torch.cat([next(whole).index for _ in range(4)]).tolist()) == list(range(100, 120))


@pytest.mark.parametrize("count", [20, 21, 24])
def test_every_batch_is_full(count: int) -> None:
    assert [len(batch.index) for batch in itertools.islice(some_images(count).batches(5), 13)] == [5] * 13


def test_the_order_is_the_generators_alone() -> None:
    def order(seed: int) -> list[list[int]]:
        stream = some_images().batches(5, torch.Generator().manual_seed(seed))
        return [batch.index.tolist() for batch in itertools.islice(stream, 9)]

    before = torch.get_rng_state()
    assert order(1) == order(1)
    assert order(1) != order(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("steps", [0, 2, 4, 7])
def test_a_reloaded_stream_continues_exactly(steps: int) -> None:
    stream = some_images().batches(5, torch.Generator().manual_seed(1))
    for _ in range(steps):
        next(stream)
    file = io.BytesIO()
    torch.save(stream.state_dict(), file)
    expected = [(next(stream).index.tolist(), stream.epoch) for _ in range(9)]
    file.seek(0)
    reloaded = some_images().batches(5, torch.Generator().manual_seed(2))
    reloaded.load_state_dict(torch.load(file, weights_only=True))
    assert [(next(reloaded).index.tolist(), reloaded.epoch) for _ in range(9)] == expected


def test_a_stream_refuses_what_does_not_fit() -> None:
    for size in (0, 24):
        assert f"found {size}, expected 1 to 23" in refusal(some_images().batches, size)
    state = some_images(22).batches(5).state_dict()
    assert "found a shuffle of 22" in refusal(some_images().batches(5).load_state_dict, state)


# --- Binarisation


def grey_set() -> data.DataSet:
    return data.DataSet("grey", some_images(60), None, some_images(50))


def test_threshold_is_exact() -> None:
    binary = data.binarized(grey_set(), "threshold", seed=0)
    x = grey_set().train.gather(torch.arange(60)).x
    assert torch.equal(binary.train.gather(torch.arange(60)).x, (x > 0.5).float())
    assert binary.binarize == "threshold"


def test_static_is_one_draw_decided_by_the_seed() -> None:
    grey = data.DataSet("grey", some_images(9_000, grey=64), None, some_images(50))
    before = torch.get_rng_state()
    one, two, other = (data.binarized(grey, "static", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.train.pixels, two.train.pixels)
    assert torch.equal(one.test.pixels, two.test.pixels)
    assert not torch.equal(one.train.pixels, other.train.pixels)
    assert one.train.pixels.unique().tolist() == [0, 255]
    assert one.train.pixels.float().mean().item() / 255 == pytest.approx(64 / 255, abs=0.01)
    ends = data.DataSet("ends", some_images(grey=0), None, some_images(grey=255))
    ends = data.binarized(ends, "static", seed=0)
    assert ends.train.pixels.max() == 0
    assert ends.test.pixels.min() == 255


def test_stochastic_is_fresh_for_training_and_static_for_measuring() -> None:
    binary = data.binarized(grey_set(), "stochastic", seed=0)
    assert binary.train.fresh
    assert not binary.test.fresh
    assert torch.equal(binary.train.pixels, grey_set().train.pixels)
    assert torch.equal(binary.test.pixels, data.binarized(grey_set(), "static", seed=0).test.pixels)
    assert "found 'dithered'" in refusal(data.binarized, grey_set(), "dithered", seed=0)


# --- idx files


@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path: Path, packed: bool) -> None:
    array = np.random.default_rng(0).integers(256, size=(3, 4, 5), dtype=np.uint8)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert np.array_equal(read_idx(path, dims=3).numpy(), array)


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), np.uint8)
    packed = gzip.compress(idx(array))
    cases = {
        "short": (idx(array)[:-1], "found 59 bytes of data, expected 60"),
        "long": (idx(array) + b"0", "found 61 bytes of data, expected 60"),
        "empty": (b"", "found magic , expected 00000803"),
        "header": (idx(array)[:10], "expected 00000803, then 3 sizes"),
        "labels": (idx(array[0, 0]), "found magic 00000801, expected 00000803"),
        "floats": (idx(array, magic=bytes([0, 0, 13, 3])), "found magic 00000d03"),
        "none": (idx(array[:0]) + b"0", "found 1 bytes of data, expected 0"),
        "text.gz": (b"not packed at all", "cannot be read"),
        "cut.gz": (packed[:-9], "cannot be read"),
        "bad.gz": (packed[:12] + b"????" + packed[16:], "cannot be read"),
    }
    for name, (content, found) in cases.items():
        (tmp_path / name).write_bytes(content)
        line = refusal(read_idx, tmp_path / name, dims=3)
        assert str(tmp_path / name) in line
        assert found in line
    assert "absent" in refusal(read_idx, tmp_path / "absent", dims=3)


@pytest.fixture(scope="module")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-sized stand-in: image n holds the number n in its first bytes and has label n % 10; half is packed."""
    root = tmp_path_factory.mktemp("root")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in mnist_files.COUNTS.items():
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        labels = gzip.compress(idx((np.arange(count) % 10).astype(np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)
    return root


def test_mnist_splits_in_the_files_order(mnist_root: Path) -> None:
    mnist = data.mnist(mnist_root)
    assert (len(mnist.train), len(mnist.valid), len(mnist.test)) == (55_000, 5_000, 10_000)
    splits = (mnist.train, mnist.valid, mnist.test)
    assert torch.equal(torch.cat([split.index for split in splits]), torch.arange(70_000))
    for split, first in zip(splits, (0, 55_000, 0), strict=True):
        number = split.pixels[:, 0, 0, 0].int() * 256 + split.pixels[:, 0, 0, 1]
        assert torch.equal(number, torch.arange(first, first + len(split), dtype=torch.int32))
        assert torch.equal(split.labels, number.long() % 10)
    assert "55,000 train + 5,000 valid + 10,000 test images of 1×28×28" in repr(mnist)
    whole = data.load("mnist", root=mnist_root, all_train=True)
    assert whole.valid is None
    assert torch.equal(whole.train.index, torch.arange(60_000))
    assert torch.equal(whole.test.index, mnist.test.index)


def test_mnist_of_the_wrong_shape_is_refused(mnist_root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (mnist_root / "MNIST" / "raw").iterdir():
        (raw / file.name).symlink_to(file)

    def replaced(name: str, array: np.ndarray) -> str:
        (raw / name).unlink()
        (raw / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
        return refusal(data.fashion_mnist, tmp_path)

    labels = np.zeros(10_000, np.uint8)
    labels[7] = 10
    assert "found the label 10, expected 0 to 9" in replaced("t10k-labels-idx1-ubyte.gz", labels)
    assert "found 9999 labels, expected 10000" in replaced("t10k-labels-idx1-ubyte.gz", labels[1:])
    line = replaced("t10k-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
    assert "t10k-images-idx3-ubyte: found images (10, 28, 28), expected (10000, 28, 28)" in line


# --- Downloads


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, root: Path) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(mnist_files, "_download", refuse)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = data.drawn_digits
    monkeypatch.setattr(sources, "drawn_digits", lambda **options: drawn(train=24, test=2, **options))


@pytest.mark.usefixtures("no_network", "few_digits")
def test_auto_falls_back_to_drawn_digits_and_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.load("auto", root=tmp_path / "absent").name == "digits"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "drawn digits, not MNIST" in err
    assert str(tmp_path / "absent") in err
    assert "Name or service not known" in err
    assert not (tmp_path / "absent").exists()


@pytest.mark.usefixtures("no_network")
def test_mnist_insists_and_says_what_to_do(tmp_path: Path) -> None:
    line = refusal(data.load, "mnist", root=tmp_path)
    for word in (str(tmp_path / "MNIST" / "raw"), "--data-root", "PPL_DATA", "--data digits"):
        assert word in line


@pytest.mark.usefixtures("no_network")
def test_auto_takes_mnist_where_it_is_and_does_not_hide_damage(
    mnist_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.load(root=mnist_root).name == "mnist"
    assert capsys.readouterr() == ("", "")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in mnist_files.FILES:
        (raw / f"{file}.gz").write_bytes(b"half")
    assert "train-images-idx3-ubyte.gz" in refusal(data.load, root=tmp_path)


def test_a_download_lands_in_place_quietly_and_restores_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    timeouts = []

    def download(root: str, *, download: bool) -> None:
        timeouts.append(socket.getdefaulttimeout())
        print("chatter")
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in mnist_files.FILES:
            (raw / f"{file}.gz").write_bytes(b"content")

    monkeypatch.setattr(datasets, "MNIST", download)
    raw = fetch("MNIST", tmp_path / "new")
    assert sorted(file.name for file in raw.iterdir()) == sorted(f"{file}.gz" for file in mnist_files.FILES)
    assert timeouts == [downloads.TIMEOUT]
    assert socket.getdefaulttimeout() is None
    assert capsys.readouterr().out == ""


def test_a_failed_download_gives_its_reason_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def download(root: str, *, download: bool) -> None:
        raise RuntimeError("Error downloading:\nTried one, got:\ntimed out")

    monkeypatch.setattr(datasets, "MNIST", download)
    assert "(timed out)" in refusal(fetch, "MNIST", tmp_path)
    assert socket.getdefaulttimeout() is None


def test_the_default_root_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPL_DATA", "/somewhere")
    assert data.default_root() == Path("/somewhere")
    monkeypatch.delenv("PPL_DATA")
    assert data.default_root() == Path("data")


# --- The fixed binarisation


def binary_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    sizes = {"train": 6, "valid": 3, "test": 2}
    return {split: random.integers(2, size=(size, 784), dtype=np.uint8) for split, size in sizes.items()}


def write_amat(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for split, array in arrays.items():
        text = "".join(" ".join(map(str, row)) + " \n" for row in array)
        (folder / f"binarized_mnist_{split}.amat").write_text(text)


@pytest.mark.parametrize("form", ["packed", "unpacked", "float", "amat"])
def test_fixed_binarisation_reads_every_form(tmp_path: Path, form: str) -> None:
    arrays = binary_arrays()
    folder = tmp_path / "binarized-mnist"
    folder.mkdir()
    if form == "amat":
        write_amat(folder, arrays)
    else:
        change = {"packed": lambda a: np.packbits(a, axis=1), "unpacked": np.array, "float": np.float32}[form]
        np.savez(folder / "binarized_mnist.npz", **{split: change(a) for split, a in arrays.items()})
    fixed = data.load("fixed-binarized", root=tmp_path)
    for split, array in arrays.items():
        images = getattr(fixed, split)
        found = images.gather(torch.arange(len(array))).x.flatten(1).numpy()
        assert sorted(map(bytes, found.astype(np.uint8))) == sorted(map(bytes, array))
        assert images.labels is None
    assert torch.cat([fixed.train.index, fixed.valid.index, fixed.test.index]).tolist() == list(range(11))
    assert fixed.binarize == "fixed"
    whole = data.load(str(folder), all_train=True)
    assert (len(whole.train), whole.valid, len(whole.test)) == (9, None, 2)
    assert torch.equal(whole.test.pixels, fixed.test.pixels)
    assert not np.array_equal(fixed.train.pixels.flatten(1).numpy() // 255, arrays["train"])  # in another order
    assert "found static, expected none" in refusal(data.load, str(folder), binarize="static")


def test_damaged_npz_files_are_named(tmp_path: Path) -> None:
    arrays, path = binary_arrays(), tmp_path / "a.npz"
    cases = [
        ({"train": arrays["train"]}, "found no array valid, test"),
        ({**arrays, "test": arrays["test"][:, 1:]}, "array test: found uint8 (2, 783)"),
        ({**arrays, "test": arrays["test"][0]}, "array test: found uint8 (784,)"),
        ({**arrays, "test": arrays["test"][:0]}, "array test: found uint8 (0, 784)"),
        ({**arrays, "valid": arrays["valid"] * 255}, "array valid: found values other than 0 and 1"),
        ({**arrays, "valid": np.array([[None]])}, "cannot be read"),
    ]
    for content, found in cases:
        np.savez(path, **content)
        line = refusal(data.load, str(path))
        assert str(path) in line
        assert found in line
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-40], whole[:60]):
        path.write_bytes(content)
        assert "cannot be read" in refusal(data.fixed_binarized_mnist, path)
    with path.open("wb") as file:
        np.save(file, arrays["train"])
    assert "cannot be read" in refusal(data.fixed_binarized_mnist, path)


def test_damaged_amat_files_are_named_with_the_line(tmp_path: Path) -> None:
    write_amat(tmp_path, binary_arrays())
    path = tmp_path / "binarized_mnist_valid.amat"
    good = path.read_text()
    for content, found in [
        (good.replace("\n", "1\n", 2).replace("1\n", "\n", 1), "line 2: found 785 columns, expected 784"),
        (good[:-20], "line 3: found 775 columns"),
        (good.replace("1", "2", 1), "found values other than 0 and 1"),
        ("", "found uint8 (0, 784)"),
    ]:
        path.write_text(content)
        line = refusal(data.fixed_binarized_mnist, tmp_path)
        assert str(path) in line
        assert found in line
    path.unlink()
    assert str(path) in refusal(data.fixed_binarized_mnist, tmp_path)
    assert "absent" in refusal(data.fixed_binarized_mnist, tmp_path / "absent")
    (tmp_path / "binarized_mnist_train.amat").unlink()
    assert "found no fixed binarisation" in refusal(data.fixed_binarized_mnist, tmp_path)


# --- Folders of images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty pictures in two folders, of several kinds and shapes; picture n is `n * 10` red, its left edge green."""
    for number in range(20):
        wide, suffix = 40 + number, ["png", "bmp", "webp"][number % 3]
        image = Image.new("RGB", (wide, 30), (number * 10, 0, 0))
        image.paste((0, 255, 0), (0, 0, 4, 30))
        folder = tmp_path / "ab"[number // 10]
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number:02}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_of_images_is_sorted_cropped_and_split(pictures: Path) -> None:
    faces = data.load(str(pictures), size=16)
    assert faces.shape == (3, 16, 16)
    assert faces.valid is None
    assert faces.train.labels is None
    assert faces.name == pictures.name
    assert faces.test.index.tolist() == [9, 19]
    assert faces.train.index.tolist() == [n for n in range(20) if n not in (9, 19)]
    for split in (faces.train, faces.test):
        red = split.pixels[:, 0].flatten(1).float()
        assert torch.equal(red.amax(1), red.amin(1))
        assert red[:, 0].tolist() == [n * 10 for n in split.index.tolist()]
        assert split.pixels[:, 1].max() == 0  # The green edge lies outside the central square.


def test_grey_transparent_and_turned_images_become_upright_rgb(pictures: Path) -> None:
    Image.new("L", (20, 20), 77).save(pictures / "c.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 255)).save(pictures / "d.png")
    turned = Image.new("RGB", (20, 20), (0, 0, 0))
    turned.paste((255, 255, 255), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn clockwise to view: the white left half belongs on top.
    turned.save(pictures / "e.JPEG", exif=exif, quality=95)
    last = data.image_folder(pictures, size=8).train.pixels[-3:]
    assert last[0].unique().tolist() == [77]
    assert last[1].amax((1, 2)).tolist() == [1, 2, 3]
    assert last[2, :, :3].min() > 200
    assert last[2, :, -3:].max() < 50


def test_unusable_folders_are_refused(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "found no such folder" in refusal(data.image_folder, pictures / "absent")
    assert "found 0 images" in refusal(data.image_folder, tmp_path_factory.mktemp("empty"))
    assert "--size: found 0" in refusal(data.image_folder, pictures, size=0)
    whole = (pictures / "a" / "00.png").read_bytes()
    for content in (b"", b"text", whole[:60], whole[:30] + b"????" + whole[34:]):
        (pictures / "b" / "x.png").write_bytes(content)
        assert str(pictures / "b" / "x.png") in refusal(data.image_folder, pictures)


def test_a_folder_larger_than_memory_is_decoded_once_and_gives_the_same_batches(
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path_factory.mktemp("root")
    resident = data.image_folder(pictures, size=16)
    monkeypatch.setattr(image_files, "RESIDENT", 0.0)
    streamed = data.image_folder(pictures, size=16, root=root).to("cpu")
    (decoded,) = (root / "decoded").iterdir()
    assert f"{decoded}: decoding 20 images, once" in capsys.readouterr().err
    assert [split.streamed for split in (resident.train, streamed.train, streamed.test)] == [False, True, True]
    elsewhere = streamed.train.to("meta")
    assert elsewhere.index.is_meta
    assert elsewhere.pixels.data_ptr() == streamed.train.pixels.data_ptr()
    assert streamed.train.fingerprint() == resident.train.fingerprint()
    pairs = zip(resident.train.batches(5), streamed.train.batches(5), range(8), strict=False)
    assert all(torch.equal(ours.x, theirs.x) and torch.equal(ours.index, theirs.index) for ours, theirs, _ in pairs)

    with monkeypatch.context() as without:
        without.setattr(image_files, "_decode", None)
        again = data.load(str(pictures), size=16, root=root)
    assert torch.equal(again.test.pixels, resident.test.pixels)
    assert not capsys.readouterr().err

    Image.new("RGB", (20, 20), (5, 5, 5)).save(pictures / "a" / "00.png")
    assert data.image_folder(pictures, size=16, root=root).train.pixels[0].unique().tolist() == [5]
    assert "too large for memory" in refusal(data.load, str(pictures), size=16, root=root, binarize="threshold")
    newest = max((root / "decoded").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(UsageError, match="found no decoded images"):
        data.image_folder(pictures, size=16, root=root)


# --- Names


@pytest.mark.usefixtures("few_digits")
def test_load_knows_its_names_and_passes_options_on() -> None:
    digits = data.load("digits", binarize="static", seed=3, all_train=True)
    assert (digits.name, digits.binarize, digits.valid) == ("digits", "static", None)
    assert torch.equal(
        digits.train.pixels, data.drawn_digits(train=24, test=2, all_train=True, binarize="static", seed=3).train.pixels
    )
    line = refusal(data.load, "minst")
    assert "found 'minst', expected auto, mnist, fashion, fixed-binarized, digits" in line
    assert "binarized-mnist" in refusal(data.load, "fixed-binarized", root="/nowhere")
    assert "a.npz" in refusal(data.load, "/nowhere/a.npz")


def test_a_data_set_moves_whole() -> None:
    moved = data.DataSet("x", some_images(), some_images(), some_images()).to("meta")
    assert {moved.train.device.type, moved.valid.device.type, moved.test.device.type} == {"meta"}


@pytest.mark.skipif(not (SHARED / "MNIST").exists(), reason="needs MNIST beside the repository")
def test_the_real_mnist() -> None:
    mnist = data.load("mnist", root=SHARED, binarize="stochastic", all_train=True)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.train.labels.bincount().tolist() == counts
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.train.pixels.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-3)
    drawn = next(mnist.train.batches(5_000)).x
    assert drawn.mean().item() == pytest.approx(0.1307, abs=5e-3)


@pytest.mark.skipif(not (SHARED / "binarized-mnist").exists(), reason="needs the files beside the repository")
def test_the_real_fixed_binarisation() -> None:
    fixed = data.load("fixed-binarized", root=SHARED)
    assert (len(fixed.train), len(fixed.valid), len(fixed.test)) == (50_000, 10_000, 10_000)
    assert fixed.train.pixels.float().mean().item() / 255 == pytest.approx(0.1306, abs=2e-3)
