"""One small classifier of images, trained by the project itself: its features are what samples are measured in."""

import hashlib
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_models import Batch, UsageError
from ppl_models.reprs import fields_repr
from runners.data import DataSet, Images
from runners.devices import device_or_default
from runners.loop.checkpoint import digest, load_checkpoint, save_checkpoint
from runners.loop.history import History
from runners.loop.random import forked
from runners.loop.train import train

__all__ = ["FEATURES", "Classifier", "Task", "Trained", "classifier"]

Task = Literal["labels", "rotations"]

FEATURES = 64
"""Few enough that 10 000 images settle a covariance: the Fréchet distance of two samples grows with features/images."""

TURNS = 4
BATCH, EPOCHS, LEAST_STEPS, MOST_STEPS = 128, 3, 300, 1500
RATE, WARM_UP = 5e-3, 0.2
AT_ONCE = 500
SMALLEST = 1e-3  # of a unit that has died after all


class Classifier(nn.Module):
    """Convolutions, 64 features, classes: images `(N, C, H, W)` in [0, 1] to logits `(N, classes)`.

    5×5 convolutions of stride 2 until no side is above 8 pixels, but at least two, a 3×3 one, a hidden layer; batch
    norm after each (Ioffe and Szegedy 2015, arXiv:1502.03167). The features are the hidden layer before its ReLU,
    where no unit can be dead.

    Args:
        shape: Channels, height and width of an image.
        classes: How many there are.

    Attributes:
        mean: Of the hidden layer over the training images, `(64,)`; a buffer, as the next, that training fills in.
        deviation: The standard deviation; features have mean 0 and deviation 1 over the training images.
    """

    def __init__(self, *, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        width, sides = self.shape[0], self.shape[1:]
        halvings = max(2, math.ceil(math.log2(max(sides) / 8)))
        layers: list[nn.Module] = []
        for out in [min(16 * 2**place, FEATURES) for place in range(halvings)]:
            layers += [nn.Conv2d(width, out, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            width, sides = out, [math.ceil(side / 2) for side in sides]
        layers += [nn.Conv2d(width, FEATURES, 3, padding=1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(FEATURES * math.prod(sides), FEATURES, bias=False), nn.BatchNorm1d(FEATURES)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))

    def features(self, x: Tensor) -> Tensor:
        """Standardised features `(N, 64)` of images `(N, C, H, W)`."""
        return (self.body(x) - self.mean) / self.deviation

    def logits(self, features: Tensor) -> Tensor:
        """Logits `(N, classes)` of features `(N, 64)`."""
        return self.head((features * self.deviation + self.mean).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


class Trained(NamedTuple):
    """A classifier that is trained and frozen, in eval mode.

    Attributes:
        network: The classifier.
        accuracy: On the test split, of the labels or, without any, of the turns.
        hash: The first 12 hexadecimal digits of the state's SHA-256: features of two hashes are not comparable.
        task: "labels", or "rotations" where the data have none.
        seed: What it was trained with.
    """

    network: Classifier
    accuracy: float
    hash: str
    task: Task
    seed: int

    __repr__ = fields_repr


def classifier(
    data: DataSet,
    *,
    seed: int = 0,
    folder: Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Trained:
    """Train the classifier of a data set's training images, or read it where it has been trained before.

    It learns the labels; of images without labels, which of four ways up they are (Gidaris et al. 2018,
    arXiv:1803.07728). Three epochs of MNIST take well under a minute on one core, and it then gets 99.4 % of the test
    digits right. The same seed gives the same bits on one machine, and the global random state is left alone.
    A model that trained against one seed's classifier, or was chosen by it, has to be reported by another's.

    Args:
        data: The data set.
        seed: Of the network, the order of the images and all noise.
        folder: Where the trained state is kept, such as runs/classifiers, in a file named after the data, the task
            and the seed. The file is a copy of what training gives again: where it is damaged or of another network
            it is trained and written anew, and a line on stderr says so.
        device: Where it is trained and stays; by default CUDA where there is one.
        progress: Whether to show a progress bar.

    Raises:
        UsageError: There are too few images or classes, labels are not integers from 0 on, images without labels are
            not square, or the folder cannot be written to.
    """
    device = device_or_default(device)
    task, classes = _task(data)
    name = f"{_fingerprint(data)}-{task}-{seed}.pt"
    data = data.to(device)
    network = None
    with forked(seed, device), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        if folder is not None:
            _make(folder)
            network = _read(folder / name, _fresh(data, classes, seed, device), device)
        if network is None:
            network = _fresh(data, classes, seed, device)
            _train(network, data.train, task, seed=seed, progress=progress)
            if folder is not None:
                save_checkpoint(folder / name, {"classifier": network})
        network.eval().requires_grad_(False)
        accuracy = _accuracy(network, data.test, task)
    return Trained(network, accuracy, digest(network), task, seed)


class ClassifierStep:
    """One step of Adam on the cross-entropy, its rate up and down again in two straight lines.

    Smith and Topin 2018, arXiv:1708.07120.
    """

    batches = 1

    def __init__(self, network: Classifier, task: Task) -> None:
        self.network, self.task = network, task
        self.rate = torch.zeros((), device=next(network.parameters()).device)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=self.rate, fused=True)

    def before(self, step: int, steps: int) -> None:
        """Fill in the learning rate."""
        done = (step + 1) / (steps + 1)
        self.rate.fill_(RATE * min(done / WARM_UP, (1 - done) / (1 - WARM_UP)))

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        x, y = _posed(batch, self.task)
        logits = self.network(x)
        loss = functional.cross_entropy(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "accuracy": (logits.argmax(1) == y).to(loss.dtype).mean()}


def _task(data: DataSet) -> tuple[Task, int]:
    """What is to be told apart, and how many kinds there are."""
    if len(data.train) < 2:
        raise UsageError(f"classifier: found {len(data.train)} training images, expected at least 2")
    labels = [data.train.labels, data.test.labels]
    if any(y is None for y in labels):
        _, height, width = data.shape
        if height != width:
            raise UsageError(
                f"classifier: {data.name} has no labels, and images of {height}×{width}; to tell which way up they "
                "are, they have to be square"
            )
        return "rotations", TURNS
    if any(y.is_floating_point() or int(y.min()) < 0 for y in labels):
        raise UsageError(f"classifier: {data.name} has labels below 0 or of fractions, expected integers from 0 on")
    classes = max(int(y.max()) for y in labels) + 1
    if classes < 2:
        raise UsageError(f"classifier: {data.name} has labels of a single class, expected two or more")
    return "labels", classes


def _fingerprint(data: DataSet) -> str:
    """Which images and labels these are, and whether they are drawn anew for each batch."""
    told = [data.train.fingerprint(), data.test.fingerprint(), str(data.train.fresh)]
    labels = [b"" if y is None else y.cpu().numpy().tobytes() for y in (data.train.labels, data.test.labels)]
    return hashlib.sha256(b"".join([" ".join(told).encode(), *labels])).hexdigest()[:12]


def _fresh(data: DataSet, classes: int, seed: int, device: torch.device) -> Classifier:
    """A network at the start of its training, the same on every device."""
    with forked(seed, torch.device("cpu")):
        return Classifier(shape=data.shape, classes=classes).to(device, memory_format=torch.channels_last)


def _make(folder: Path) -> None:
    """Make the folder before the work that is to be kept there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written to ({error.strerror})") from error


def _read(path: Path, network: Classifier, device: torch.device) -> Classifier | None:
    """The network with the file's state, or nothing where the file is missing or does not fit."""
    if not path.exists():
        return None
    try:
        load_checkpoint(path, {"classifier": network}, device=device)
    except UsageError as error:
        print(f"{error}; training the classifier again", file=sys.stderr)
        return None
    return network


def _train(network: Classifier, images: Images, task: Task, *, seed: int, progress: bool) -> None:
    size = min(BATCH if task == "labels" else BATCH // TURNS, len(images))
    stream = images.batches(size, torch.Generator().manual_seed(seed))
    steps = min(max(EPOCHS * stream.steps_per_epoch, LEAST_STEPS), MOST_STEPS)
    network.train()
    stopped = train(ClassifierStep(network, task), stream, History(), until=steps, progress=progress)
    if stopped is not None:
        signal.raise_signal(stopped)  # half a training is of no use, and the loop has only put the signal off
        raise KeyboardInterrupt
    network.eval()
    with torch.no_grad():
        hidden = torch.cat([network.body(batch.x).double() for batch in images.in_order(AT_ONCE)])
        network.mean.copy_(hidden.mean(0))
        network.deviation.copy_(hidden.std(0).clamp(min=SMALLEST))


def _posed(batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
    """Images and what is to be said of them: their labels, or for each of four turns of all of them which it is."""
    if task == "labels":
        return batch.x, batch.y
    x = torch.cat([batch.x.rot90(turn, (-2, -1)) for turn in range(TURNS)])
    return x, torch.arange(TURNS, device=x.device).repeat_interleave(len(batch.x))


@torch.no_grad()
def _accuracy(network: Classifier, images: Images, task: Task) -> float:
    posed = (_posed(batch, task) for batch in images.in_order(AT_ONCE))
    return float(torch.cat([network(x).argmax(1) == y for x, y in posed]).double().mean())
