"""Studies at toy size: the real declarations on bars of 8×8 pixels, a few steps each, without the runs' pictures."""

from pathlib import Path
from typing import Any

import pytest
import small

from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.studies.answer import Answer
from runners.study import study
from runners.text_fit import TextFit


def answered(name: str, folder: Path, patch: pytest.MonkeyPatch, *, steps: int | None = 60, **options: Any) -> Answer:
    """The answer of a study, its longest run of so many steps; what else is given goes to all of them."""
    for fit in (Fit, GanFit, TextFit):
        patch.setattr(fit, "final_figures", lambda self, found: {})
    options = {"batch": 20, "data": small.data_set(), "quick": True, "steps": steps} | options
    answer = study(name, out=folder / name, **options)
    assert (folder / name / "report.html").exists()
    assert answer.finding
    assert answer.pictures
    return answer
