from collections.abc import Callable, Iterator
from functools import partial

import pyro
import pytest
import torch
from torch import Tensor, nn

from guides import IWAE
from ppl_models import Batch
from runners.contenders import WORKLOADS, Contender, Setting, adversarial, characters, costs, free_rows, vae
from runners.contenders.numpyro_vae import numpyro_vae
from runners.contenders.pythae_vae import pythae_vae
from runners.data import Images

CPU = torch.device("cpu")


class Double(Images):
    """Images whose batches are float64."""

    def gather(self, rows: Tensor) -> Batch:
        return super().gather(rows)._replace(x=self.pixels.index_select(0, rows) / 255)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """Everything in float64, where equal means equal, and small; two batches are an epoch."""
    for module in (adversarial, characters, free_rows):
        monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(characters, "LENGTH", 10)
    images = Setting(CPU, count=16).images()
    torch.set_default_dtype(torch.float64)
    yield Setting(CPU, count=16, split=Double(images.pixels, None, images.index))
    torch.set_default_dtype(torch.float32)


def trained(contender: Contender, *, steps: int) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of the first steps, and the weights after them; the noise is the same for everyone."""
    torch.manual_seed(1)
    with contender.around():
        losses = [float(contender.step()) for _ in range(steps)]
    return losses, {name: value.detach() for name, value in contender.modules.named_parameters()}


def assert_same(ours: Contender, theirs: Contender, *, steps: int = 2) -> None:
    (losses, weights), (other_losses, others) = trained(ours, steps=steps), trained(theirs, steps=steps)
    assert losses[1] != pytest.approx(losses[0], rel=1e-9)
    assert other_losses[0] == pytest.approx(losses[0], rel=1e-11)
    assert other_losses == pytest.approx(losses, rel=1e-9)
    assert set(others) <= set(weights)
    assert others
    for name, value in others.items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-9)


HOW = {"batch": 8, "betas": (0.9, 0.9)}
MLP = partial(vae._mlp, hidden=(20, 20), latents=3)


@pytest.mark.parametrize("pair", [vae._conv, MLP])
def test_a_vae_by_hand_is_the_toolkits(pair: vae.Pair, setting: Setting) -> None:
    assert_same(vae.ours(setting, pair, **HOW), vae.by_hand(setting, pair, **HOW))


@pytest.mark.parametrize("pair", [vae._conv, MLP])
def test_a_vae_of_stock_pyro_is_the_toolkits(pair: vae.Pair, setting: Setting) -> None:
    assert_same(vae.ours(setting, pair, **HOW), vae.stock(setting, pair, validate=True, **HOW))


def test_a_vae_of_pythae_is_the_toolkits(setting: Setting) -> None:
    pytest.importorskip("pythae")
    assert_same(vae.ours(setting, MLP, **HOW), pythae_vae(setting, MLP, **HOW))


def test_a_vae_of_numpyro_is_the_toolkits_but_for_its_noise() -> None:
    pytest.importorskip("numpyro")
    setting = Setting(CPU, count=128)
    how = HOW | {"batch": 128}  # an epoch is a step
    losses, _ = trained(vae.ours(setting, MLP, **how), steps=60)
    theirs = numpyro_vae(setting, MLP, **how)
    assert theirs.units == 128
    found = [float(theirs.step()) for _ in range(60)]
    assert found[0] == pytest.approx(losses[0], abs=0.5)
    assert found == pytest.approx(losses, rel=2e-2)
    assert losses[-1] < 0.8 * losses[0]


def test_the_importance_weighted_bound_is_the_same(setting: Setting) -> None:
    plain = partial(vae.ours, setting, MLP, objective=IWAE(5, gradient="plain"), **HOW)
    assert_same(plain(), vae.by_hand(setting, MLP, particles=5, **HOW))
    assert_same(plain(), vae.stock(setting, MLP, particles=5, **HOW))


def test_free_rows_by_hand_are_the_toolkits(setting: Setting) -> None:
    # The third batch visits rows again, with what earlier visits left.
    assert_same(free_rows.ours(setting), free_rows.by_hand(setting), steps=3)


def test_carried_rows_of_stock_pyro_are_the_toolkits(setting: Setting) -> None:
    assert_same(free_rows.ours(setting, carried=True), free_rows.stock(setting, carried=True))


def test_a_dense_table_is_the_toolkits_until_momentum_moves_other_rows(setting: Setting) -> None:
    ((loss,), weights), ((theirs,), others) = (
        trained(make(setting), steps=1) for make in (free_rows.ours, free_rows.stock)
    )
    assert theirs == pytest.approx(loss, rel=1e-9)
    for name, value in others.items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-9)


def test_more_rows_than_images(setting: Setting) -> None:
    workload = free_rows.free_rows(setting, rows=1000)
    for make in workload.contenders.values():
        assert make()(1) == workload.size


@pytest.mark.parametrize("how", [{}, {"critic_steps": 2, "wasserstein": True}])
def test_adversarial_steps_by_hand_are_the_toolkits(how: dict[str, bool], setting: Setting) -> None:
    assert_same(adversarial.ours(setting, **how), adversarial.by_hand(setting, **how))


def test_characters_are_read_alike_and_across_epochs(setting: Setting) -> None:
    how = {"hidden": 12, "dropout": 0.3}
    assert_same(characters.ours(setting, **how), characters.by_hand(setting, **how), steps=6)
    assert_same(characters.ours(setting, clip=None, **how), characters.stock(setting, **how))


def test_importance_weights_of_a_loop_are_the_toolkits() -> None:
    workload = WORKLOADS["importance"](Setting(CPU, count=3))
    makes = [workload.contenders[name] for name in ("toolkit", "a loop over images")]
    ours, theirs = (
        make.func(*make.args, **make.keywords | {"samples": 500} | more)
        for make, more in zip(makes, ({"images": 3}, {}), strict=True)
    )
    assert sum(theirs.step() for _ in range(3)) / 3 == pytest.approx(float(ours.step()), abs=2)


def test_turns_of_stock_pyro_continue_and_leave_nothing_behind(setting: Setting) -> None:
    makes: list[Callable[[], Contender]] = [
        partial(vae.stock, setting, MLP, **HOW),
        partial(free_rows.stock, setting, carried=True),
    ]
    for make in makes:
        _, at_once = trained(make(), steps=2)
        contender = make()
        torch.manual_seed(1)
        assert contender(1) == contender.units
        assert not len(pyro.get_param_store())
        contender(1)
        for name, value in contender.modules.named_parameters():
            torch.testing.assert_close(value, at_once[name], rtol=0, atol=0)
    assert torch.distributions.Distribution._validate_args


def test_every_workload_has_the_toolkit_first_and_counts_its_units() -> None:
    for make in WORKLOADS.values():
        workload = make(Setting(CPU, count=5000))
        assert next(iter(workload.contenders)) == "toolkit"
        assert workload.counted in workload.contenders


def test_arithmetic_of_a_dense_pair_is_counted() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(30, 20, bias=False), nn.Linear(20, 10, bias=False)

    pair, x = Pair(), torch.randn(8, 30)

    def step() -> Tensor:
        loss = pair.second(pair.first(x).square()).sum()
        loss.backward()
        return loss

    floor = costs.floor_of(Contender(step, 8, pair), costs.Rates(1e9, 1e9), size=4)
    # Twice the multiplications forwards, and backwards for each weight and for what comes before it but the data.
    assert floor.flops == 4 * 2 * (2 * 30 * 20 + 3 * 20 * 10)
    wide, narrow = 8 * 30 + 30 * 20 + 8 * 20, 8 * 20 + 20 * 10 + 8 * 10
    assert floor.bytes == round(4 * (2 * wide + 3 * narrow + 7 * (30 * 20 + 20 * 10)) / 2)
    assert floor.arithmetic == floor.flops / 1e9


@pytest.mark.skipif(not costs.STATUS.exists(), reason="the system does not say what a process needs")
def test_memory_is_that_of_a_process_of_its_own() -> None:
    rows = 300_000
    found = costs.peak_memory(partial(free_rows.free_rows, rows=rows), "toolkit", Setting(CPU, count=500), steps=1)
    assert 62 * 4 * rows < found < 62 * 4 * rows + 400e6  # 20 parameters, 40 moments, steps and visits


def test_rates_are_of_this_machine() -> None:
    flops, moved = costs.rates_of(CPU, size=128)
    assert flops > 1e8
    assert moved > 1e8
