"""One Adam over two networks is two with its settings; the study of optimisers finds what a row's step size allows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam
from toy_study import answered

from runners.studies import optimisers

Descend = Callable[[str, Tensor], None]


def _pair() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"critic": nn.Linear(3, 1), "generator": nn.Linear(2, 3)}).double()


def _trained(pair: nn.ModuleDict, descend: Descend) -> list[Tensor]:
    """An adversarial alternation of twenty steps: the critic first, then the generator."""
    torch.manual_seed(1)
    for _ in range(20):
        x, z = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
        made = pair["generator"](z)
        descend("critic", (softplus(pair["critic"](made.detach())) + softplus(-pair["critic"](x))).mean())
        descend("generator", softplus(-pair["critic"](pair["generator"](z))).mean())
    return [parameter.detach().clone() for parameter in pair.parameters()]


def test_one_adam_over_two_networks_is_two_with_equal_settings() -> None:
    how = {"lr": 1e-2, "betas": (0.5, 0.9)}
    pair = _pair()
    two = {name: Adam(network.parameters(), **how) for name, network in pair.items()}

    def by_its_own(name: str, loss: Tensor) -> None:
        two[name].zero_grad()
        loss.backward(inputs=list(pair[name].parameters()))
        two[name].step()

    expected = _trained(pair, by_its_own)
    for absent in (True, False):
        pair = _pair()
        one = Adam(pair.parameters(), **how)

        def by_one(name: str, loss: Tensor, pair: nn.ModuleDict = pair, one: Adam = one, absent: bool = absent) -> None:
            one.zero_grad(set_to_none=absent)
            loss.backward(inputs=list(pair[name].parameters()))
            one.step()

        same = [torch.equal(*both) for both in zip(_trained(pair, by_one), expected, strict=True)]
        # A gradient of 0 is not none: the other network would go on by its momentum, and its moments would fade. In
        # the first update, the critic's, the generator has no gradient yet, whatever zero_grad leaves.
        assert all(same) if absent else not any(same)


def test_one_optimiser_hardly_moves_rows_and_both_systems_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisers, "QUICK_FACTORS", (1.0, 10.0))
    monkeypatch.setattr(optimisers, "ONE_CRITIC", optimisers.ONE_GENERATOR)
    data = small.data_set(train=300, test=150)
    found = answered("optimisers", tmp_path, monkeypatch, steps=20, data=data)
    rows = {row["run"]: row for row in found.table}
    assert len(rows) == 7
    assert all(row["frechet_distance"] > 0 for row in rows.values())
    codes = [found.pictures["rows"].axes[2].lines[place].get_ydata()[-1] for place in (0, 1)]
    assert codes[1] < 0.1 * codes[0]


def test_how_far_step_sizes_may_be_from_the_best() -> None:
    said = optimisers._sensitivity(
        {"VAE": [(0.1, 9.0), (1.0, 3.0), (10.0, 5.9)], "GAN": [(0.1, 40.0), (1, 2), (10, 8)]}
    )
    assert "the VAE's distance is within twice its least, 3, at × 1, 10, and at most 3.0 times" in said
    assert "the GAN's distance is within twice its least, 2, at × 1 alone, and at most 20.0 times" in said
    assert "from × 0.1 to × 10, one seed each," in said
