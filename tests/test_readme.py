import re
from pathlib import Path

import pytest

from runners import data

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block, one after the other in one session, with few steps on a few drawn digits."""
    digits = data.drawn_digits(train=400, test=40)
    monkeypatch.setattr(data, "mnist", lambda: digits)
    monkeypatch.setattr(data, "load", lambda name, **options: digits)
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(re.sub(r"\b(2_000|500)\b", "3", block), session)
    assert session["free"].model is session["vae"].model
    assert session["mine"].history.step == 3
    assert (tmp_path / "runs" / "vae" / "checkpoint.pt").exists()


def test_readme_has_no_placeholder_and_is_short() -> None:
    assert not re.search(r"@[A-Z]+@", README)
    assert len(README.splitlines()) <= 250


def test_readmes_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[1] / path).exists(), path
