"""Adversarial training: its updates against ones written by hand, and the command."""

import copy
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn

from ppl_models import Batch, Critic, DeepConvDecoder, Generator, MLPDecoder, MLPEncoder, UsageError
from ppl_models.adversarial import NON_SATURATING, SATURATING, WASSERSTEIN
from ppl_models.path_energy import path_energy
from runners import figures, gan, gan_options, gan_summary
from runners.adversarial_step import AdversarialStep
from runners.best import Best
from runners.gan import main
from runners.gan_fit import GanFit
from runners.loop.folder import RunFolder
from runners.loop.history import History
from runners.metrics.classifiers import Trained
from runners.selection import Selection

TINY = ["--networks", "mlp", "--latents", "3", "--batch", "16", "--steps", "6", "--pictures", "2", "--selection", "0"]


def networks() -> tuple[Generator, Critic]:
    generator = Generator(MLPDecoder(latents=3, shape=(1, 8, 8), hidden=(8,)))
    return generator, Critic(MLPEncoder(shape=(1, 8, 8), hidden=(8,), activation="leaky-relu"))


def batch(size: int = 6, *, dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(torch.rand(size, 1, 8, 8, dtype=dtype), None, torch.arange(size))


def step_of(generator: nn.Module, critic: nn.Module, loss: object = NON_SATURATING, **settings: Any) -> AdversarialStep:
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.9)) for net in (critic, generator)]
    return AdversarialStep(
        generator, critic, loss, *optimizers, autocast=lambda: torch.autocast("cpu", enabled=False), **settings
    )


def by_hand(
    generator: nn.Module, critic: nn.Module, batches: list[Batch], *, loss: str, generator_steps: int
) -> dict[str, Tensor]:
    """The same updates as papers write them, each term with a backward pass of its own; what the last ones found."""
    critic_adam = torch.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.5, 0.9))
    generator_adam = torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.5, 0.9))
    for real in batches:
        fake = generator(torch.randn(len(real.x), 3, dtype=torch.float64)).detach()
        critic_adam.zero_grad()
        x, made = 2 * real.x - 1, 2 * fake - 1
        if loss == "wasserstein":
            terms = -critic(x).mean(), critic(made).mean()
            for term in terms:
                term.backward()
            u = torch.rand(len(x), 1, 1, 1, dtype=torch.float64)
            between = (u * made + (1 - u) * x).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            norm = (slope.pow(2).sum((1, 2, 3)) + 1e-5).sqrt()
            penalty = ((norm - 1) ** 2).mean()
            (10 * penalty).backward()
            found = {"slope": norm.mean(), "penalty": penalty}
        else:
            terms = -0.5 * critic(x).sigmoid().log().mean(), -0.5 * (1 - critic(made).sigmoid()).log().mean()
            for term in terms:
                term.backward()
            found = {}
        critic_adam.step()
    spread = [(images - images.mean(0)).square().sum() for images in (fake, real.x)]
    found |= {"critic_loss": sum(terms), "diversity": spread[0] / spread[1]}
    for _ in range(generator_steps):
        generator_adam.zero_grad()
        score = critic(2 * generator(torch.randn(len(batches[0].x), 3, dtype=torch.float64)) - 1)
        if loss == "gan":
            (-score.sigmoid().log().mean()).backward()
        elif loss == "saturating":
            (1 - score.sigmoid()).log().mean().backward()
        else:
            (-score.mean()).backward()
        generator_adam.step()
    return found


@pytest.mark.parametrize(
    ("loss", "critic_steps", "generator_steps"),
    [("gan", 1, 1), ("gan", 5, 1), ("gan", 1, 10), ("saturating", 2, 3), ("wasserstein", 5, 1), ("wasserstein", 1, 2)],
)
def test_a_step_is_the_updates_of_the_papers(loss: str, critic_steps: int, generator_steps: int) -> None:
    pairs = {"gan": NON_SATURATING, "saturating": SATURATING, "wasserstein": WASSERSTEIN}
    ours = [net.double() for net in networks()]
    theirs = [net.double() for net in networks()]
    for net, other in zip(ours, theirs, strict=True):
        other.load_state_dict(net.state_dict())
    batches = [batch() for _ in range(critic_steps)]
    counts = {"critic_steps": critic_steps, "generator_steps": generator_steps}
    step = step_of(*ours, pairs[loss], **counts, penalty=10.0 if loss == "wasserstein" else 0.0)
    assert step.batches == critic_steps
    torch.manual_seed(5)
    logged = step(*batches)
    torch.manual_seed(5)
    found = by_hand(*theirs, batches, loss=loss, generator_steps=generator_steps)
    for net, other in zip(ours, theirs, strict=True):
        for (name, value), expected in zip(net.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(value, expected, msg=name)
    assert logged.keys() == found.keys() | {"generator_loss"}
    for name, value in found.items():
        torch.testing.assert_close(logged[name].detach(), value.detach(), msg=name)


def test_the_energy_of_paths_is_in_the_generators_loss() -> None:
    """By the energy and its bound as they stand, three paths for a batch of 21 images."""
    (generator, critic), (other, _) = ([net.double() for net in networks()] for _ in range(2))
    other.load_state_dict(generator.state_dict())
    step = step_of(generator, critic, path_energy=0.7)
    like = torch.zeros((), dtype=torch.float64)
    torch.manual_seed(5)
    logged = step._generate(21, like=like)
    torch.manual_seed(5)
    loss = -critic(2 * other(torch.randn(21, 3, dtype=torch.float64)) - 1).sigmoid().log().mean()
    start, end = torch.randn(6, 3, dtype=torch.float64).chunk(2)
    x = other(start), other(end)
    path = start[:, None] + torch.linspace(0, 1, 6, dtype=torch.float64)[:, None] * (end - start)[:, None]
    bounds = 0.5 * (x[0] - x[1]).square().sum((1, 2, 3)) * (start - end).square().sum(1)
    energy = (path_energy(other, path, *x) / bounds).mean()
    torch.testing.assert_close(logged["path_energy"], energy)
    optimizer = torch.optim.Adam(other.parameters(), lr=1e-2, betas=(0.5, 0.9))
    (loss + 0.7 * energy).backward()
    optimizer.step()
    for value, expected in zip(generator.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("critic_steps", "generator_steps"), [(5, 1), (1, 10)])
def test_updates_are_counted_exactly(critic_steps: int, generator_steps: int) -> None:
    step = step_of(*[net.double() for net in networks()], critic_steps=critic_steps, generator_steps=generator_steps)
    for _ in range(3):
        step(*(batch() for _ in range(step.batches)))
    for optimizer, count in ((step.critic_optimizer, critic_steps), (step.generator_optimizer, generator_steps)):
        assert {int(state["step"]) for state in optimizer.state.values()} == {3 * count}


def test_no_update_computes_the_other_networks_gradients() -> None:
    generator, critic = (net.double() for net in networks())
    step = step_of(generator, critic)
    step(batch())
    before = [p.grad.clone() for p in critic.parameters()]
    step._generate(6, like=batch().x)
    assert all(torch.equal(p.grad, kept) for p, kept in zip(critic.parameters(), before, strict=True))
    kept = [p.grad.clone() for p in generator.parameters()]
    step._criticise(batch().x)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(generator.parameters(), kept, strict=True))


def test_real_and_generated_images_do_not_share_a_batch_norm() -> None:
    """In one pass the running mean would be that of both; apart it is of one after the other."""

    class Normed(nn.Module):
        features = 4

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.sizes = nn.BatchNorm1d(64), []

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.append(len(x))
            return self.norm(x.flatten(1))[:, :4]

    generator, _ = networks()
    critic = Critic(Normed()).double()
    step = step_of(generator.double(), critic)
    step._criticise(batch(6).x)
    assert critic.encoder.sizes == [6, 6]
    for weights in ({"penalty": 1.0}, {"r1": 1.0}):
        with pytest.raises(UsageError, match="batch norm"):
            step_of(generator, critic, **weights)


def test_a_step_reads_nothing_on_the_host() -> None:
    generator, critic = (net.to("meta") for net in networks())
    step = step_of(generator, critic, WASSERSTEIN, penalty=10.0, r1=1.0, path_energy=1.0, augment=("cutout",))
    step.autocast = torch.enable_grad
    step(Batch(torch.rand(4, 1, 8, 8, device="meta"), None, torch.arange(4, device="meta")))


def fitted(**settings: Any) -> GanFit:
    generator, critic = networks()
    settings = {"steps": 6, "batch": 16, "every": 2, "progress": False} | settings
    return gan.fit(generator, critic, small.data_set(), **settings)


def test_in_python(tmp_path: Path) -> None:
    fit = fitted(out=tmp_path / "run", average=0.9)
    assert "GanFit(gan on" in repr(fit)
    samples = fit.samples(10)
    assert samples.shape == (10, 1, 8, 8)
    assert torch.equal(samples, fit.samples(10, which="average"))
    assert not torch.equal(samples, fit.samples(10, which="last"))
    assert not torch.equal(samples, fit.samples(10, seed=1))
    with pytest.raises(UsageError, match="no generator was selected"):
        fit.samples(1, which="best")
    again = gan.load(tmp_path / "run", data=fit.data)
    assert torch.equal(again.samples(10), samples)
    assert len(fit.interpolation().axes) == 1
    assert len(fit.show().axes) == 2
    assert {"critic_loss", "generator_loss", "held_out", "diversity"} <= fit.history.rows[-1].keys()


def chosen(fit: GanFit) -> Trained:
    """What chooses, by features that are the first pixels."""
    network = SimpleNamespace(features=lambda x: x.flatten(1)[:, :3].double(), to=lambda device: network)
    return Trained(network, 0.5, "cafe", "labels", 1)


def test_the_best_generator_is_the_one_that_was_looked_at() -> None:
    """Of a run that keeps an average, that; its images are measured on other latents than those that chose it."""
    generator, critic = networks()
    data = replace(small.data_set(test=200), valid=small.images(150, first=900))
    settings = {"steps": 6, "batch": 16, "average": 0.5, "progress": False, "every": 2, "selection": 3}
    fit = GanFit(generator, critic, data, classifier=chosen(None), **settings)
    kept, look = [], fit.selection.look

    def noted(net: nn.Module, images: Tensor, *, step: int, **losses: float) -> None:
        kept.append((step, {name: value.clone() for name, value in net.state_dict().items()}, images))
        look(net, images, step=step, **losses)

    fit.selection.look = noted
    fit.run()
    assert len(fit.selection.real) == 150, "the validation images"
    assert [step for step, _, _ in kept] == [2, 4, 6]
    best = next(state for step, state, _ in kept if step == fit.selection.step)
    assert all(torch.equal(value, best[name]) for name, value in fit.trained("best").state_dict().items())
    (_, last, images), averaged = kept[-1], fit.average.module.state_dict()
    assert all(torch.equal(value, last[name]) for name, value in averaged.items())
    assert not torch.equal(fit.samples(150, which="average"), images)
    assert fit.trained("last") is not fit.generator
    assert not fit.trained("last").training
    assert fit.result()["chosen_by"] == {
        "accuracy": 0.5,
        "hash": "cafe",
        "task": "labels",
        "seed": 1,
        "images": "valid",
    }
    losses = [[row[name] for name in ("step", "generator_loss", "critic_loss")] for row in fit.selection.rows]
    assert losses == [[row[name] for name in ("step", "generator_loss", "critic_loss")] for row in fit.history.rows]


def test_interpolation_is_along_variance_preserving_paths() -> None:
    fit = fitted()
    seen: list[Tensor] = []
    fit.generator.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    fit.interpolation(rows=500, steps=5)
    (z,) = (z.unflatten(0, (500, 5)) for z in seen if len(z) == 2500)
    assert ((z.var(0) - 1).abs() < 0.35).all(), "half of that in the middle of a straight line"


def test_an_epoch_is_all_images_once(data: list[str]) -> None:
    options = gan_options.DEFAULTS | {"loss": "wgan-gp", "epochs": 2, "batch": 8, "selection": 0, "networks": "mlp"}
    fit = gan.build(options | {"data": data[1]}, RunFolder(Path("unused")))
    assert fit.settings["steps"] == 2 * (len(fit.data.train) // (5 * 8))


def test_the_average_follows_the_generator() -> None:
    generator, critic = networks()
    fit = GanFit(generator, critic, small.data_set(), steps=3, batch=16, average=0.8, progress=False)
    (name, first), *_ = ((n, p.detach().clone()) for n, p in generator.named_parameters())
    expected = None
    for _ in range(3):
        fit.run(1)
        now = dict(generator.named_parameters())[name].detach()
        expected = now.clone() if expected is None else 0.8 * expected + 0.2 * now
    assert not torch.equal(now, first)
    torch.testing.assert_close(dict(fit.average.module.named_parameters())[name].detach(), expected)


def test_the_average_of_a_batch_norm_is_one_too() -> None:
    """Its running statistics are averaged, and counts do not stop that."""
    decoder = DeepConvDecoder(latents=3, shape=(1, 8, 8), channels=(4, 4), norm="batch")
    _, critic = networks()
    settings = {"steps": 5, "batch": 16, "average": 0.5, "progress": False}
    fit = gan.fit(Generator(decoder), critic, small.data_set(), **settings)
    own, averaged = (
        {name: value for name, value in net.named_buffers() if name.endswith("running_mean")}
        for net in (fit.generator, fit.average.module)
    )
    assert own.keys() == averaged.keys() != set()
    assert all((averaged[name] != value).any() for name, value in own.items())
    assert fit.samples(4).isfinite().all()
    assert fit.generator.training
    assert len(fit.interpolation(rows=2, steps=3).axes) == 1


def test_held_out_loss_is_the_critics_on_images_it_was_not_trained_on() -> None:
    fit = fitted()
    with fit.aside():
        x = next(fit.data.test.in_order(50)).x
        made = fit.generator(torch.randn(50, 3))
        expected = NON_SATURATING.critic(fit.critic(2 * x - 1), fit.critic(2 * made - 1))
    assert fit.history.rows[-1]["held_out"] == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "perceptual"}, "loss: found 'perceptual'"),
        ({"loss": "wasserstein", "fuzz": 0.1}, "has no labels"),
        ({"critic_steps": 0}, "expected a whole number from 1 on"),
        ({"selection": 2}, "expected classifier="),
        ({"steps": -1}, "expected a whole number from 0 on"),
        ({"batch": 2.5}, "batch: found 2.5"),
        ({"penalty": -1.0}, "penalty: found -1.0"),
        ({"r1": "x"}, "r1: found 'x'"),
        ({"average": 1.0}, "average: found 1.0"),
        ({"augment": ("colour",)}, "colour"),
        ({"batch": 1}, "batch: found 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fitted(**settings)


def test_networks_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    generator, critic = networks()
    wide = Generator(MLPDecoder(latents=3, shape=(1, 9, 9), hidden=(8,)))
    with pytest.raises(UsageError, match="generator's images are"):
        gan.fit(wide, critic, small.data_set(), out=tmp_path / "run")
    with pytest.raises(UsageError, match="critic's scores"):
        gan.fit(generator, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), small.data_set(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Own(nn.Module):
    """A generator as users write them, for one batch dimension, with a frozen layer."""

    latents = 3

    def __init__(self, *, end: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.end = nn.Linear(3, 8), nn.ConvTranspose2d(8, 1, 8), end
        self.first.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.second(self.first(z).view(len(z), 8, 1, 1)))


class Mixing(nn.Module):
    """A critic whose scores of images depend on those beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.sizes = nn.Linear(65, 1), []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        spread = x.var(0, correction=0).mean().expand(len(x), 1)
        return self.head(torch.cat([x.flatten(1), spread], 1)).squeeze(-1)


class Steps(nn.Module):
    """A critic without a gradient in its images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x > 0).float().flatten(1)).squeeze(-1)


def test_networks_of_ones_own(tmp_path: Path) -> None:
    data, settings = small.data_set(), {"steps": 2, "batch": 16, "progress": False}
    mixing, own = Mixing(), Own(end=nn.Sigmoid())
    before = own.first.weight.clone()
    fit = gan.fit(own, mixing, data, out=tmp_path / "run", **settings)
    assert torch.equal(own.first.weight, before)
    assert (tmp_path / "run" / "report.html").exists()
    assert mixing.sizes[5:8] == [16, 16, 16], "real, generated, and those of the generator's update"
    loaded = gan.load(tmp_path / "run", generator=Own(end=nn.Sigmoid()), critic=Mixing(), data=data)
    assert torch.equal(loaded.samples(4), fit.samples(4))
    with pytest.raises(UsageError, match="scores depend on the other images"):
        gan.fit(Own(end=nn.Sigmoid()), Mixing(), data, penalty=1.0, **settings)
    _, critic = networks()
    for generator, judge, message in (
        (Own(end=nn.Tanh()), critic, "images go from -"),
        (Own(end=nn.Sigmoid()).double(), critic, "raised RuntimeError"),
        (nn.Linear(3, 64), critic, "how many latents"),
        (Own(end=nn.Sigmoid()), Steps(), "no gradient in its images"),
    ):
        with pytest.raises(UsageError, match=message):
            gan.fit(generator, judge, data, out=tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_a_run_is_loaded_without_what_chose_its_best(tmp_path: Path) -> None:
    """Only to go on it needs that again, and the same one; an optimiser that no config.json can name is given."""
    optimizer = lambda parameters: torch.optim.NAdam(parameters, lr=1e-3)  # noqa: E731
    settings = {"steps": 4, "batch": 16, "progress": False, "selection": 2, "generator_optimizer": optimizer}
    fit = gan.fit(*networks(), small.data_set(), classifier=chosen(None), out=tmp_path / "run", **settings)
    with pytest.raises(UsageError, match="function"):
        gan.load(tmp_path / "run", data=fit.data)
    loaded = gan.load(tmp_path / "run", data=fit.data, generator_optimizer=optimizer, classifier=lambda: 1 / 0)
    assert torch.equal(loaded.samples(4, which="best"), fit.samples(4, which="best"))
    with pytest.raises(ZeroDivisionError):
        loaded.run(2)
    other = gan.load(
        tmp_path / "run",
        data=fit.data,
        generator_optimizer=optimizer,
        classifier=chosen(None)._replace(hash="beef"),
    )
    with pytest.raises(UsageError, match="chosen by the classifier cafe, found beef"):
        other.run(2)
    again = gan.load(tmp_path / "run", data=fit.data, generator_optimizer=optimizer, classifier=chosen(None)).run(2)
    assert len(again.selection.rows) == len(fit.selection.rows) + 1


def test_too_few_images_to_choose_by_are_refused() -> None:
    with pytest.raises(UsageError, match="selection: found 3 images"):
        GanFit(*networks(), small.data_set(test=3), batch=16, selection=2, classifier=chosen(None))


def test_samples_are_binary_where_the_data_are() -> None:
    data = replace(small.data_set(), binarize="threshold")
    fit = gan.fit(*networks(), data, steps=1, batch=16, progress=False)
    assert set(fit.samples(20).unique().tolist()) <= {0.0, 1.0}


def test_a_figure_that_is_no_number_is_not_the_best() -> None:
    best, net = Best("loss"), nn.Linear(1, 1)
    for step, found in enumerate((math.nan, 2.0, math.nan, 1.0, 3.0)):
        best.take(found, net, step=step)
    assert best.step == 3


def test_paths_leave_batch_norms_statistics_alone() -> None:
    """Their points are nearer to 0 than latents are."""
    first = Generator(DeepConvDecoder(latents=3, shape=(1, 16, 16), norm="batch"))
    critic, buffers = Critic(MLPEncoder(shape=(1, 16, 16), hidden=(8,))), []
    for weight in (0.0, 1.0):
        generator = copy.deepcopy(first)
        torch.manual_seed(0)
        step_of(generator, critic, path_energy=weight)._generate(8, like=torch.zeros(()))
        buffers.append([buffer.clone() for buffer in generator.buffers()])
    assert all(torch.equal(*pair) for pair in zip(*buffers, strict=True))
    assert all(norm.track_running_stats for norm in generator.modules() if isinstance(norm, nn.BatchNorm2d))


def row(**changed: float) -> dict[str, float]:
    usual = {"step": 1000, "critic_loss": 0.5, "generator_loss": 1.2, "diversity": 0.9, "held_out": 0.5}
    return usual | {"slope": 0.9, "penalty": 0.01} | changed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"diversity": 0.05}, "0.05 of the data's variance"),
        ({"critic_loss": 0.001, "generator_loss": 9.5}, "its loss is 0.001, 0.69 where it is fooled"),
        ({"critic_loss": 0.03, "held_out": 0.03}, None),
        ({"slope": 7.0, "penalty": 36.0}, "mean slope is 7.00"),
        ({"slope": 0.4, "penalty": 0.36}, "mean slope is 0.40"),
        ({"held_out": 1.1}, "knows its images by heart: its loss on held-out ones is 1.10, on those of training 0.50"),
    ],
)
def test_what_fails_is_said_with_its_number(changed: dict[str, float], said: str | None) -> None:
    fit = fitted(steps=0)
    fit.history.rows += 5 * [row(**changed)]
    assert gan_summary.remark(fit) is None, "too early"
    fit.history.step = 1000
    found = gan_summary.remark(fit)
    assert found is None if said is None else said in found


def test_curves_show_both_critics_and_where_it_is_fooled() -> None:
    for loss, name, sign, level in (("gan", "critic loss", 1, 0.69), ("wasserstein", "Wasserstein estimate", -1, 0)):
        fit = fitted(loss=loss, penalty=1.0 if loss == "wasserstein" else 0.0)
        axes = next(axes for axes in gan_summary.curves(fit).axes if axes.get_title() == name)
        ours, held, fooled = axes.lines
        assert list(ours.get_ydata()) == [sign * row["critic_loss"] for row in fit.history.rows]
        assert list(held.get_ydata()) == [sign * row["held_out"] for row in fit.history.rows]
        assert fooled.get_ydata()[0] == pytest.approx(level, abs=0.01)


def test_picture_of_the_generators_losses() -> None:
    """At D(G(z)) = p the derivatives by the logit are −(1 − p) of −log p, and −p of log(1 − p)."""
    left, right = figures.generator_losses({"gan": NON_SATURATING, "saturating": SATURATING}).axes
    p = torch.tensor(left.lines[0].get_xdata())
    for axes, expected in ((left, (-p.log(), (1 - p).log())), (right, (p - 1, -p))):
        for line, values in zip(axes.lines, expected, strict=False):
            torch.testing.assert_close(torch.tensor(line.get_ydata()), values)


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    return ["--data", str(small.write_npz(tmp_path / "blobs.npz"))]


def weights(folder: Path) -> dict[str, Tensor]:
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("generator", "critic") for name, value in found[part].items()}


def assert_same(found: Any, expected: Any) -> None:
    """Two states, to their last bits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, (list, tuple)):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("loss", ["gan", "saturating", "wgan-gp", "least-squares", "hinge"])
def test_the_command(loss: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    main([*data, *TINY, "--loss", loss, "--out", str(out)])
    assert capsys.readouterr().out.rstrip().endswith("report.html")
    names = {path.name for path in out.iterdir()}
    pictures = {"curves.png", "images.png", "interpolation.png", "samples_000003.png", "samples_000006.png"}
    pictures |= {"losses.png"} if loss in ("gan", "saturating") else set()
    assert names == pictures | {"config.json", "checkpoint.pt", "metrics.csv", "result.json", "report.html"}
    config, result = (json.loads((out / name).read_text()) for name in ("config.json", "result.json"))
    assert config["critic_steps"] == (5 if loss == "wgan-gp" else 1)
    assert config["generator_optimizer"]["lr"] == (1e-4 if loss == "wgan-gp" else 3e-4)
    assert config["penalty"] == (10 if loss == "wgan-gp" else 0)
    assert (result["steps"], result["data"]) == (6, "fixed-binarized")
    assert {"critic_loss", "generator_loss"} <= result["train"].keys()
    assert gan.load(out).history.step == 6


def test_a_cut_run_ends_as_an_uncut_one(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("runners.metrics.classifiers.LEAST_STEPS", 5)
    line = [*data, *TINY, "--loss", "wgan-gp", "--average", "0.9", "--augment", "cutout", "--selection", "3"]
    line += ["--path-energy", "0.5"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*line, "--out", str(whole)])
    record = History.record

    def record_and_stop(history: History, scalars: dict[str, Tensor]) -> None:
        record(history, scalars)
        if history.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(History, "record", record_and_stop)
        with pytest.raises(SystemExit) as ended:
            main([*line, "--out", str(cut)])
    assert ended.value.code == 130
    assert f"python runners/gan.py --resume --out {cut}" in capsys.readouterr().err
    main(["--resume", "--out", str(cut)])
    ours, theirs = weights(cut), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(gan.load(cut).samples(5, which="best"), gan.load(whole).samples(5, which="best"))
    found, expected = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (cut, whole))
    for part in expected.keys() - {"history"}:  # whose seconds differ
        assert_same(found[part], expected[part])
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (whole, cut))
    assert first["best"]["step"] in (2, 4, 6)
    assert first | {"seconds": 0} == second | {"seconds": 0}


@pytest.mark.parametrize(("count", "distance"), [(150, "frechet_distance"), (50, "kernel_distance")])
def test_the_generator_of_the_smallest_distance_is_kept(count: int, distance: str) -> None:
    real = torch.randn(count, 64)
    judge = Trained(
        SimpleNamespace(features=lambda images: images, to=lambda device: judge.network), 0.9, "abc", "labels", 1
    )
    selection = Selection()
    selection.judge_by(judge, real)
    generator = nn.Linear(1, 1)
    assert (selection.step, selection.state) == (0, None)
    for step, shift in ((10, 2.0), (20, 0.5), (30, 1.0)):
        with torch.no_grad():
            generator.weight.fill_(step)
        selection.look(generator, torch.randn(count, 64) + shift, step=step)
    assert selection.step == 20
    assert selection.state["weight"].item() == 20
    assert [row["step"] for row in selection.rows] == [10, 20, 30]
    again = Selection()
    again.load_state_dict(selection.state_dict())
    assert (again.step, again.rows) == (20, selection.rows)
    again.judge_by(judge._replace(accuracy=0.8), real)
    assert again.about["accuracy"] == 0.9
    with pytest.raises(UsageError, match="chosen by the classifier abc, found def"):
        again.judge_by(judge._replace(hash="def"), real)
    assert selection.rows[1][distance] < selection.rows[2][distance] < selection.rows[0][distance]
