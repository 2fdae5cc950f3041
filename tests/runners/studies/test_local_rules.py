"""The study of the rows' rules finds what theory fixes: how far steps of SGD and of Adam can move a row at all."""

from pathlib import Path

import pytest
import torch
from toy_study import answered

from guides import ELBO, SGD, Adam, Diagonal, Free, Refinement, refine
from ppl_models import PPCA, Batch
from runners.studies.local_rules import ADAM, COURSE, ONE


def test_small_steps_hardly_move_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered("local-rules", tmp_path, monkeypatch, steps=30)
    rows = {row["rule"]: row for row in found.table}
    for column in ("moves_on_its_own", "moves_on_adams"):
        assert rows[COURSE][column] < 0.1 * rows[ADAM][column]
        # A first step of Adam is as long as its step size, in every direction.
        assert rows[ONE][column] == pytest.approx(1e-3, rel=1e-2)
    assert rows[COURSE]["training_KL"] < rows[ADAM]["training_KL"]
    assert rows[COURSE]["training_ELBO"] < rows[ADAM]["training_ELBO"]


def test_a_step_of_sgd_is_as_long_as_its_size_and_one_of_adam_whatever_the_gradient() -> None:
    torch.manual_seed(0)
    model = PPCA(torch.randn(5, 2, dtype=torch.float64))
    batch = Batch(torch.randn(4, 5, dtype=torch.float64), None, torch.arange(4))
    guide = Free(4, family=Diagonal(2)).double()

    def mean(rule: SGD | Adam) -> torch.Tensor:
        torch.manual_seed(1)
        how = Refinement(steps=1, rule=rule, decay=0.0)
        with torch.no_grad():
            return refine(model, guide, ELBO(), batch, guide.fresh(batch), refinement=how)[0]["loc"]

    torch.testing.assert_close(mean(SGD(lr=0.05)), 64 * mean(SGD(lr=0.05 / 64)))
    torch.testing.assert_close(mean(Adam(lr=0.3)).abs(), torch.full((4, 2), 0.3, dtype=torch.float64))
