"""A step of a character GRU, S18: the toolkit, torch by hand, stock Pyro."""

from functools import partial

import pyro
import pyro.distributions as dist
import pyro.optim
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from ppl_models import CharGRU
from runners.contenders.workload import BY_HAND, Contender, Setting, Workload, own_store, toolkit
from runners.data import Text
from runners.devices import placed
from runners.text_step import TextStep

__all__ = ["by_hand", "characters", "ours", "stock"]

ALPHABET = "".join(map(chr, range(32, 97)))
"""As many characters as in tiny Shakespeare."""

BATCH, LENGTH, CLIP = 64, 64, 1.0
ADAM = {"lr": 3e-3}


def characters(setting: Setting, *, hidden: int = 512, dropout: float = 0.3) -> Workload:
    """S18's own model on any text, the state carried from batch to batch."""
    how = {"hidden": hidden, "dropout": dropout}
    contenders = {
        "toolkit": partial(ours, setting, **how),
        BY_HAND: partial(by_hand, setting, **how),
        "stock Pyro": partial(stock, setting, validate=True, **how),
        "stock Pyro, unchecked": partial(stock, setting, **how),
    }
    title = f"character GRU (S18), {hidden} units, {BATCH} sequences of {LENGTH}"
    return Workload(title, "characters", BATCH * LENGTH, contenders)


def _text(setting: Setting) -> Text:
    with setting.seeded():
        codes = torch.randint(len(ALPHABET), (20 * setting.count,), dtype=torch.int32)
    return Text(codes.to(setting.device), ALPHABET, length=LENGTH)


def _model(setting: Setting, *, hidden: int, dropout: float) -> CharGRU:
    with setting.seeded():
        return placed(CharGRU(ALPHABET, hidden=hidden, layers=1, dropout=dropout), setting.device)


def ours(setting: Setting, *, hidden: int, dropout: float, clip: float | None = CLIP) -> Contender:
    """The toolkit."""
    model = _model(setting, hidden=hidden, dropout=dropout)
    optimizer = torch.optim.Adam(model.parameters(), **ADAM, fused=True)
    step = TextStep(model, optimizer, clip=clip, autocast=setting.autocast)
    step.stream = _text(setting).batches(BATCH)
    # Never as a graph: the stream keeps the state in Python.
    how = {"units": BATCH * LENGTH, "loss": "nats_per_character", "optimizers": [optimizer], "graph": False}
    return toolkit(step, step.stream, model, **how)


def by_hand(setting: Setting, *, hidden: int, dropout: float) -> Contender:
    """A GRU of torch's, cross-entropy of the logits, the text read in rows side by side."""
    model = _model(setting, hidden=hidden, dropout=dropout)
    (gru,), head = model.gru.cells, model.head
    optimizer = torch.optim.Adam(model.parameters(), **ADAM, fused=True)
    reader = _Reader(_text(setting).codes)

    def step() -> Tensor:
        x, state = reader.read()
        with setting.autocast():
            read = F.one_hot(x[:, :-1], len(ALPHABET)).to(head.weight.dtype)
            # As in the toolkit: cuDNN knows no bf16 under autocast.
            with torch.autocast("cuda", enabled=False):
                outputs, state = gru(read, state)
            logits = head(F.dropout(outputs, dropout)).to(head.weight.dtype)
        loss = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        reader.state = state.detach()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return Contender(step, BATCH * LENGTH, model)


class _Reader:
    """Sequences that continue each other, and the state between them."""

    def __init__(self, codes: Tensor) -> None:
        row = (len(codes) - 1) // BATCH
        self.codes, self.sequences = codes, row // LENGTH
        self.starts = (torch.arange(BATCH, device=codes.device) * row).unsqueeze(-1)
        self.ahead = torch.arange(LENGTH + 1, device=codes.device)
        self.place, self.state = 0, None

    def read(self) -> tuple[Tensor, Tensor | None]:
        """The next sequences `(B, S + 1)`, and the state before them, `None` where the text begins anew."""
        if self.place == self.sequences:
            self.place, self.state = 0, None
        x = self.codes[self.starts + self.place * LENGTH + self.ahead].long()
        self.place += 1
        return x, self.state


class _Stock(nn.Module):
    """The model as a Pyro program without latents; it keeps its state, since `SVI.step` returns a loss alone."""

    def __init__(self, model: CharGRU, setting: Setting) -> None:
        super().__init__()
        self.net, self.autocast, self.after = model, setting.autocast, None

    def model(self, x: Tensor, state: Tensor | None) -> None:
        """Observe the characters after the first."""
        pyro.module("net", self.net)
        (gru,) = self.net.gru.cells
        with self.autocast():
            read = F.one_hot(x[:, :-1], len(ALPHABET)).to(self.net.head.weight.dtype)
            with torch.autocast("cuda", enabled=False):
                outputs, state = gru(read, state)
            logits = self.net.head(F.dropout(outputs, self.net.dropout)).to(self.net.head.weight.dtype)
        self.after = state.detach()
        with pyro.plate("sequences", len(x)):
            pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=x[:, 1:])

    def guide(self, x: Tensor, state: Tensor | None) -> None:
        """Nothing is latent."""


def stock(setting: Setting, *, hidden: int, dropout: float, validate: bool = False) -> Contender:
    """`SVI.step` on a model without latents; no clipping, since Pyro's is of each parameter on its own.

    The loss is a sum over all characters, so that Adam's eps is as many times as large.
    """
    pair = _Stock(_model(setting, hidden=hidden, dropout=dropout), setting)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam(ADAM | {"eps": 1e-8 * BATCH * LENGTH}), Trace_ELBO())
    reader = _Reader(_text(setting).codes)

    def step() -> float:
        loss = svi.step(*reader.read())
        reader.state = pair.after
        return loss / (BATCH * LENGTH)

    return Contender(step, BATCH * LENGTH, pair.net, around=own_store(validate=validate))
