"""Importance-sampled evidence: many images at a time against a loop over them."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guides import Amortized
from guides.evidence import importance_sample, posterior_for
from ppl_models import VAE, Batch, MLPDecoder, MLPEncoder
from runners.contenders.workload import Contender, Setting, Workload

__all__ = ["importance", "loop", "ours"]


def importance(setting: Setting, *, samples: int = 5000, images: int = 20) -> Workload:
    """Evidence of images under a 784-500-500-40 VAE; a step is one of them."""
    contenders: dict[str, Callable[[], Contender]] = {
        "toolkit": partial(ours, setting, samples=samples, images=images),
        "toolkit, bf16": partial(ours, replace(setting, precision="bf16"), samples=samples, images=images),
        "a loop over images": partial(loop, setting, samples=samples),
    }
    return Workload(f"log p(x) by {samples:,} importance samples, 784-500-500-40", "images", 1, contenders)


def _pair(setting: Setting) -> nn.ModuleDict:
    with setting.seeded():
        model = VAE(decoder=MLPDecoder(latents=40, hidden=(500, 500)))
        guide = Amortized(encoder=MLPEncoder(hidden=(500, 500)), latents=40)
    return nn.ModuleDict({"model": model, "guide": guide}).to(setting.device)


def ours(setting: Setting, *, samples: int, images: int) -> Contender:
    """The toolkit, so many images at a time."""
    pair = _pair(setting)
    x = setting.images().pixels[:images] / 255
    batch = Batch(x, None, torch.arange(len(x), device=setting.device))
    posterior = partial(posterior_for, pair["model"], pair["guide"])

    def step() -> Tensor:
        with setting.autocast():
            evidence = importance_sample(pair["model"], posterior, [batch], samples=samples)
        return -evidence.log_evidence.mean()

    return Contender(step, len(x), pair)


def loop(setting: Setting, *, samples: int, part: int = 100) -> Contender:
    """What pythae's `get_nll` does: image by image, in parts of 100 samples, copies of it go through the encoder."""
    pair = _pair(setting)
    encoder, heads, decoder = pair["guide"].encoder, pair["guide"].heads, pair["model"].decoder
    x, place = setting.images().pixels[:1000] / 255, [0]

    @torch.no_grad()
    def step() -> float:
        image, weights = x[place[0] % len(x)], []
        place[0] += 1
        for _ in range(samples // part):
            copies = image.expand(part, *image.shape)
            with setting.autocast():
                features = encoder(copies)
                loc, log = heads["loc"](features).to(x.dtype), heads["log"](features).to(x.dtype)
                z = loc + log.exp() * torch.randn_like(loc)
                logits = decoder(z).to(x.dtype)
            log_q = (-0.5 * ((z - loc) / log.exp()).square() - log).sum(-1)
            log_p = (-0.5 * z.square()).sum(-1)
            entropy = F.binary_cross_entropy_with_logits(logits, copies, reduction="none")
            weights.append(log_p - log_q - entropy.flatten(1).sum(1))
        return math.log(samples) - float(torch.cat(weights).logsumexp(0))

    return Contender(step, 1, pair)
