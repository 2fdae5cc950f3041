"""A user's model and guide from a file of theirs."""

import json
import sys
from pathlib import Path

import pytest
import small

from ppl_models import UsageError
from runners import compare, svi
from runners.assembly import pair_of
from runners.origin import data_of
from runners.own import own
from runners.presets import DEFAULTS

MINE = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from ppl_models import Bernoulli, MLPDecoder, MLPEncoder


class MyVAE(nn.Module):
    def __init__(self, latents, shape):
        super().__init__()
        self.latents = latents
        self.net = MLPDecoder(latents=latents, shape=shape, hidden=(16,))
        self.register_buffer("zero", torch.zeros(latents))

    def forward(self, batch):
        with pyro.plate("data", len(batch.index)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            return pyro.sample("x", self.decode(z, batch.y), obs=batch.x)

    def decode(self, z, y=None):
        return Bernoulli()(self.net(z).to(z.dtype))


class MyGuide(nn.Module):
    def __init__(self, latents):
        super().__init__()
        self.net = nn.Sequential(MLPEncoder(hidden=(16,)), nn.Linear(16, latents))

    def start(self, batch):
        return {"loc": self.net(batch.x)}

    def sample(self, batch, params):
        with pyro.plate("data", len(batch.index)):
            return pyro.sample("z", dist.Normal(params["loc"], 0.1).to_event(1))

    def forward(self, batch):
        return self.sample(batch, self.start(batch))


class Broken:
    def __init__(self):
        raise RuntimeError("no weights today")


number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def common(tmp_path: Path) -> list[str]:
    blobs = small.write_npz(tmp_path / "blobs.npz")
    return ["--data", str(blobs), "--steps", "6", "--batch", "16", "--images", "10", "--latents", "3"]


@pytest.mark.parametrize("guide", ["amortized", "free", "semi-amortized", "own"])
def test_a_model_of_the_users_with_any_guide(mine: Path, common: list[str], tmp_path: Path, guide: str) -> None:
    guide = f"{mine}:MyGuide" if guide == "own" else guide
    common = [part for part in common if part not in ("--latents", "3")] + (
        ["--updates", "2"] if guide == "free" else []
    )
    run = svi.main([*common, "--model", f"{mine}:MyVAE", "--guide", guide, "--out", str(tmp_path / "run")])
    assert run.history.step == 6
    assert type(run.model).__name__ == "MyVAE"
    assert (tmp_path / "run" / "report.html").exists()


def test_a_guide_of_the_users_with_the_toolkits_model_resumes_only_when_named_again(
    mine: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, guide = str(tmp_path / "run"), ["--guide", f"{mine}:MyGuide"]
    svi.main([*common, *guide, "--out", out])
    with pytest.raises(SystemExit) as ended:
        svi.main(["--resume", "--out", out])
    assert ended.value.code == 2
    assert "name it again" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert svi.main(["--resume", "--out", out, "--guide", "my.py:MyGuide"]).history.step == 6
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["guide"] == f"{mine}:MyGuide"


def test_a_file_that_moved_is_taken_where_it_is_named_again(mine: Path, common: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    svi.main([*common, "--guide", f"{mine}:MyGuide", "--out", out])
    moved = tmp_path / "elsewhere" / "my.py"
    moved.parent.mkdir()
    mine.rename(moved)
    assert svi.main(["--resume", "--out", out, "--guide", f"{moved}:MyGuide", "--images", "5"]).history.step == 6
    with pytest.raises(SystemExit):
        svi.main(["--resume", "--out", out, "--guide", f"{moved}:Other"])


def test_runs_of_a_users_model_are_compared_where_it_is_named(
    mine: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pieces = ["--model", f"{mine}:MyVAE", "--guide", f"{mine}:MyGuide"]
    svi.main([*common, *pieces, "--out", str(tmp_path / "a")])
    svi.main([*common, "--guide", "amortized", "--out", str(tmp_path / "b")])
    runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    found = compare.main([*runs, *pieces, "--images", "10"])
    assert list(found.elbo) == ["a", "b"]
    with pytest.raises(SystemExit):
        compare.main([*runs, "--images", "10"])
    assert "names MyVAE, which the toolkit does not make" in capsys.readouterr().err
    assert "±" not in repr(compare.main([*runs, *pieces, "--images", "1"]))


def test_a_run_folder_never_says_which_file_is_imported(mine: Path, common: list[str], tmp_path: Path) -> None:
    """Though one piece is named, the other is not."""
    out = tmp_path / "run"
    svi.main([*common, "--model", f"{mine}:MyVAE", "--guide", f"{mine}:MyGuide", "--out", str(out)])
    evil = tmp_path / "evil.py"
    evil.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + MINE)
    config = json.loads((out / "config.json").read_text())
    config["options"]["guide"] = f"{evil}:MyGuide"
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="names MyGuide, which the toolkit does not make"):
        svi.load(out, model=f"{mine}:MyVAE")
    assert not (tmp_path / "ran").exists()
    assert svi.load(out, model=f"{mine}:MyVAE", guide=f"{mine}:MyGuide").history.step == 6


def test_pieces_of_a_fit_that_was_saved_in_python_may_be_named(mine: Path, tmp_path: Path) -> None:
    data = small.data_set()
    model = own(f"{mine}:MyVAE", latents=10, shape=data.shape)
    fit = svi.fit(model, small.amortized(latents=10), data, steps=2, batch=20, progress=False)
    fit.save(tmp_path / "run")
    again = svi.load(tmp_path / "run", data=data, model=f"{mine}:MyVAE", guide=f"{mine}:MyGuide")
    assert type(again.model).__name__ == "MyVAE"
    assert type(again.guide).__name__ == "Amortized", "the toolkit's own needs no file"


STARTED = """
import torch
from my import MyVAE


class Started(MyVAE):
    def __init__(self, latents, shape):
        super().__init__(latents, shape)
        torch.nn.init.constant_(self.net.body[0].weight, 0.125)
"""


def test_a_file_imports_its_neighbours_and_its_weights_stay(mine: Path, common: list[str], tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(STARTED)
    options = DEFAULTS | {"model": f"{tmp_path / 'user.py'}:Started", "guide": "amortized", "latents": 3}
    model, _ = pair_of(options, data_of(DEFAULTS | {"data": common[1]}))
    assert (model.net.body[0].weight == 0.125).all()
    sys.modules.pop("my")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("absent.py:MyVAE", "no such file"),
        ("my.py:YourVAE", "no YourVAE"),
        ("my.py:number", "no number that can be called"),
        ("my.py:Broken", "RuntimeError: no weights today"),
        ("bad.py:MyVAE", "SyntaxError"),
        ("exits.py:MyVAE", "SystemExit"),
        ("my.py:", "names nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mine: Path, what: str, said: str) -> None:
    (mine.parent / "bad.py").write_text("def")
    (mine.parent / "exits.py").write_text("raise SystemExit(3)")
    with pytest.raises(UsageError, match=said) as error:
        own(str(mine.parent / what))
    assert "\n" not in str(error.value)


def test_options_of_the_toolkits_own_networks_are_refused(mine: Path, common: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        svi.main([*common, "--model", f"{mine}:MyVAE", "--likelihood", "gaussian", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
