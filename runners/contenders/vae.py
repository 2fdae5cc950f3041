"""A VAE's step: the toolkit, torch by hand, stock Pyro, NumPyro and pythae, on the same networks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import torch
import torch.nn.functional as F
from pyro.infer import SVI, RenyiELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from guides import ELBO, IWAE, Amortized
from guides.objectives import Objective
from ppl_models import VAE, MLPDecoder, MLPEncoder, glorot_
from ppl_models.layers import Activation
from runners.contenders.numpyro_vae import numpyro_vae
from runners.contenders.pythae_vae import pythae_vae
from runners.contenders.workload import (
    BY_HAND,
    Contender,
    Setting,
    Workload,
    installed,
    own_store,
    plain,
    shuffled,
    toolkit,
)
from runners.devices import placed
from runners.inference import InferenceStep

__all__ = ["StockVAE", "by_hand", "conv", "iwae", "mlp", "ours", "stock"]

Pair = Callable[[], nn.ModuleDict]
"""Makes a fresh model and guide."""

BETAS = {"conv": (0.9, 0.9), "mlp": (0.9, 0.999)}


def conv(setting: Setting, *, batch: int = 64) -> Workload:
    """The convolutional pair of S2."""
    contenders = _contenders(setting, _conv, batch=batch, betas=BETAS["conv"])
    if setting.precision == "float32":
        half = replace(setting, precision="bf16")
        contenders["toolkit, bf16"] = partial(ours, half, _conv, batch=batch, betas=BETAS["conv"])
    return Workload(f"VAE, convolutional pair (S2), batch {batch}", "images", batch, contenders)


def mlp(setting: Setting, *, hidden: Sequence[int], latents: int, batch: int) -> Workload:
    """A fully connected pair, for which there are NumPyro and pythae as well."""
    pair, betas = partial(_mlp, hidden=hidden, latents=latents), BETAS["mlp"]
    contenders, notes = _contenders(setting, pair, batch=batch, betas=betas), []
    contenders["stock Pyro, DataLoader"] = partial(stock, setting, pair, batch=batch, betas=betas, loader=True)
    for package, make in {"numpyro": numpyro_vae, "pythae": pythae_vae}.items():
        if not installed(package):
            notes.append(f"{package} is left out: it is not installed; pip install -e '.[bench]' has it")
        elif package == "numpyro" and (setting.device.type != "cpu" or setting.precision != "float32"):
            notes.append("numpyro is left out: it is compared on the CPU in float32")
        else:
            contenders[package] = partial(make, setting, pair, batch=batch, betas=betas)
    widths = "-".join(map(str, [784, *hidden, latents]))
    return Workload(f"VAE, {widths}, batch {batch}", "images", batch, contenders, tuple(notes))


def iwae(setting: Setting, *, particles: int = 50, batch: int = 100) -> Workload:
    """The importance-weighted bound on Burda et al.'s networks, by the gradient that all contenders have."""
    pair = partial(_mlp, hidden=(200, 200), latents=50, activation="tanh")
    how = {"batch": batch, "betas": BETAS["mlp"]}
    contenders = {
        "toolkit": partial(ours, setting, pair, objective=IWAE(particles, gradient="plain"), **how),
        BY_HAND: partial(by_hand, setting, pair, particles=particles, **how),
        "stock Pyro": partial(stock, setting, pair, particles=particles, validate=True, **how),
        "stock Pyro, unchecked": partial(stock, setting, pair, particles=particles, **how),
        "toolkit, dreg": partial(ours, setting, pair, objective=IWAE(particles), **how),
    }
    return Workload(f"IWAE, K = {particles}, 784-200-200-50, batch {batch}", "images", batch, contenders)


def _contenders(setting: Setting, pair: Pair, **how: Any) -> dict[str, Callable[[], Contender]]:
    contenders = {
        "toolkit": partial(ours, setting, pair, **how),
        BY_HAND: partial(by_hand, setting, pair, **how),
        "stock Pyro": partial(stock, setting, pair, validate=True, **how),
        "stock Pyro, unchecked": partial(stock, setting, pair, **how),
    }
    if setting.device.type == "cuda":
        contenders["toolkit, no graph"] = partial(ours, setting, pair, graph=False, **how)
    return contenders


def _conv() -> nn.ModuleDict:
    return nn.ModuleDict({"model": glorot_(VAE()), "guide": glorot_(Amortized())})


def _mlp(*, hidden: Sequence[int], latents: int, activation: Activation = "relu") -> nn.ModuleDict:
    decoder = MLPDecoder(latents=latents, hidden=hidden[::-1], activation=activation)
    encoder = MLPEncoder(hidden=hidden, activation=activation)
    return nn.ModuleDict({"model": VAE(decoder=decoder), "guide": Amortized(latents=latents, encoder=encoder)})


def ours(
    setting: Setting,
    pair: Pair,
    *,
    batch: int,
    betas: tuple[float, float],
    objective: Objective | None = None,
    graph: bool | None = None,
) -> Contender:
    """The toolkit."""
    with setting.seeded():
        nets = placed(pair(), setting.device)
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-3, betas=betas, fused=True)
    step = InferenceStep(
        nets["model"],
        nets["guide"],
        objective or ELBO(),
        optimizer,
        autocast=setting.autocast,
        device=setting.device,
    )
    stream = setting.images().batches(batch)
    return toolkit(step, stream, nets, units=batch, optimizers=[optimizer], graph=graph)


def by_hand(
    setting: Setting, pair: Pair, *, batch: int, betas: tuple[float, float], particles: int | None = None
) -> Contender:
    """Bytes resident on the device, one fused Adam, channels last, and nothing but tensors.

    With `particles` the importance-weighted bound instead of the evidence lower bound.
    """
    with setting.seeded():
        nets = placed(plain(pair()), setting.device)
    encoder, heads, decoder = nets["guide"].encoder, nets["guide"].heads, nets["model"].decoder
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-3, betas=betas, fused=True)
    pixels = setting.images().pixels
    rows = shuffled(len(pixels), batch, setting.device)

    def step() -> Tensor:
        x = pixels.index_select(0, next(rows)) / 255
        with setting.autocast():
            features = encoder(x)
            loc, log = heads["loc"](features).to(x.dtype), heads["log"](features).to(x.dtype)
            shape = loc.shape if particles is None else (particles, *loc.shape)
            noise = torch.randn(shape, dtype=x.dtype, device=x.device)
            z = loc + log.exp() * noise
            logits = decoder(z).to(x.dtype)
        if particles is None:
            fit = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            divergence = 0.5 * (loc.square() + (2 * log).exp() - 2 * log - 1).sum()
            loss = (fit + divergence) / batch
        else:
            fit = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").flatten(2).sum(-1)
            ratio = (0.5 * (noise.square() - z.square()) + log).sum(-1)
            loss = math.log(particles) - (ratio - fit).logsumexp(0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contender(step, batch, nets)


class StockVAE(nn.Module):
    """A model and a guide in one module, as in Pyro's VAE example."""

    def __init__(self, nets: nn.ModuleDict, setting: Setting) -> None:
        super().__init__()
        self.decoder, self.guides = nets["model"].decoder, nets["guide"]
        self.latents, self.autocast = self.decoder.latents, setting.autocast

    def model(self, x: Tensor) -> None:
        """The prior and the likelihood."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zeros, ones = x.new_zeros(len(x), self.latents), x.new_ones(len(x), self.latents)
            z = pyro.sample("latent", dist.Normal(zeros, ones).to_event(1))
            with self.autocast():
                logits = self.decoder(z).to(x.dtype).flatten(-3)
            # Grey values are no draws of a Bernoulli, which its checks would say.
            pyro.sample("obs", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor) -> None:
        """The encoder's answer."""
        pyro.module("encoder", self.guides)
        with pyro.plate("data", len(x)):
            with self.autocast():
                features = self.guides.encoder(x)
                loc, log = (self.guides.heads[name](features).to(x.dtype) for name in ("loc", "log"))
            pyro.sample("latent", dist.Normal(loc, log.exp()).to_event(1))


def stock(
    setting: Setting,
    pair: Pair,
    *,
    batch: int,
    betas: tuple[float, float],
    particles: int | None = None,
    validate: bool = False,
    loader: bool = False,
) -> Contender:
    """`SVI.step` on floats that are resident too, an Adam per parameter, modules in the parameter store.

    With `loader` checked, and batches put together by torch's `DataLoader`, image by image, as in Pyro's VAE example.

    Networks are not in channels last: `pyro.module` would train contiguous copies of such weights. The KL divergence
    is in closed form, as the toolkit's. Losses are sums over the batch, so that Adam's eps is as many times as large.
    """
    with setting.seeded():
        nets = plain(pair()).to(setting.device)
    vae, images = StockVAE(nets, setting), setting.images().pixels / 255
    rows = shuffled(len(images), batch, setting.device)
    batches = (images[each] for each in rows)
    if loader:
        loaded = DataLoader(TensorDataset(images), batch, shuffle=True, drop_last=True)
        batches = (x for _ in count() for (x,) in loaded)
    loss = TraceMeanField_ELBO()
    if particles is not None:
        loss = RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3, "betas": betas, "eps": 1e-8 * batch}), loss)

    def step() -> float:
        return svi.step(next(batches)) / batch

    return Contender(step, batch, nets, around=own_store(validate=validate or loader))
