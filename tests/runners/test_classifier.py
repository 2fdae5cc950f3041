"""The classifier learns what it is said to, to the same bits, and its file gives the same network or a fresh one."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import Tensor

from ppl_models import UsageError
from runners import data, metrics
from runners.data import DataSet, Images
from runners.metrics import Classifier, Trained, classifiers


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MOST_STEPS", 6)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data.drawn_digits(train=800, test=200)


def train(images: DataSet, **settings: Any) -> Trained:
    return metrics.classifier(images, device="cpu", progress=False, **settings)


def unlabelled(images: DataSet) -> DataSet:
    return replace(images, train=replace(images.train, labels=None), test=replace(images.test, labels=None))


def refuse(*args: Any, **settings: Any) -> None:
    raise AssertionError("trained where it should have read a file")


def test_it_learns_digits_and_is_frozen_with_standardised_features(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "MOST_STEPS", 60)
    trained = train(digits)
    assert trained.task == "labels"
    assert trained.accuracy > 0.9
    network, x, y = trained.network, digits.test.pixels.float() / 255, digits.test.labels
    assert trained.accuracy == pytest.approx(float((network(x).argmax(1) == y).double().mean()), abs=1e-12)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    features = network.features(digits.train.pixels.float() / 255)
    assert features.shape == (len(digits.train), 64)
    assert features.mean(0).abs().max() < 1e-3
    assert (features.std(0) - 1).abs().max() < 1e-3
    assert torch.equal(network(x), network.logits(network.features(x)))


def test_without_labels_it_learns_which_way_up_images_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MOST_STEPS", 80)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(240, 3, 16, 16, generator=generator)
    lit = (noise + torch.linspace(1, 0, 16)[:, None]) * 127  # from above
    index = torch.arange(240)
    parts = [Images(lit.to(torch.uint8)[rows], None, index[rows]) for rows in (index < 200, index >= 200)]
    trained = train(DataSet("lit", parts[0], None, parts[1]))
    assert trained.task == "rotations"
    assert trained.network.classes == 4
    assert trained.accuracy > 0.95
    turned = torch.rot90(lit[200:] / 255, 1, (-2, -1))
    assert (trained.network(turned).argmax(1) == 1).double().mean() > 0.9


def test_the_same_seed_gives_the_same_bits_and_touches_nothing_global(digits: DataSet) -> None:
    before, flags = torch.get_rng_state(), torch.backends.cudnn.deterministic
    first = train(digits)
    torch.rand(7)
    torch.set_rng_state(before)
    again, other = train(digits), train(digits, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.cudnn.deterministic == flags
    assert first.hash == again.hash
    assert len(first.hash) == 12
    assert first.hash != other.hash
    assert (first.seed, other.seed) == (0, 1)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_noise_of_images_binarised_anew_is_the_seeds(digits: DataSet) -> None:
    fresh = data.binarized(digits, "stochastic", seed=0)
    torch.manual_seed(1)
    first = train(fresh)
    torch.manual_seed(2)
    assert train(fresh).hash == first.hash
    assert first.hash != train(digits).hash


def test_a_file_spares_the_training(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "classifiers"
    trained = train(digits, folder=folder)
    (file,) = folder.iterdir()
    monkeypatch.setattr(classifiers, "_train", refuse)
    again = train(digits, folder=folder)
    assert again._replace(network=None) == trained._replace(network=None)
    x = digits.test.pixels[:20].float() / 255
    assert torch.equal(again.network.features(x), trained.network.features(x))
    assert isinstance(torch.load(file, weights_only=True), dict)
    with pytest.raises(AssertionError, match="should have read"):
        train(digits, folder=folder, seed=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: data.binarized(d, "stochastic", seed=0),
        lambda d: replace(d, train=replace(d.train, labels=d.train.labels.flip(0))),
        lambda d: replace(d, test=d.test.part(0, 100)),
        unlabelled,
    ],
    ids=["binarised", "relabelled", "other test images", "unlabelled"],
)
def test_other_data_have_another_file(
    digits: DataSet, change: Callable[[DataSet], DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "MOST_STEPS", 1)
    train(digits, folder=tmp_path)
    train(change(digits), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def of_other_shapes(file: Path) -> None:
    state = Classifier(shape=(1, 16, 16), classes=3).state_dict()
    torch.save({"classifier": state}, file)


@pytest.mark.parametrize("spoil", [truncated, of_other_shapes])
def test_a_file_that_does_not_fit_is_trained_anew_and_said_so(
    digits: DataSet, spoil: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train(digits, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert not capsys.readouterr().err
    spoil(file)
    assert train(digits, folder=tmp_path).hash == trained.hash
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(file) in said[0]
    assert "again" in said[0]
    assert train(digits, folder=tmp_path).hash == trained.hash
    assert not capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_a_training_that_is_stopped_leaves_no_file(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **settings: Any) -> int:
        return signal.SIGINT

    monkeypatch.setattr(classifiers, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(digits, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 64, 64), (2, 17, 40), (3, 128, 96)])
def test_it_takes_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    network = Classifier(shape=shape, classes=7).eval()
    x = torch.rand(5, *shape)
    assert network.features(x).shape == (5, 64)
    assert network(x).shape == (5, 7)
    assert network.double()(x.double()).dtype == torch.float64
    assert sum(parameter.numel() for parameter in network.parameters()) < 600_000
    # In eval mode an image's answer does not depend on the others.
    torch.testing.assert_close(network(x.double())[:1], network(x[:1].double()))


def test_a_step_reads_nothing_on_the_host() -> None:
    for task, classes in (("labels", 2), ("rotations", 4)):
        network = Classifier(shape=(1, 16, 16), classes=classes)
        step = classifiers.ClassifierStep(network, task)
        step.network, step.optimizer = network.to("meta"), torch.optim.SGD(network.to("meta").parameters(), lr=0.1)
        batch = data.Images(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.zeros(8).long(), torch.arange(8))
        found = step(batch.to("meta").gather(torch.arange(8, device="meta")))
        assert found["loss"].device.type == "meta"


def with_labels(labels: Tensor) -> DataSet:
    images = small.data_set()
    return replace(images, train=replace(images.train, labels=labels))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_labels(torch.zeros(200)), "integers from 0 on"),
        (lambda: with_labels(torch.zeros(200).long() - 1), "integers from 0 on"),
        (lambda: replace(s := small.data_set(), train=s.train.first(1)), "at least 2"),
        (
            lambda: unlabelled(
                replace(
                    s := small.data_set(),
                    train=replace(s.train, pixels=s.train.pixels[..., :6]),
                    test=replace(s.test, pixels=s.test.pixels[..., :6]),
                )
            ),
            "8×6",
        ),
        (
            lambda: replace(
                s := with_labels(torch.zeros(200).long()), test=replace(s.test, labels=torch.zeros(50).long())
            ),
            "single class",
        ),
    ],
    ids=["fractions", "negative", "one image", "not square", "one class"],
)
def test_bad_data_are_refused_in_one_line(make: Callable[[], DataSet], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        train(make())
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_refused_before_training(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "_train", refuse)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        train(digits, folder=tmp_path / "file" / "classifiers")
