"""The study of sequences: short ones from zeros are dear, and each character is counted once, after those before it."""

from pathlib import Path

import pytest
import torch
from toy_study import answered

from ppl_models import CharGRU
from runners.data import DataSet, Text
from runners.reading import surprise
from runners.studies.sequences import by_sequence
from runners.text_fit import TextFit

LINES = "".join(f"{n} men went to mow, went to mow a meadow;\n" for n in range(150))


def test_each_sequence_is_read_from_zeros() -> None:
    text = Text(torch.randint(0, 3, (41,), dtype=torch.int32), "abc", length=5)
    fit = TextFit(CharGRU("abc", hidden=5).double(), DataSet("abc", text, None, text), steps=0, batch=2, progress=False)
    found = by_sequence(fit, 7)
    assert found.shape == (5, 7)
    x = text.codes.long()
    for sequence in range(5):
        first = 7 * sequence
        for place in range(7):
            logits, _ = fit.trained().logits(x[first : first + place + 1].unsqueeze(0))
            expected = -logits[0, -1].log_softmax(-1)[x[first + place + 1]]
            torch.testing.assert_close(found[sequence, place], expected.detach())
    torch.testing.assert_close(by_sequence(fit, 1000), surprise(fit.trained(), text))


def test_beginnings_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mow.txt").write_text(LINES)
    monkeypatch.setattr("runners.text_summary.LENGTH", 20)
    monkeypatch.setattr("runners.studies.sequences.QUICK_LENGTHS", (3, 24))
    monkeypatch.setattr("runners.studies.sequences.QUICK_CHARACTERS", 240)
    text = str(tmp_path / "mow.txt")
    options = {"data": None, "text": text, "batch": None, "hidden": 32, "lr": 0.01}
    answer = answered("sequences", tmp_path, monkeypatch, steps=100, **options)
    rows = {(row["order"], row["length"]): row for row in answer.table}
    assert len(rows) == 6
    for order in ("carried", "reset", "shuffled"):
        # After 1 to 3 characters of such lines it is often open what comes next, after up to 24 seldom.
        assert rows[order, 3]["from_zeros"] > rows[order, 24]["from_zeros"] + 0.1
    assert rows["carried", 3]["from_zeros"] > rows["carried", 3]["carried"]
    for row in rows.values():
        assert row["carried_se"] > 0
