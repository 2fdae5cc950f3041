"""What `bench.py` measures: each workload with the ways of doing it, the toolkit's first."""

from collections.abc import Callable
from functools import partial

from runners.contenders import adversarial, characters, free_rows, importance, vae
from runners.contenders.workload import Contender, Setting, Workload

__all__ = ["WORKLOADS", "Contender", "Setting", "Workload"]

WORKLOADS: dict[str, Callable[[Setting], Workload]] = {
    "conv": vae.conv,
    "mlp-400": partial(vae.mlp, hidden=(400,), latents=50, batch=256),
    "mlp-500": partial(vae.mlp, hidden=(500, 500), latents=40, batch=128),
    "svi": free_rows.svi,
    **{f"rows-1e{power}": partial(free_rows.free_rows, rows=10**power) for power in (4, 5, 6, 7)},
    "iwae": vae.iwae,
    "gan": adversarial.gan,
    "wgan-gp": adversarial.wgan_gp,
    "characters": characters.characters,
    "importance": importance.importance,
}
"""Workloads by the names that the command calls them."""
