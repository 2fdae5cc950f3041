"""Free variational parameters (S1): ten updates of the batch's rows, then one of the decoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.optim
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn

from guides import ELBO, Free
from ppl_models import VAE, Batch
from runners.contenders.workload import BY_HAND, Contender, Setting, Workload, own_store, plain, shuffled, toolkit
from runners.data import Stream
from runners.devices import placed
from runners.inference import InferenceStep

__all__ = ["by_hand", "free_rows", "ours", "stock", "svi", "table_alone"]

BATCH, LATENTS, INNER = 64, 10, 10
LR, BETAS, FINAL, DECAY = 0.5, (0.7, 0.99), 0.1, 0.7
"""The toolkit's own schedule of the rows' updates, which all contenders follow."""

MOST = 1_000_000
"""Rows of a dense table."""


@dataclass(frozen=True)
class Repeated:
    """So many data, whose images are those of a smaller set over and over: rows are what is measured."""

    pixels: Tensor
    rows: int

    def __len__(self) -> int:
        return self.rows

    def gather(self, rows: Tensor) -> Batch:
        """The batch of these rows."""
        return Batch(self.pixels.index_select(0, rows % len(self.pixels)) / 255, None, rows)

    def batches(self, size: int) -> Stream:
        """Shuffled batches without end."""
        return Stream(self.gather, self.rows, size, device=self.pixels.device)


def svi(setting: Setting) -> Workload:
    """The outer iteration by the toolkit and as it can be written with stock Pyro, on a table and on carried rows."""
    contenders = {
        "toolkit": partial(ours, setting),
        BY_HAND: partial(by_hand, setting),
        "stock Pyro, unchecked, dense table": partial(stock, setting),
        "toolkit, carried": partial(ours, setting, carried=True),
        "stock Pyro, unchecked, carried": partial(stock, setting, carried=True),
    }
    title = f"S1, {INNER} updates of rows and 1 of the decoder, batch {BATCH}, {setting.count:,} rows"
    return Workload(title, "images", BATCH, contenders)


def free_rows(setting: Setting, *, rows: int) -> Workload:
    """The same iteration with so many rows, of which it looks at 64."""
    contenders: dict[str, Callable[[], Contender]] = {
        "toolkit": partial(ours, setting, rows=rows),
        "what its table takes": partial(table_alone, setting, rows=rows),
    }
    notes = [f"Pyro's dense table of {rows:,} rows is left out: one of {MOST:,} takes seconds a step already"]
    if rows <= MOST:
        contenders["stock Pyro, unchecked, dense table"], notes = partial(stock, setting, rows=rows), []
    return Workload(f"S1 with {rows:,} rows, batch {BATCH}", "images", BATCH, contenders, tuple(notes))


def _data(setting: Setting, rows: int | None) -> Repeated:
    pixels = setting.images().pixels
    # Of many rows' images a few thousand are enough.
    return Repeated(pixels[: min(len(pixels), rows or len(pixels))], rows or len(pixels))


def ours(setting: Setting, *, rows: int | None = None, carried: bool = False) -> Contender:
    """The toolkit: rows are gathered, refined and scattered back, with their moments."""
    data = _data(setting, rows)
    with setting.seeded():
        guide = Free(BATCH if carried else len(data), latents=LATENTS, carried=carried)
        nets = nn.ModuleDict({"model": placed(VAE(latents=LATENTS), setting.device), "guide": guide.to(setting.device)})
    optimizer = torch.optim.Adam(nets["model"].parameters(), lr=1e-3, betas=(0.9, 0.9), fused=True)
    step = InferenceStep(
        nets["model"], nets["guide"], ELBO(), optimizer, autocast=setting.autocast, device=setting.device
    )
    return toolkit(step, data.batches(BATCH), nets, units=BATCH, optimizers=[optimizer])


def table_alone(setting: Setting, *, rows: int) -> Contender:
    """All that a table adds to a step: rows, moments and visits are gathered and scattered back."""
    guide, order = Free(rows, latents=LATENTS).to(setting.device), shuffled(rows, BATCH, setting.device)

    def step() -> None:
        batch = Batch(None, None, next(order))
        params, memory = guide.start(batch), guide.memory(batch)
        guide.store(batch, params, memory)

    return Contender(step, BATCH, guide)


def by_hand(setting: Setting) -> Contender:
    """The same in tensors: one table of both parameters, one of each moment."""
    data = _data(setting, None)
    with setting.seeded():
        model = placed(plain(VAE(latents=LATENTS)), setting.device)
    decoder = model.decoder
    # Two parameters of a dimension side by side.
    table = torch.zeros(len(data), 2 * LATENTS, device=setting.device)
    first, second, visits = torch.zeros_like(table), torch.zeros_like(table), torch.zeros_like(table[:, :1])
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3, betas=(0.9, 0.9), fused=True)
    rows, (beta1, beta2) = shuffled(len(data), BATCH, setting.device), BETAS

    def bound(params: Tensor, x: Tensor) -> Tensor:
        loc, log = params.chunk(2, -1)
        z = loc + log.exp() * torch.randn_like(loc)
        with setting.autocast():
            logits = decoder(z).to(x.dtype)
        fit = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return fit + 0.5 * (loc.square() + (2 * log).exp() - 2 * log - 1).sum()

    def step() -> Tensor:
        at = next(rows)
        x = data.gather(at).x
        params, m, v, seen = table[at], first[at], second[at], visits[at]
        for inner in range(INNER):
            params.requires_grad_()
            (grad,) = torch.autograd.grad(bound(params, x), params)
            with torch.no_grad():
                count = seen * INNER + inner + 1
                size = LR * (1 - (1 - FINAL) * inner / (INNER - 1)) * (1 + seen) ** -DECAY
                m, v = torch.lerp(grad, m, beta1), torch.lerp(grad.square(), v, beta2)
                root = (v / (1 - beta2**count)).sqrt() + 1e-8
                params = params - size * m / (1 - beta1**count) / root
        table[at], first[at], second[at], visits[at] = params, m, v, seen + 1
        loss = bound(params, x) / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contender(step, BATCH, nn.ModuleDict({"model": model}))


class StockSVI(nn.Module):
    """A model and a guide with parameters for each datum, or for each place in the batch, in the parameter store."""

    def __init__(self, decoder: nn.Module, rows: int | None, setting: Setting) -> None:
        super().__init__()
        self.decoder, self.rows, self.autocast = decoder, rows, setting.autocast

    def plate(self, x: Tensor, at: Tensor) -> pyro.plate:
        """All data, of which these are looked at, or the batch."""
        return pyro.plate("data", len(x)) if self.rows is None else pyro.plate("data", self.rows, subsample=at)

    def model(self, x: Tensor, at: Tensor) -> None:
        """The prior and the likelihood."""
        with self.plate(x, at):
            prior = dist.Normal(x.new_zeros(LATENTS), x.new_ones(LATENTS)).to_event(1)
            z = pyro.sample("latent", prior.expand([len(x)]))
            with self.autocast():
                logits = self.decoder(z).to(x.dtype).flatten(1)
            pyro.sample("obs", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x.flatten(1))

    def trained_model(self, x: Tensor, at: Tensor) -> None:
        """The same, its decoder in the parameter store."""
        pyro.module("decoder", self.decoder)
        self.model(x, at)

    def guide(self, x: Tensor, at: Tensor) -> None:
        """The rows of the batch."""
        loc, log = self.params(x, at)
        with self.plate(x, at):
            pyro.sample("latent", dist.Normal(loc, log.exp()).to_event(1))

    def frozen_guide(self, x: Tensor, at: Tensor) -> None:
        """The same, untrained."""
        with poutine.block(hide_types=["param"]):
            loc, log = (value.detach() for value in self.params(x, at))
        with self.plate(x, at):
            pyro.sample("latent", dist.Normal(loc, log.exp()).to_event(1))

    def params(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log scales."""
        start = partial(x.new_zeros, (self.rows or len(x), LATENTS))
        loc, log = pyro.param("loc", start), pyro.param("log_scale", start)
        return (loc, log) if self.rows is None else (loc[at], log[at])


def stock(setting: Setting, *, rows: int | None = None, carried: bool = False) -> Contender:
    """Two `SVI`s that take turns on one parameter store, the decoder without gradients in the first.

    The table is a parameter whose gradient is dense, and Adam goes through all of it at each update, moving rows that
    are not in the batch by their momentum. Step sizes fall within a visit; carried rows are all visited each time, so
    that they fall with the visits as well, as the toolkit's do. Adam's eps is as many times as large as losses are
    above means.
    """
    data = _data(setting, rows)
    with setting.seeded():
        model = plain(VAE(latents=LATENTS)).to(setting.device)
    pair = StockSVI(model.decoder, None if carried else len(data), setting)
    total = BATCH if carried else len(data)  # what losses are sums over
    inner_adam = pyro.optim.Adam({"lr": LR, "betas": BETAS, "eps": 1e-8 * total / BATCH})
    outer_adam = pyro.optim.Adam({"lr": 1e-3, "betas": (0.9, 0.9), "eps": 1e-8 * total})
    inner = SVI(pair.model, pair.guide, inner_adam, TraceMeanField_ELBO())
    outer = SVI(pair.trained_model, pair.frozen_guide, outer_adam, TraceMeanField_ELBO())
    order, visits = shuffled(len(data), BATCH, setting.device), [0]

    def step() -> float:
        at = next(order)
        x = data.gather(at).x
        model.decoder.requires_grad_(False)
        for update in range(INNER):
            within = 1 - (1 - FINAL) * update / (INNER - 1)
            size = LR * within * ((1 + visits[0]) ** -DECAY if carried else 1)
            inner_adam.pt_optim_args["lr"] = size
            for optimizer in inner_adam.optim_objs.values():
                optimizer.param_groups[0]["lr"] = size
            inner.step(x, at)
        model.decoder.requires_grad_(True)
        visits[0] += 1
        return outer.step(x, at) / total

    return Contender(step, BATCH, nn.ModuleDict({"model": model}), around=own_store())
