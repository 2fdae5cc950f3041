"""Steps as CUDA graphs: on a CPU by a recording that stands for one, and where there is a GPU, by graphs."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from recording import Recording
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from guides import (
    ELBO,
    IWAE,
    Adam,
    Amortized,
    Constrained,
    Echo,
    Flow,
    Free,
    FullRank,
    LinearSchedule,
    Refinement,
)
from ppl_models import Batch, Critic, DeepConvDecoder, DeepConvEncoder, Generator, MLPDecoder, MLPEncoder, UsageError
from ppl_models.average import Average
from runners import gan, run, svi
from runners.fit import ADAM, Fit
from runners.gan_fit import CRITIC, GENERATOR, GanFit
from runners.loop.capture import Captured, graphed, make_capturable
from runners.loop.history import History
from runners.loop.train import train
from runners.loop.watch import watched

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

RMSPROP = partial(torch.optim.RMSprop, lr=1e-3)
MOMENTUM = partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
TINY = ["--guide", "amortized", "--model", "mlp", "--hidden", 8, "--latents", 2]
JOINT = Refinement(steps=1, rule=Adam(lr=1e-2, betas=(0.9, 0.9)), decay=0.0, keep_moments=True, joint=True)


def _with(family: nn.Module) -> Amortized:
    return Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,)), family=family)


def _svi(
    guide: Callable[[Any], Any], objective: Callable[[], Any] = ELBO, *, fresh: bool = False, **settings: Any
) -> Callable[..., Fit]:
    """What makes a fit on bars, the same each time."""

    def make(**more: Any) -> Fit:
        torch.manual_seed(3)
        data = small.data_set(fresh=fresh)
        return Fit(
            small.model(),
            guide(data),
            data,
            objective(),
            **({"batch": 20, "every": 5, "progress": False} | settings | more),
        )

    return make


def _amortized(data: Any) -> Amortized:
    return small.amortized()


def _gan(*, norm: bool = False, **settings: Any) -> Callable[..., GanFit]:
    """What makes a GAN of bars, the same each time."""

    def make(**more: Any) -> GanFit:
        torch.manual_seed(3)
        if norm:
            channels = {"channels": (4, 8), "norm": "batch"}
            decoder = DeepConvDecoder(latents=3, shape=(1, 8, 8), **channels)
            encoder: nn.Module = DeepConvEncoder(shape=(1, 8, 8), **channels)
        else:
            decoder = MLPDecoder(latents=3, shape=(1, 8, 8), hidden=(8,))
            encoder = MLPEncoder(shape=(1, 8, 8), hidden=(8,), activation="leaky-relu")
        made = {"batch": 10, "every": 5, "progress": False} | settings | more
        return GanFit(Generator(decoder), Critic(encoder), small.data_set(), **made)

    return make


ANNEALED = partial(ELBO, LinearSchedule(), free_bits=0.5)
WGAN_GP: dict[str, Any] = {"loss": "wasserstein", "critic_steps": 5, "penalty": 10.0}
SVI: dict[str, Callable[..., Fit]] = {
    "amortized": _svi(_amortized, clip=1.0, fresh=True),
    "amortized, momentum": _svi(_amortized, optimizer=MOMENTUM),
    "free": _svi(small.free),
    "free, one optimiser": _svi(lambda data: small.free(data, refinement=JOINT)),
    "free, carried": _svi(lambda data: Free(20, latents=2, carried=True)),
    "semi-amortized": _svi(lambda data: small.semi_amortized()),
    "semi-amortized, first order": _svi(lambda data: small.semi_amortized(exact=False)),
    "annealed": _svi(_amortized, ANNEALED),
    "constrained": _svi(_amortized, partial(Constrained, -20.0)),
    "constrained, moving average": _svi(
        _amortized, partial(Constrained, 2.0, constraint="squared_error", rule="moving_average")
    ),
    "iwae": _svi(_amortized, partial(IWAE, 3)),
    "echo": _svi(lambda data: _with(Echo(2, depth=9))),
    "full rank": _svi(lambda data: _with(FullRank(2))),
    "flow": _svi(lambda data: _with(Flow(2, hidden=(8,), context=4))),
    "frozen model": _svi(_amortized, train_model=False),
    "bf16": _svi(_amortized, precision="bf16"),
}
GAN: dict[str, Callable[..., GanFit]] = {
    "wgan-gp": _gan(**WGAN_GP),
    "fuzzy, averaged": _gan(fuzz=0.1, average=0.9, generator_steps=2),
    "hinge, r1, paths, augmented": _gan(
        loss="hinge", r1=1.0, path_energy=1.0, augment=["color", "translation", "cutout"]
    ),
    "batch norm": _gan(norm=True, average=0.9, path_energy=1.0),
}
ALL = SVI | GAN
everything = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


def _state(fit: Any) -> dict[str, Any]:
    """All that a checkpoint of a fit holds, flat, but the seconds that it took."""
    found: dict[str, Any] = {}

    def take(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                take(f"{name}/{key}", item)
        elif isinstance(value, (list, tuple)):
            take(name, dict(enumerate(value)))
        elif not name.endswith("seconds"):
            found[name] = value.clone() if isinstance(value, Tensor) else value

    for name, part in fit._parts.items():
        take(name, part.state_dict())
    return found


def _same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert found[name] == value, name


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """From now on runs go by recordings; returns them."""
    made: list[Recording] = []

    def recorded(step: Any, device: torch.device, *, pieces: Any, **settings: Any) -> Captured:
        made.append(Recording())
        return Captured(step, made[-1], pieces=pieces, refuse=pytest.fail)

    monkeypatch.setattr(run, "graphed", recorded)
    return made


@everything
def test_replays_are_the_eager_run_bit_for_bit(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a step is a number of the host that changes, or a tensor that is elsewhere the next time."""
    expected = _state(make().run(10))
    made = _recorded(monkeypatch)
    found = _state(make().run(10))
    assert [recording.verbs for recording in made] == [["warm up"] * 3 + ["capture"] + ["replay"] * 7]
    _same(found, expected)


@pytest.mark.parametrize("name", ["constrained", "free", "wgan-gp"])
def test_runs_go_on_from_each_other_and_from_checkpoints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _state(ALL[name](steps=14).run(7).run(7))
    made = _recorded(monkeypatch)
    first = ALL[name](steps=14, out=tmp_path / "run").run(7)
    first.save(tmp_path / "kept")
    load = gan.load if isinstance(first, GanFit) else svi.load
    again = load(tmp_path / "kept", data=first.data)
    again.progress = False
    _same(_state(again.run(7)), expected)
    _same(_state(first.run(7)), expected)
    assert [recording.verbs.count("capture") for recording in made] == [1, 1, 1]


class Watching(Recording):
    """A recording that looks for what a graph cannot hold, on the CPU, where random numbers are."""

    def warm_up(self, work: Callable[[], Any]) -> tuple[Any, str | None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "get_rng_state", lambda: torch.zeros(1))
            return watched(work, device=torch.device("cpu"))


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The debug modes that were set, where there is no CUDA that could be asked to."""
    modes: list[Any] = ["before"]

    def put(mode: Any) -> None:
        if mode == "warn":
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)  # as torch's does
        modes.append(mode)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", put)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    return modes


@everything
def test_nothing_of_the_toolkits_is_refused(make: Callable[..., Any], mode: list[Any]) -> None:
    fit = make().rehearse()
    refused: list[str] = []
    captured = Captured(fit._step, Watching(), pieces=fit.pieces, refuse=refused.append)
    for step in range(4):
        captured.before(step, 10)
        captured(*(next(fit._stream) for _ in range(captured.batches)))
    assert refused == []
    assert mode == ["before", *["warn", "before"] * 3]


class Mean:
    """A moving average, in new memory each time or in place."""

    def __init__(self) -> None:
        self.value = torch.zeros(3)

    def replaced(self) -> dict[str, Tensor]:
        self.value = 0.9 * self.value + torch.tensor(0.1)
        return {"mean": self.value.sum()}

    def filled(self) -> dict[str, Tensor]:
        self.value.mul_(0.9).add_(torch.tensor(0.1))
        self.seen = self.value.clone()  # written anew before it is read
        return {"mean": self.seen.sum()}


def test_what_a_graph_cannot_hold_is_named(mode: list[Any]) -> None:
    def waits() -> dict[str, Tensor]:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=1)
        return {}

    def draws() -> dict[str, Tensor]:
        return {"noise": torch.rand(())}

    def warns() -> dict[str, Tensor]:
        warnings.warn("something else", stacklevel=1)
        return {}

    mean = Mean()
    watch = partial(watched, device=torch.device("cpu"))
    found, reason = watch(mean.replaced)
    assert found["mean"] == mean.value.sum()
    assert reason == "a tensor is read (mul.Tensor) and then replaced, expected an update in place"
    assert [watch(mean.filled)[1] for _ in range(2)] == [None, None]
    assert watch(waits)[1].startswith("the host waits for the device at test_capture.py:")
    assert watch(draws)[1] == "random numbers are drawn on the host"
    with pytest.warns(UserWarning, match="something else"):
        assert watch(warns) == ({}, None)
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 // 0)
    assert mode[-1] == "before"


def test_a_recording_does_what_is_refused_wrong() -> None:
    """So that the runs above would show it."""
    mean, graph = Mean(), Recording()
    scalars = graph.capture(mean.replaced)
    for _ in range(3):
        graph.replay()
    torch.testing.assert_close(scalars["mean"], torch.tensor(0.3))
    mean, graph = Mean(), Recording()
    scalars = graph.capture(mean.filled)
    for _ in range(3):
        graph.replay()
    torch.testing.assert_close(scalars["mean"], torch.tensor(3 * (0.1 + 0.09 + 0.081)))
    with pytest.raises(AssertionError, match="reads a tensor on the host"):
        Recording().capture(lambda: {} if mean.value.sum() > 0 else {})


class Peeking(Amortized):
    """Reads a tensor on the host."""

    def forward(self, batch: Batch) -> Tensor:
        assert batch.x.sum().item() > 0
        return super().forward(batch)


class Smoothed(ELBO):
    """Keeps a moving average in new memory each time."""

    mean: Any = 0.0

    def __call__(self, model: Any, guide: Any, batch: Batch) -> tuple[Tensor, Any]:
        loss, parts = super().__call__(model, guide, batch)
        self.mean = torch.mul(loss.detach(), 0.1) + 0.9 * self.mean
        return loss + 0 * self.mean, parts


def test_an_objective_that_replaces_what_it_reads_is_refused(mode: list[Any]) -> None:
    fit = _svi(_amortized, Smoothed)().rehearse()
    refused: list[str] = []
    captured = Captured(fit._step, Watching(), pieces=fit.pieces, refuse=refused.append)
    for _ in range(5):
        captured(next(fit._stream))
    assert refused == ["a tensor is read (mul.Tensor) and then replaced, expected an update in place"]


def test_a_guide_that_reads_on_the_host_fails_in_a_recording() -> None:
    encoder, family = small.amortized().encoder, small.amortized().family
    fit = _svi(lambda data: Peeking(encoder=encoder, family=family))()
    fit._step.validate = False
    with pytest.raises(AssertionError, match="reads a tensor on the host"):
        Recording().capture(lambda: fit._step(next(fit._stream)))


class Stub:
    """A step that says what it was asked, and keeps a sum of what it saw."""

    batches = 2

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.seen: list[tuple[Batch, ...]] = []
        self.sum = torch.zeros(())

    def before(self, step: int, steps: int) -> None:
        self.steps.append((step, steps))

    def __call__(self, *batches: Batch) -> dict[str, Tensor]:
        self.seen.append(batches)
        self.sum += sum((batch.x * batch.index[:, None]).sum() for batch in batches)
        return {"sum": self.sum, "first": batches[0].x[0, 0]}


def _batch(number: float, size: int = 2) -> Batch:
    return Batch(torch.full((3, size), number).t(), None, torch.arange(size) + int(number))


def test_batches_are_copied_to_where_they_were_recorded() -> None:
    step, graph, history = Stub(), Recording(), History()
    captured = Captured(step, graph, pieces={}, refuse=pytest.fail)
    batches = [_batch(float(n)) for n in range(16)]
    train(captured, iter(batches), history, until=8, every=1, progress=False)
    assert step.steps == [(n, 8) for n in range(8)]
    assert graph.verbs == ["warm up"] * 3 + ["capture"] + ["replay"] * 5
    assert len(step.seen) == 4
    assert all(seen is given for seen, given in zip(step.seen[2], batches[4:6], strict=True))  # the run's own
    for held, last in zip(step.seen[3], batches[14:], strict=True):
        assert held.y is None
        assert held.x is not last.x
        assert held.x.stride() == last.x.stride() == (1, 2)
        torch.testing.assert_close(held.x, last.x)
        torch.testing.assert_close(held.index, last.index)
    assert [row["first"] for row in history.rows] == [2.0 * n for n in range(8)]
    other = Stub()
    train(other, iter(batches), History(), until=8, every=1, progress=False)
    assert torch.equal(step.sum, other.sum)


@pytest.mark.parametrize("odd", [_batch(1.0, size=1), _batch(1.0)._replace(y=torch.zeros(2))], ids=["size", "labels"])
def test_a_batch_of_another_shape_is_done_as_it_is(odd: Batch) -> None:
    step, graph = Stub(), Recording()
    captured = Captured(step, graph, pieces={}, refuse=pytest.fail)
    for _ in range(5):
        captured(_batch(1.0), _batch(2.0))
    calls, verbs = len(step.seen), list(graph.verbs)
    captured(_batch(1.0), odd)
    assert len(step.seen) == calls + 1
    assert step.seen[-1][1] is odd
    assert graph.verbs == verbs
    captured(_batch(1.0), _batch(2.0))
    assert graph.verbs == [*verbs, "replay"]


class Unfit(Recording):
    """Finds reasons in the steps of these numbers."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = steps

    def warm_up(self, work: Callable[[], Any]) -> tuple[Any, str | None]:
        found, _ = super().warm_up(work)
        return found, "it is unfit" if len(self.verbs) in self.steps else None


def test_the_last_step_before_decides_and_refusal_is_said_once() -> None:
    refused: list[str] = []
    for graph, verbs in ((Unfit(1, 2), ["capture", "replay", "replay"]), (Unfit(3), [])):
        step = Stub()
        captured = Captured(step, graph, pieces={}, refuse=refused.append)
        for n in range(5):
            captured(_batch(float(n)), _batch(1.0))
        assert graph.verbs == ["warm up"] * 3 + verbs
    assert refused == ["it is unfit"]
    assert len(step.seen) == 5


def test_python_numbers_that_change_are_refused() -> None:
    class Ramp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 1)
            self.inner.weighs = 0.0

    ramp, step, refused = Ramp(), Stub(), []
    captured = Captured(step, Recording(), pieces={"objective": ramp, "other": ELBO()}, refuse=refused.append)
    for n in range(8):
        ramp.inner.weighs = float(n > 5)
        captured(_batch(1.0), _batch(1.0))
    assert len(refused) == 1
    assert refused[0].startswith("objective.inner.weighs, a Python number, changes")
    assert len(step.seen) == 3 + 1 + 2, "eager, recorded, eager again"


def test_a_learning_rate_that_changes_is_never_replayed(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    optimizer = ADAM(_parameters())
    step = _on_cuda(monkeypatch, optimizer)
    for n in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 if n < 5 else 0.2
        step(_batch(1.0), _batch(1.0))
    assert "optimizers[0].param_groups[0].lr, a Python number, changes from step to step" in capsys.readouterr().err


@pytest.mark.parametrize("value", [torch.tensor, float])
@pytest.mark.parametrize("since", [2, 5])
def test_what_before_step_replaces_is_refused_and_never_replayed(value: Callable[[float], Any], since: int) -> None:
    class Weighing:
        def __init__(self) -> None:
            self.weight = value(0.0)

        def before_step(self, step: int) -> None:
            if step >= since:
                self.weight = value(float(step))

    class Weighed(Stub):
        def before(self, step: int, steps: int) -> None:
            objective.before_step(step)

        def __call__(self, *batches: Batch) -> Any:
            return super().__call__(*batches) | {"weight": batches[0].x.new_zeros(()) + objective.weight}

    objective, refused, weights = Weighing(), [], []
    captured = Captured(Weighed(), Recording(), pieces={"objective": objective}, refuse=refused.append)
    for n in range(8):
        captured.before(n, 8)
        weights.append(float(captured(_batch(1.0), _batch(1.0))["weight"]))
    assert weights == [float(n) if n >= since else 0.0 for n in range(8)]
    said = ["before_step replaces objective.weight", "objective.weight, a Python number, changes from step to step"]
    assert refused == [f"{said[value is float]}, expected a tensor filled in place"]


def test_a_capture_that_fails_says_why_in_one_line() -> None:
    class Failing(Recording):
        def capture(self, work: Callable[[], Any]) -> Any:
            try:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            finally:
                raise RuntimeError("capture was invalidated")  # as its end does

    captured = Captured(Stub(), Failing(), pieces={}, refuse=pytest.fail)
    for _ in range(3):
        captured(_batch(1.0), _batch(1.0))
    with pytest.raises(UsageError, match=r"recorded as a CUDA graph \(operation not permitted\); --no-graph") as caught:
        captured(_batch(1.0), _batch(1.0))
    assert "\n" not in str(caught.value)


def _on_cuda(
    monkeypatch: pytest.MonkeyPatch,
    optimizer: torch.optim.Optimizer,
    *,
    graph: bool | None = None,
    made: Callable[[], Recording] = Recording,
) -> Any:
    """What a step on CUDA becomes."""
    monkeypatch.setattr("runners.loop.capture.CudaGraph", lambda device: made())
    return graphed(Stub(), torch.device("cuda", 0), optimizers=[optimizer], pieces={}, graph=graph)


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


def test_on_cuda_steps_are_recorded_by_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for make in (ADAM, CRITIC, GENERATOR, RMSPROP, MOMENTUM, torch.optim.AdamW, torch.optim.NAdam):
        optimizer = make(_parameters())
        for graph in (None, True):
            assert isinstance(_on_cuda(monkeypatch, optimizer, graph=graph), Captured)
        assert all(group.get("capturable", True) for group in optimizer.param_groups)
    optimizer = ADAM(_parameters())
    assert isinstance(_on_cuda(monkeypatch, optimizer, graph=False), Stub)
    assert not optimizer.param_groups[0]["capturable"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("reason", ["optimiser", "processes", "found by the third step"])
def test_refusal_is_a_line_or_an_error_where_graphs_were_asked_for(
    reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    optimizer, made = ADAM(_parameters()), Recording
    if reason == "optimiser":
        optimizer, said = torch.optim.Adagrad(_parameters()), "Adagrad has no option capturable"
    elif reason == "processes":
        said = "there are several processes"
        monkeypatch.setattr("runners.loop.processes.count", lambda: 2)
    else:
        made, said = partial(Unfit, 3), "it is unfit"

    def steps(graph: bool | None) -> Any:
        step = _on_cuda(monkeypatch, optimizer, graph=graph, made=made)
        for _ in range(5):
            step(_batch(1.0), _batch(1.0))
        return step

    with pytest.raises(UsageError, match=f"graph: {said}.*--no-graph, or graph=False, goes without"):
        steps(True)
    capsys.readouterr()
    step = steps(None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"steps are not recorded as a CUDA graph: {said}")
    assert len(getattr(step, "step", step).seen) == 5
    steps(False)
    assert capsys.readouterr() == ("", "")


def test_an_optimisers_count_moves_to_its_parameters() -> None:
    """Of a state that another run left on the host."""
    parameter = nn.Parameter(torch.ones(2, device="meta"))
    optimizer = RMSPROP([parameter], foreach=False)
    parameter.grad = torch.ones(2, device="meta")
    optimizer.step()
    devices = {name: value.device.type for name, value in optimizer.state[parameter].items()}
    assert devices == {"step": "cpu", "square_avg": "meta"}
    make_capturable(optimizer)
    assert {value.device.type for value in optimizer.state[parameter].values()} == {"meta"}
    assert optimizer.param_groups[0]["capturable"]
    make_capturable(optimizer, on=False)
    assert not optimizer.param_groups[0]["capturable"]


def test_a_run_of_cuda_is_resumed_on_a_cpu(tmp_path: Path) -> None:
    """Where torch refuses optimisers that are capturable, as a checkpoint of CUDA says that they are."""
    make = _svi(_amortized, optimizer=RMSPROP)
    expected = _state(make(steps=6).run(3).run(3))
    fit = make(steps=6).run(3)
    make_capturable(fit._parts["optimizer"])
    fit.save(tmp_path / "run")
    again = svi.load(tmp_path / "run", data=fit.data, device="cpu")
    assert again._parts["optimizer"].param_groups[0]["capturable"]
    again.progress = False
    _same(_state(again.run(3)), expected)


def test_graphs_need_cuda(capsys: pytest.CaptureFixture) -> None:
    for make in (SVI["amortized"], GAN["wgan-gp"]):
        with pytest.raises(UsageError, match="graph: found the device cpu, expected CUDA"):
            make(graph=True, device="cpu")
        for graph in (None, False):
            make(graph=graph, device="cpu").run(1)
    assert capsys.readouterr() == ("", "")
    assert SVI["amortized"](graph=False).swap(small.amortized()).graph is False


@pytest.mark.parametrize("main", [svi.main, gan.main], ids=["svi", "gan"])
def test_the_option_may_change_where_a_run_is_resumed(
    main: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ["--out", tmp_path / "run", "--device", "cpu"]
    run = ["--data", small.write_npz(tmp_path / "x.npz"), "--batch", 16, "--steps", 2, "--pictures", 0]
    run += ["--networks", "mlp", "--selection", 0] if main is gan.main else [*TINY, "--images", 8]
    main([str(word) for word in [*run, *out, "--no-graph"]])
    assert "expected CUDA; --no-graph" in small.refused(main, capsys, "--resume", *out, "--graph")
    main([str(word) for word in ["--resume", *out]])


def test_the_average_is_torchs_own() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    ours = Average(network, 0.9)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(8):
        network(torch.randn(6, 3))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        ours.update(network)
        theirs.update_parameters(network)
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name


# What follows runs graphs themselves.


def _close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same to rounding; whole numbers, and random states, which are bytes, exactly."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("capturable"):
            continue
        if isinstance(value, (Tensor, float)):
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, equal_nan=True, msg=name)
        else:
            assert found[name] == value, name


@needs_cuda
@everything
def test_a_graph_does_what_the_eager_run_does(make: Callable[..., Any], capsys: pytest.CaptureFixture) -> None:
    """Weights, rows, moments, history and random state, as many steps after recording as the run has."""
    expected = make(device="cuda", graph=False).run(10)
    found = make(device="cuda", graph=True).run(10)
    _close(_state(found), _state(expected))
    assert capsys.readouterr() == ("", "")


@needs_cuda
@pytest.mark.parametrize(
    "make",
    [_gan(**WGAN_GP, precision="bf16"), _svi(small.free, precision="bf16"), _svi(_amortized, optimizer=RMSPROP)],
    ids=["wgan-gp in bf16", "free in bf16", "rmsprop"],
)
def test_so_it_does_in_half_precision_and_by_other_optimisers(make: Callable[..., Any]) -> None:
    _close(_state(make(device="cuda", graph=True).run(10)), _state(make(device="cuda", graph=False).run(10)))


@needs_cuda
@pytest.mark.parametrize("name", ["free", "constrained", "wgan-gp"])
def test_recording_leaves_the_run_where_it_was(name: str) -> None:
    """After the step that was recorded, as after the ones before it and behind it."""
    for steps in (3, 4, 5):
        _close(*(_state(ALL[name](device="cuda", graph=graph).run(steps)) for graph in (True, False)))


@needs_cuda
def test_looking_between_replays_changes_nothing() -> None:
    plain = SVI["free"](device="cuda", graph=True).run(12)
    looking = SVI["free"](device="cuda", graph=True)
    looking.after = lambda step: looking.bounds(looking.data.test, updates=2)
    _close(_state(looking.run(12)), _state(plain))


@needs_cuda
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("name", ["free", "wgan-gp"])
def test_a_run_of_graphs_is_resumed_on_cuda(name: str, graph: bool, tmp_path: Path) -> None:
    first = ALL[name](device="cuda", graph=True).run(7)
    first.save(tmp_path / "run")
    load = gan.load if isinstance(first, GanFit) else svi.load
    again = load(tmp_path / "run", data=small.data_set(), device="cuda")
    again.progress, again.graph = False, graph
    _close(_state(again.run(7)), _state(first.run(7)))


@needs_cuda
@pytest.mark.parametrize("make", [_svi(_amortized, optimizer=RMSPROP), GAN["wgan-gp"]], ids=["svi", "gan"])
def test_a_run_goes_from_cuda_to_a_cpu_and_back(make: Callable[..., Any], tmp_path: Path) -> None:
    fit = make(device="cuda", graph=True).run(5)
    load = gan.load if isinstance(fit, GanFit) else svi.load
    for device in ("cpu", "cuda"):
        fit.save(tmp_path / device)
        fit = load(tmp_path / device, data=small.data_set(), device=device)
        fit.progress, fit.graph = False, True if device == "cuda" else None
        fit.run(5)
    assert fit.history.step == 15


@needs_cuda
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            _svi(lambda data: Peeking(encoder=small.amortized().encoder, family=small.amortized().family)),
            "the host waits for the device at test_capture.py:",
        ),
        (_svi(_amortized, Smoothed), "a tensor is read (mul.Tensor) and then replaced"),
    ],
    ids=["peeking", "smoothed"],
)
def test_what_a_graph_cannot_hold_stays_eager(
    make: Callable[..., Fit], reason: str, capsys: pytest.CaptureFixture
) -> None:
    found = make(device="cuda").run(6)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"steps are not recorded as a CUDA graph: {reason}")
    _close(_state(found), _state(make(device="cuda", graph=False).run(6)))
