"""Seconds to a given test ELBO, on the pair of S2."""

import math
import time
from dataclasses import replace

from torch import Tensor, nn

from guides.evidence import bounds
from guides.sites import Program
from ppl_models import Batch
from runners.contenders.costs import wait
from runners.contenders.vae import conv
from runners.contenders.workload import BY_HAND, Contender, Setting
from runners.data import DataSet, Images
from runners.inference import evaluating
from runners.loop.random import forked

__all__ = ["reach"]

CONTENDERS = ("toolkit", BY_HAND, "stock Pyro", "stock Pyro, unchecked")

EVERY = 100
"""Steps between two looks at the test images."""


def reach(
    setting: Setting, data: DataSet, *, target: float, rounds: int, most: int = 20_000, images: int = 2000
) -> dict[str, list[float]]:
    """Seconds of training until the test ELBO is `target`, by contender and round, each round from another seed.

    Contenders take turns of 100 steps. Their looks at the test images, on the same noise, are not counted.

    Args:
        setting: Where, and in which precision.
        data: The data set.
        target: Nats per image.
        rounds: How often.
        most: Steps after which it is given up: infinite seconds.
        images: How many test images are looked at, the first.
    """
    data = data.to(setting.device)
    test = data.test.first(min(images, len(data.test)))
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for seed in range(rounds):
        workload = conv(replace(setting, split=data.train, seed=seed))
        made = {name: workload.contenders[name]() for name in CONTENDERS}
        spent, running, steps = dict.fromkeys(CONTENDERS, 0.0), list(CONTENDERS), 0
        while running and steps < most:
            for name in running if steps // EVERY % 2 else running[::-1]:
                spent[name] += _seconds(made[name], setting)
            steps += EVERY
            running = [name for name in running if _elbo(made[name].modules, test, setting) < target]
        for name in CONTENDERS:
            seconds[name].append(math.inf if name in running else spent[name])
    return seconds


def _seconds(contender: Contender, setting: Setting) -> float:
    wait(setting.device)
    started = time.perf_counter()
    contender(EVERY)
    wait(setting.device)
    return time.perf_counter() - started


def _elbo(nets: nn.Module, test: Images, setting: Setting) -> float:
    def posterior(batch: Batch) -> Program:
        return nets["guide"]

    with forked(0, setting.device), evaluating(nets):
        elbo: Tensor = bounds(nets["model"], posterior, test.in_order(500)).elbo
    return float(elbo.mean())
