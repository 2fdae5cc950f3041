"""Texts: their batches, the model's training on them, what it reads and writes, and the command."""

import hashlib
import json
import math
import os
import signal
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from guides import CosineSchedule
from ppl_models import Batch, CharGRU, UsageError
from runners import figures, text
from runners.data import DataSet, Text, corpus
from runners.loop.history import History
from runners.metrics.ngrams import ngram_surprise
from runners.reading import surprise
from runners.tempering import tempered
from runners.text import main
from runners.text_fit import TextFit
from runners.text_options import DEFAULTS, PRESETS, corpus_of
from runners.text_step import TextStep
from runners.text_summary import baselines, words
from runners.writing import write

LINES = "".join(f"{n} men went to mow, went to mow a meadow;\n" for n in range(60))


def text_of(characters: str, *, length: int = 4, order: str = "carried") -> Text:
    alphabet = "".join(sorted(set(characters)))
    codes = torch.tensor([alphabet.index(character) for character in characters], dtype=torch.int32)
    return Text(codes, alphabet, length=length, order=order)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mow.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


@pytest.mark.parametrize(("length", "size"), [(4, 3), (7, 1), (5, 10)])
def test_batches_put_together_are_the_text(length: int, size: int) -> None:
    whole = text_of(LINES, length=length)
    stream = whole.batches(size)
    batches = [next(stream) for _ in range(stream.steps_per_epoch)]
    row = (len(LINES) - 1) // size
    for k in range(size):
        codes = [batches[0].x[k, :1], *(batch.x[k, 1:] for batch in batches)]
        read = "".join(whole.alphabet[code] for code in torch.cat(codes).tolist())
        assert read == LINES[k * row : k * row + len(read)]
        assert row - length < len(read) - 1 <= row
    for before, after in pairwise(batches):
        assert torch.equal(before.x[:, -1], after.x[:, 0])
    assert torch.cat([batch.index for batch in batches]).unique().numel() == size * stream.steps_per_epoch


def test_the_state_is_carried_to_the_end_of_the_epoch() -> None:
    stream, state = text_of(LINES).batches(100), torch.ones(100, 1, 2)
    for epoch in range(2):
        for step in range(stream.steps_per_epoch):
            batch = next(stream)
            assert (batch.state is None) == (step == 0)
            assert stream.epoch == epoch
            stream.carry(state)
    for order in ("reset", "shuffled"):
        stream = text_of(LINES, order=order).batches(100)
        for _ in range(stream.steps_per_epoch):
            assert next(stream).state is None
            stream.carry(state)


def test_shuffled_sequences_are_those_of_the_text() -> None:
    whole = text_of(LINES, order="shuffled")
    stream = whole.batches(7)
    found = [next(stream) for _ in range(stream.steps_per_epoch)]
    index, order = torch.cat([batch.index for batch in found]).sort()
    assert not torch.equal(order, torch.arange(len(order)))
    in_order = text_of(LINES).batches(7)
    expected = torch.cat([next(in_order).x for _ in range(in_order.steps_per_epoch)])
    assert torch.equal(torch.cat([batch.x for batch in found])[order], expected)
    assert index.tolist() == list(range(len(expected)))


def test_a_text_that_is_too_short_is_refused() -> None:
    for characters in (LINES, "a", ""):
        with pytest.raises(UsageError, match="64 sequences of 50 characters"):
            text_of(characters, length=50).batches(64)


def test_corpus_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"\xef\xbb\xbf" + ("ab\r\n" * 50 + "é#").encode())
    data = corpus(path, rare=2)
    assert data.train.read() + data.test.read() == "ab\n" * 50
    assert (len(data.train), len(data.test)) == (135, 15)
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "text: mixed, 150 characters of 3, without '#' 1, 'é' 1, 2 in all"
    assert corpus(path, drop="b#é").train.alphabet == "\na"
    assert data.train.alphabet == data.test.alphabet == "\nab"


def test_the_interleaved_split_takes_the_end_of_each_of_fifty_pieces(tmp_path: Path) -> None:
    path = tmp_path / "count.txt"
    path.write_text("".join(chr(48 + n % 70) for n in range(2011)))
    data, whole = corpus(path, split="interleaved"), path.read_text()
    pieces = [whole[start : start + 40] for start in range(0, 2000, 40)]
    assert data.train.read() == "".join(piece[:38] for piece in pieces)
    assert data.test.read() == "".join(piece[38:] for piece in pieces)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"abc\xff" * 50, "byte 0xff at 3"),
        (b"ab", "expected 100 or more"),
        (b"", "expected 100"),
    ],
)
def test_files_that_are_no_text_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        corpus(path)


def test_without_a_file_or_a_network_it_is_pythons_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def download(url: str, folder: str, name: str, md5: str) -> None:
        Path(folder, name).write_text("half a fi")
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    for _ in range(2):
        data = corpus(root=tmp_path)
        assert data.name == "python-help, contiguous split"
        assert len(data.train) > 100_000
        assert "using python-help. tinyshakespeare: not at" in capsys.readouterr().err
        assert not list((tmp_path / "text").iterdir()), "half a file is not left behind"
    file = tmp_path / "text" / "tinyshakespeare.txt"
    file.write_text(LINES)
    with pytest.raises(UsageError, match="another text is at"):
        corpus("tinyshakespeare", root=tmp_path)
    monkeypatch.setattr("runners.data.corpora.MD5", hashlib.md5(LINES.encode()).hexdigest())
    assert corpus(root=tmp_path).name == "tinyshakespeare, contiguous split"


def counted(train: str, context: str, character: str, alphabet: str) -> float:
    """Witten and Bell's probability, by definition and by recursion."""
    shorter = 1 / len(alphabet) if not context else counted(train, context[1:], character, alphabet)
    if not context:
        follows = Counter(train)
    else:
        ends = range(len(context), len(train))
        follows = Counter(train[end] for end in ends if train[end - len(context) : end] == context)
    if not follows:
        return shorter
    return (follows[character] + len(follows) * shorter) / (follows.total() + len(follows))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngrams_are_those_of_witten_and_bell(order: int) -> None:
    train, test = "abracadabra abracab", "cabra dabba c"
    alphabet = "".join(sorted(set(train)))
    codes = [torch.tensor([alphabet.index(c) for c in characters]) for characters in (train, test)]
    found = ngram_surprise(*codes, characters=len(alphabet), order=order)
    for place, character in enumerate(test):
        context = test[max(place - order + 1, 0) : place]
        assert float(found[place]) == pytest.approx(-math.log(counted(train, context, character, alphabet)), abs=1e-12)
    rare = ngram_surprise(codes[0] * 9000, codes[1] * 9000, characters=10**6, order=9)
    assert rare.isfinite().all(), "as of Chinese"
    every = torch.tensor([[codes[1][0], codes[1][1], code] for code in range(len(alphabet))])
    last = torch.stack([ngram_surprise(codes[0], row, characters=len(alphabet), order=3)[-1] for row in every])
    assert float((-last).exp().sum()) == pytest.approx(1)


def test_the_five_gram_of_tiny_shakespeare() -> None:
    """The published baseline, where the text is at hand."""
    file = Path(os.environ.get("PPL_DATA") or "data") / "text" / "tinyshakespeare.txt"
    if not file.exists():
        pytest.skip("no tiny Shakespeare here")
    found = baselines(corpus(file))
    assert found["5-gram"] == pytest.approx(1.669, abs=5e-4)
    assert found["unigram"] == pytest.approx(3.347, abs=5e-4)


def model_of(data: Text, **settings: Any) -> CharGRU:
    return CharGRU(data.alphabet, **({"hidden": 8, "layers": 2} | settings))


def test_surprise_is_minus_the_programs_log_density() -> None:
    whole = text_of(LINES[:200])
    model = model_of(whole).double().eval()
    found = surprise(model, whole, size=17)
    assert found.shape == (1, 199)
    batch = Batch(whole.codes.long().unsqueeze(0), None, torch.arange(1))
    expected = -poutine.trace(model).get_trace(batch).log_prob_sum()
    torch.testing.assert_close(found.sum(), expected.detach())
    rows = surprise(model, whole, rows=4, size=17)
    assert rows.shape == (4, 49)
    part = replace(whole, codes=whole.codes[100:150])
    torch.testing.assert_close(rows[2], surprise(model, part).flatten())


def by_hand(model: CharGRU, batches: list[Tensor], *, lr: float, clip: float) -> list[Tensor]:
    """The same training in plain torch: cross-entropy, its gradient cut at the beginning of each batch."""
    adam, state, losses = torch.optim.Adam(model.parameters(), lr=lr), None, []
    for n, x in enumerate(batches):
        adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * n / len(batches))) / 2
        logits, state = model.logits(x[:, :-1], state)
        state = state.detach()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        adam.step()
        losses.append(loss.detach())
    return losses


def test_training_is_that_of_plain_torch() -> None:
    data = small_corpus()
    ours, theirs = (model_of(data.train).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    stream = data.train.batches(10)
    batches = [next(stream).x for _ in range(4)]
    losses = by_hand(theirs, batches, lr=0.01, clip=0.1)
    made = TextFit(
        ours,
        data,
        steps=4,
        batch=10,
        every=2,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        schedule=CosineSchedule(),
        clip=0.1,
        progress=False,
    ).run()
    for (name, value), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)
    assert made.history.rows[0]["nats_per_character"] == pytest.approx(float(torch.stack(losses[:2]).mean()))


def small_corpus(**settings: Any) -> DataSet:
    return DataSet("mow", text_of(LINES[:1500], **settings), None, text_of(LINES[:1500], **settings))


def test_tempered_distributions() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    p = logits.softmax(-1)
    torch.testing.assert_close(tempered(logits).exp(), p)
    torch.testing.assert_close(tempered(logits, temperature=0.5).exp(), p**2 / (p**2).sum(-1, keepdim=True))
    assert torch.equal(tempered(logits, temperature=0).argmax(-1), logits.argmax(-1))
    assert tempered(logits, temperature=0).exp().max(-1).values.tolist() == [1, 1, 1]
    two = tempered(logits, top_k=2).exp()
    assert ((two > 0).sum(-1) == 2).all()
    torch.testing.assert_close(two, two.sign() * p / (two.sign() * p).sum(-1, keepdim=True))
    assert torch.equal(tempered(logits, temperature=1e-40), tempered(logits, temperature=0))
    for wrong in ({"temperature": -1}, {"temperature": math.nan}, {"top_k": 0}):
        with pytest.raises(UsageError):
            tempered(logits, **wrong)


def test_what_is_written_is_drawn_from_the_model_with_its_state() -> None:
    """Each character's distribution is that of all before it, read in one."""
    whole = text_of(LINES[:300])
    model = model_of(whole).double().eval()
    codes, log_probs = zip(*write(model, 12, prompt="men", rows=2, temperature=0.7, seed=3), strict=True)
    drawn = torch.stack(codes, 1)
    x = torch.cat([model.codes_of("men").expand(2, -1), drawn], 1)
    logits, _ = model.logits(x[:, :-1])
    torch.testing.assert_close(torch.stack(log_probs, 1), (logits[:, 2:] / 0.7).log_softmax(-1).detach())
    again, _ = zip(*write(model, 12, prompt="men", rows=2, temperature=0.7, seed=3), strict=True)
    assert torch.equal(torch.stack(again, 1), drawn)
    for prompt in ("", "@"):
        with pytest.raises(UsageError):
            next(write(model, 1, prompt=prompt))


def test_frequencies_are_the_models() -> None:
    whole = text_of(LINES[:300])
    model = model_of(whole).double().eval()
    codes, log_probs = next(write(model, 1, prompt="m", rows=20_000, temperature=2.0))
    found = codes.bincount(minlength=len(whole.alphabet)) / len(codes)
    expected = log_probs[0].exp()
    assert ((found - expected).abs() < 5 * (expected / len(codes)).sqrt() + 1e-9).all()


def test_words() -> None:
    assert words("He's gone:\n'Go!' 12 go—_on, naïve") == ["he's", "gone", "go", "go", "on", "naïve"]


def test_pictures() -> None:
    shown = figures.surprise("a line\n\nand $x_1$ another " + "w" * 100, torch.rand(126) * 8)
    assert len([text for text in shown.axes[0].texts if text.get_text() == "↵"]) == 2
    rows = [
        {"temperature": t, "entropy": t, "known_words": 1 - t / 3, "text": "Some\ntext $5 " * 9} for t in (0.5, 1, 2)
    ]
    assert [axes.get_title(loc="left") for axes in figures.temperatures(rows).subfigs[1].axes] == [
        "temperature 0.5",
        "temperature 1",
        "temperature 2",
    ]


TINY = ["--hidden", "8", "--length", "10", "--batch", "4", "--steps", "12"]


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def test_the_command(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    run = main(["--text", str(file), *TINY, "--layers", "2", "--reset-gate", "before", "--out", str(out)])
    assert isinstance(run, TextFit)
    for name in ("report.html", "curves.png", "temperatures.png", "surprise.png", "texts.txt"):
        assert (out / name).stat().st_size > 0
    found = json.loads((out / "result.json").read_text())
    with run.aside():
        batch = Batch(run.data.test.codes.long().unsqueeze(0), None, torch.arange(1))
        total = poutine.trace(run.model).get_trace(batch).log_prob_sum()
    assert found["test"]["characters"] == len(run.data.test) - 1
    assert found["test"]["nats_per_character"] == pytest.approx(-float(total) / (len(run.data.test) - 1), rel=1e-5)
    assert found["data"] == "mow, contiguous split"
    assert found["test"]["bits_per_character"] == pytest.approx(found["test"]["nats_per_character"] / math.log(2))
    assert found["baselines"]["uniform"] == pytest.approx(math.log(len(run.model.alphabet)))
    capsys.readouterr()
    line = ["--write", str(out), "--prompt", "1 men", "--characters", "30", "--temperature", "0.5", "--seed", "4"]
    main([*line, "--top-k", "1"])
    logits, _ = run.trained().logits(run.model.codes_of("1 men").unsqueeze(0))
    assert capsys.readouterr().out[5] == run.model.alphabet[int(logits[0, -1].argmax())]
    file.rename(file.with_name("elsewhere.txt"))  # what writes needs no text
    main(line)
    wrote = capsys.readouterr().out
    assert wrote == "1 men" + run.write(30, which="best", prompt="1 men", temperature=0.5, seed=4) + "\n"
    assert main(["--write", str(out), "--characters", "1"]).alphabet == run.model.alphabet
    with pytest.raises(UsageError, match="No such file"):
        text.load(out)
    file.with_name("elsewhere.txt").rename(file)
    again = text.load(out)
    assert torch.equal(again.surprise(which="best"), run.surprise(which="best"))


@pytest.mark.parametrize("order", ["carried", "shuffled"])
def test_a_run_that_is_cut_in_mid_epoch_ends_as_an_uncut_one(
    order: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    line = ["--text", str(file), *TINY, "--dropout", "0.3", "--order", order]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*line, "--out", str(whole)])
    record = History.record

    def record_and_stop(history: History, scalars: dict[str, Tensor]) -> None:
        record(history, scalars)
        if history.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(History, "record", record_and_stop)
        with pytest.raises(SystemExit) as ended:
            main([*line, "--out", str(cut)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert f"python runners/text.py --resume --out {cut}" in capsys.readouterr().err
    main([*line, "--resume", "--out", str(cut)])
    ours, theirs = weights(cut), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    parts = [torch.load(folder / "checkpoint.pt", weights_only=True)["stream"] for folder in (cut, whole)]
    assert parts[0]["position"] == parts[1]["position"]
    if order == "carried":
        assert torch.equal(parts[0]["state"], parts[1]["state"])
    else:
        assert parts[0]["state"] is None
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (whole, cut))
    assert first | {"seconds": 0} == second | {"seconds": 0}


def test_a_short_text_is_learned_by_heart(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = ["--text", str(file), "--preset", "recite", "--recite", "42", "--hidden", "64", "--length", "21"]
    main([*line, "--steps", "600", "--out", str(tmp_path / "by-heart")])
    assert "recites 43 of 43 characters" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*line, "--steps", "2", "--out", str(tmp_path / "not-yet")])
    assert ended.value.code == 1
    assert "of 43 characters" in capsys.readouterr().out


@pytest.mark.parametrize("count", [2, 60, 500, 2258])
def test_what_is_to_be_recited_is_read_whole(count: int, file: Path) -> None:
    given = DEFAULTS | PRESETS["recite"] | {"text": file, "recite": count}
    passage = corpus_of(given).train
    stream = passage.batches(1)
    assert len(passage) >= min(count, 2201)
    assert 1 + stream.steps_per_epoch * passage.length == len(passage)


def test_a_run_on_what_could_be_had_stays_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Also after the other text has come."""
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda *_: 1 / 0)
    monkeypatch.setattr("runners.data.corpora.UNREACHABLE", ZeroDivisionError)
    root = ["--data-root", str(tmp_path)]
    main([*TINY, *root, "--recite", "50", "--length", "7", "--batch", "1", "--quick", "--out", str(tmp_path / "run")])
    (tmp_path / "text" / "tinyshakespeare.txt").write_text(LINES)
    monkeypatch.setattr("runners.data.corpora.MD5", hashlib.md5(LINES.encode()).hexdigest())
    main(["--resume", *root, "--out", str(tmp_path / "run")])
    assert text.load(tmp_path / "run").data.name.startswith("python-help")


class Own(nn.Module):
    """A model that is none of the toolkit's: characters by themselves, or what is wrong with it."""

    def __init__(self, alphabet: str, wrong: str) -> None:
        super().__init__()
        self.alphabet, self.wrong = alphabet, wrong
        self.logits = nn.Parameter(torch.zeros(len(alphabet)))

    def forward(self, batch: Batch) -> Tensor | None:
        with pyro.plate("data", len(batch.index)):
            if self.wrong == "latents":
                pyro.sample("z", dist.Normal(0.0, 1.0))
            if self.wrong != "nothing":
                each = dist.Categorical(logits=self.logits).expand([batch.x.shape[1] - 1])
                pyro.sample("x", each.to_event(1), obs=batch.x[:, 1:])
        return None if self.wrong == "state" else self.logits.expand(len(batch.index), -1)


@pytest.mark.parametrize(
    ("wrong", "message"), [("latents", "samples z"), ("nothing", "samples nothing"), ("state", "returns no state")]
)
def test_models_that_do_not_fit_are_refused(wrong: str, message: str, tmp_path: Path) -> None:
    data = small_corpus()
    with pytest.raises(UsageError, match=message):
        text.fit(Own(data.train.alphabet, wrong), data, steps=1, batch=5, out=tmp_path / "run", progress=False)
    with pytest.raises(UsageError, match="alphabet"):
        TextFit(CharGRU("ab"), data)
    with pytest.raises(UsageError, match="clip: found -1"):
        TextFit(model_of(data.train), data, clip=-1)
    assert not (tmp_path / "run").exists()


def test_surprise_of_any_passage() -> None:
    data = small_corpus()
    fit = text.fit(model_of(data.train), data, steps=2, batch=5, progress=False)
    expected = surprise(fit.trained("best"), text_of(LINES[:1500]).first(40))
    torch.testing.assert_close(fit.surprise(LINES[:40]), expected)
    assert len(fit.show("men went").axes) == 2
    for wrong in ({"text": "@"}, {"rows": 1000}, {"which": "bset"}):
        with pytest.raises(UsageError):
            fit.surprise(**wrong)


def test_a_step_reads_nothing_on_the_host() -> None:
    for reset_after in (True, False):
        model = CharGRU("abc", hidden=4, reset_after=reset_after).to("meta")
        step = TextStep(model, torch.optim.Adam(model.parameters()), clip=1.0, autocast=torch.enable_grad)
        step.validate = False
        step.stream = text_of("abc" * 20).batches(2)
        step(Batch(torch.zeros(2, 5, dtype=torch.long, device="meta"), None, torch.arange(2, device="meta")))


def test_a_short_text_is_looked_at_in_one() -> None:
    """As it is recited: in parts, their beginnings from zeros would decide which model is the best."""
    data = small_corpus()
    fit = text.fit(model_of(data.train), data, steps=2, batch=5, every=1, progress=False)
    assert fit.history.rows[-1]["held_out"] == pytest.approx(float(fit.surprise(which="last").mean()), rel=1e-5)
