"""Every preset trains a step at its own settings, on small data of the right shape, and is named in the help."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import small
import torch
from torch import nn

from ppl_models import CharGRU, glorot_
from runners import gan, gan_options, presets, svi, text, text_options
from runners.data import DataSet
from runners.loop.command import Options
from runners.loop.folder import RunFolder

COMMANDS: dict[ModuleType, ModuleType] = {svi: presets, gan: gan_options, text: text_options}
NAMES = [(command, name) for command, options in COMMANDS.items() for name in options.PRESETS]
ONE_STEP = {"steps": 1, "epochs": None, "seed": 1, "device": "cpu", "pictures": 0, "selection": 0}


@pytest.fixture(scope="module")
def data() -> DataSet:
    return small.large_data_set(train=400)


def options_of(command: ModuleType, name: str, **changes: object) -> Options:
    return command.DEFAULTS | command.PRESETS[name] | {"preset": name} | changes


@pytest.mark.parametrize(("command", "name"), NAMES, ids=[f"{c.__name__.split('.')[1]} {n}" for c, n in NAMES])
def test_a_preset_trains_a_step(command: ModuleType, name: str, data: DataSet, tmp_path: Path) -> None:
    if command is text:
        (tmp_path / "ab.txt").write_text("abcd, dcba.\n" * 500)
        options, given = options_of(text, name, **ONE_STEP, text=str(tmp_path / "ab.txt"), hidden=32), {}
    else:
        options, given = options_of(command, name, **ONE_STEP), {"data": data}
    fit = command.build(options, RunFolder(tmp_path / "run"), **given)
    before = {piece: small.weights(net) for piece, net in fit.pieces.items() if isinstance(net, nn.Module)}
    fit.run()
    assert fit.history.step == 1
    assert any(small.changed(fit.pieces[piece], weights) for piece, weights in before.items())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.split(".")[1])
def test_every_preset_is_in_the_help(command: ModuleType) -> None:
    names = COMMANDS[command].PRESETS
    said = re.findall(r"[\w-]+", COMMANDS[command].PRESET_HELP)
    assert set(names) <= set(said)
    # And no other that looks like one.
    assert {word for word in said if re.fullmatch(r"s\d+(-\w+)?", word)} <= set(names)


def starts(net: nn.Module) -> list[nn.Module]:
    return [layer for layer in net.modules() if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.GRU))]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((svi, name) for name in ("s1-course", "s2", "s3", "s4", "s5", "s6", "s7", "s8-course")),
        *((gan, name) for name in ("s12", "s12-saturating", "s13", "s14-mlp", "s14-mixed", "s17")),
        (text, "s18-course"),
    ],
)
def test_as_in_the_courses_biases_start_at_zero(command: ModuleType, name: str, data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "ab.txt").write_text("abcd, dcba.\n" * 500)
    options = options_of(command, name, **ONE_STEP, **({"text": str(tmp_path / "ab.txt")} if command is text else {}))
    fit = command.build(options, RunFolder(tmp_path / "run"), **({} if command is text else {"data": data}))
    layers = [layer for net in fit.pieces.values() if isinstance(net, nn.Module) for layer in starts(net)]
    assert layers
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            assert parameter.dim() > 1 or not parameter.any()


@pytest.mark.parametrize("reset_after", [True, False])
def test_each_gate_starts_as_a_layer_of_its_own(*, reset_after: bool) -> None:
    """Glorot's bound is that of one gate, whichever are computed together."""
    hidden, inputs = 200, 20
    model = glorot_(
        CharGRU("".join(map(chr, range(65, 65 + inputs))), hidden=hidden, layers=1, reset_after=reset_after)
    )
    matrices = [weight for weight in model.gru.parameters() if weight.dim() == 2]
    gates = torch.cat([weight for weight in matrices if weight.shape[1] == inputs])
    states = torch.cat([weight for weight in matrices if weight.shape[1] == hidden])
    assert len(gates) == len(states) == 3 * hidden
    for weight, fan_in in ((gates, inputs), (states, hidden)):
        for gate in weight.detach().chunk(3):
            assert float(gate.abs().max()) == pytest.approx((6 / (fan_in + hidden)) ** 0.5, rel=0.01)
    assert all(not bias.any() for bias in model.gru.parameters() if bias.dim() == 1)
