"""How good the samples of a fit are, whatever kind it is: figures as in assessment.json, and lines to print."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from runners.fit import Fit
from runners.gan_fit import GanFit
from runners.metrics.classifiers import Trained, classifier
from runners.metrics.measures import COLUMNS, cell, measure

__all__ = ["over_seeds", "reporting", "rows", "sample_quality", "several"]

UNLIKE = ("seed", "device", "threads", "versions", "options", "source", "data_root", "quick")
"""What may differ in the config.json of runs that are alike but for their seeds."""

REPORTING = 0
"""The seed of the classifier that reports; what chooses the best of a run's generators is another one."""


def sample_quality(
    fit: Fit | GanFit,
    *,
    images: int,
    split: str = "test",
    seed: int = 0,
    classifiers: Path | None = None,
    trained: Trained | None = None,
) -> dict[str, Any]:
    """Every measure of a fit's samples, and of real images in their place.

    Args:
        fit: The fit.
        images: How many samples, and real images.
        split: Which images they are compared with.
        seed: Of the samples and of the choice of images.
        classifiers: Where the classifier whose features are used is kept.
        trained: That classifier, by default the one that reports on the fit's data.

    Returns:
        What `measure` does; of a GAN whose best generator was kept, the same of that under `best`, with its `step`.
    """
    trained = trained or reporting(fit, classifiers=classifiers)

    def measured(**which: Any) -> dict[str, Any]:
        drawn = fit.samples(images, seed=seed, **which)
        with torch.autocast(fit.device.type, enabled=False):
            return measure(drawn, fit.data, trained, split=split, seed=seed)

    found = measured()
    if isinstance(fit, GanFit) and fit.selection is not None and fit.selection.state is not None:
        found["best"] = {"step": fit.selection.step, **measured(which="best")}
    return found


def reporting(fit: Fit | GanFit, *, classifiers: Path | None = None) -> Trained:
    """The classifier that reports on samples of a fit's data, trained or read from where it is kept."""
    with torch.autocast(fit.device.type, enabled=False):  # whatever the samples are made in
        return classifier(fit.data, seed=REPORTING, folder=classifiers, device=fit.device, progress=fit.progress)


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What, how much, and how much it is of real images."""
    said = []
    for column in (name for name in COLUMNS if found.get(name) is not None):
        beside = [f"real images {cell(found['real'], column)}"] if found["real"].get(column) is not None else []
        if "best" in found:
            beside.append(f"at step {found['best']['step']:,} {cell(found['best'], column)}")
        said.append((column.replace("_", " "), cell(found, column), ", ".join(beside)))
    if "classes" in found:
        shares = [f"{count / found['images']:.1%}" for count in found["classes"]]
        said.append(("classes", f"{found['classes_percent']} above 1 %", " ".join(shares)))
    return said


def over_seeds(every: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Means over runs that differ in their seed alone, by a name; `_se` is the standard deviation over seeds there.

    Args:
        every: For each run its config.json with the steps `done`, and what was found of its samples.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for config, found in every:
        settings = config | {"options": config.get("options") or config.get("source") or {}}
        alike = [{k: v for k, v in each.items() if k not in UNLIKE} for each in (settings, settings["options"])]
        groups.setdefault(json.dumps(alike, sort_keys=True), {})[config["seed"]] = found
    said = []
    for group in (list(group.values()) for group in groups.values() if len(group) > 1):
        figures = dict(group[0])
        for column in (name for name in COLUMNS if figures.get(name) is not None):
            values = torch.tensor([found[column] for found in group], dtype=torch.float64)
            figures |= {column: float(values.mean()), f"{column}_se": float(values.std())}
        said.append((f"mean ± standard deviation of {len(group)} seeds", figures))
    return said


def several(named: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Runs and what was found of each, the best generator of a run beside its last."""
    said = []
    for name, found in named:
        said.append((name, found))
        if "best" in found:
            said.append((f"{name}, best at step {found['best']['step']:,}", found["best"]))
    return said
