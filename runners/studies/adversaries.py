"""What studies of GANs say of a finished run: where the two stand, how near the samples are, what it took."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from ppl_models.adversarial import NON_SATURATING
from runners import figures
from runners.data import head
from runners.gan_fit import GanFit
from runners.metrics import sliced_wasserstein
from runners.studies.point import Made
from runners.table import title

__all__ = ["LATE", "QUICKER", "STEADY", "alone", "curves", "distance", "ended", "samples"]

QUICKER = {"networks": "mlp", "batch": 16}
"""Options with which a step takes a fifth of the time."""

STEADY = QUICKER | {"generator_lr": 1e-4, "generator_betas": [0.5, 0.9]}
"""Those, and with which a GAN's samples look like digits after a few hundred steps."""

LATE = 5
"""Figures of the end of training are means over the last fifth of it."""

LOGGED = ("critic_loss", "held_out", "generator_loss", "diversity")
COMPARED = 1000
SHOWN = 12

DISTANCES = ("frechet_distance", "kernel_distance", "sliced_wasserstein")

ESTIMATES = {"critic_loss": "wasserstein_estimate", "held_out": "held_out_estimate"}
"""What minus a Wasserstein critic's losses are called."""


def ended(made: Made) -> dict[str, Any]:
    """Losses and diversity over the last fifth of training, the samples' distance, updates of both, and seconds.

    The distance is that of the looks by which the best generator was chosen, the last and the best; without looks the
    sliced Wasserstein distance of the last samples from test images, in pixels.
    """
    fit, rows = made.fit, made.fit.history.rows
    late = rows[-max(len(rows) // LATE, 1) :]
    found = {name: sum(row[name] for row in late) / len(late) for name in LOGGED}
    found |= _distances(made)
    updates = {f"{who}_updates": fit.history.step * fit.settings[f"{who}_steps"] for who in ("critic", "generator")}
    return found | updates | {"seconds": made.result["seconds"]}


def distance(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The distance by which all rows of a table can be compared, its column and what it is called."""
    return next((column, title(column)) for column in DISTANCES if all(column in row for row in table))


def curves(made: Mapping[str, Made], *, heading: str, columns: Sequence[str] = LOGGED) -> Figure:
    """Losses and diversity over training, runs overlaid; dashed where the critic tells nothing apart.

    Of a Wasserstein critic, minus its losses without the penalty, in panels of their own: estimates of the distance.
    """
    runs, fooled = {}, {}
    for name, (fit, _) in made.items():
        estimates = ESTIMATES if fit.loss == "wasserstein" else {}
        panels = {column: estimates.get(column, column) for column in columns}
        signs = {column: -1 if column in estimates else 1 for column in columns}
        runs[name] = [
            {"step": row["step"]} | {panel: signs[column] * row[column] for column, panel in panels.items()}
            for row in fit.history.rows
        ]
        fooled |= {f"{panels[column]}: fooled": fit.fooled for column in ESTIMATES}
        if fit.loss == "gan":
            fooled["generator_loss: fooled"] = float(NON_SATURATING.generator(torch.zeros(1)))
    return figures.curves(runs, references=fooled, title=heading)


def samples(made: Mapping[str, Made]) -> Figure:
    """Test images, and the last generators' images of the same latents, a run a row."""
    data = head(next(iter(made.values())).fit.data.test, SHOWN).x
    rows = {name: one.fit.samples(len(data)) for name, one in made.items()}
    return figures.reconstruction_rows({"data": data} | rows)


def alone(fit: GanFit) -> GanFit:
    """A copy of a GAN whose `run` trains its critic on and leaves its generator as it is."""
    same = ("batch", "penalty", "r1", "fuzz", "augment", "critic_optimizer", "precision")
    return GanFit(
        copy.deepcopy(fit.generator),
        copy.deepcopy(fit.critic),
        fit.data,
        fit.loss,
        steps=0,
        generator_steps=0,
        **{name: fit.settings[name] for name in same},
        seed=fit.settings["seed"] + 1,
        device=fit.device,
        progress=False,
    )


def _distances(made: Made) -> dict[str, float]:
    if "best" in made.result:
        best, last = made.result["best"], made.result["last"]
        name = next(key for key in best if key != "step")
        return {name: last[name], "best": best[name], "best_at_step": best["step"]}
    real = head(made.fit.data.test, COMPARED).x
    return {"sliced_wasserstein": sliced_wasserstein(real, made.fit.samples(len(real)))}
