"""How do KL and log-likelihood go over training in S1 to S4, and what do deeper networks and longer training add?"""

from typing import Any

from matplotlib.figure import Figure

from runners import figures
from runners.comparisons import compare_bounds
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_svi
from runners.studies.rows import final, in_words, listed, tenths

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1, 33)

SYSTEMS = {"S1, free": "s1", "S2, encoder": "s2", "S3, annealed": "s3", "S4, constrained": "s4"}
S6, DEEPER, LONGER, BOTH = "S6", "S6, deeper", "S6, longer", "S6, deeper and longer"
DEEP = [200, 200, 200, 200]
TIMES = 3
STEPS = {"systems": 5000, "S6": 10_000}
IMAGES = 1000
"""Of the test set, on which the four are measured: as many as can be refined."""

QUICK_STEPS = {"systems": 300, "S6": 400}


def runs(*, quick: bool) -> dict[str, Point]:
    """The four systems for as many steps each; S6, with twice the hidden layers, three times the steps, and both."""
    steps, networks = (QUICK_STEPS, {"model": "mlp"}) if quick else (STEPS, {})
    shared = networks | {"steps": steps["systems"], "images": 200 if quick else IMAGES}
    of_systems = {name: of_svi(preset=preset, **shared) for name, preset in SYSTEMS.items()}
    settings = {
        S6: {"steps": steps["S6"]},
        DEEPER: {"steps": steps["S6"], "hidden": DEEP},
        LONGER: {"steps": TIMES * steps["S6"]},
        BOTH: {"steps": TIMES * steps["S6"], "hidden": DEEP},
    }
    return of_systems | {name: of_svi(preset="s6", pictures=0, **setting) for name, setting in settings.items()}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """The terms of all over training, and what they come to; S6's variants against S6 on the same images."""
    systems, variants = ({name: made[name] for name in names} for names in (SYSTEMS, (S6, DEEPER, LONGER, BOTH)))
    table = [{"run": name} | _row(one) for name, one in made.items()]
    by = {row["run"]: row for row in table}
    images = 200 if quick else 10_000
    against = compare_bounds({name: one.fit for name, one in variants.items()}, images=images)
    for name in (DEEPER, LONGER, BOTH):
        by[name]["minus_S6"], by[name]["minus_S6_se"] = against.difference(name)
    # A short run is the beginning of the long one: drawn last, it stays in sight.
    longest = dict(sorted(variants.items(), key=lambda item: -item[1].fit.history.step))
    pictures = {
        "training": _curves(systems, title="Free parameters, an encoder, annealed and constrained"),
        "deeper_and_longer": _curves(longest, title="S6, with four hidden layers for two, and three times the steps"),
    }
    early = {name: tenths(one)["kl_in_first_tenth"] for name, one in systems.items()}
    best = max(systems, key=lambda name: by[name]["elbo"])
    ranked = {best: systems[best]} | systems
    four = compare_bounds({name: one.fit for name, one in ranked.items()}, images=200 if quick else IMAGES)
    beside = [f"that of {name} is {in_words(*four.difference(name))}" for name in list(ranked)[1:]]
    finding = [
        f"In the first tenth of training the codes have {_listed(early)} nats of KL; on the test images in the end "
        f"{_listed({name: by[name]['kl'] for name in systems})}, at log-likelihoods of "
        f"{_listed({name: by[name]['log_likelihood'] for name in systems})}.",
        f"The best test ELBO of the four is that of {best}; beside it {listed(beside)}, on the same images.",
        f"Beside S6, the test ELBO with four hidden layers for two is {in_words(*against.difference(DEEPER))}, after "
        f"{by[LONGER]['steps'] / by[S6]['steps']:.3g} times as many steps {in_words(*against.difference(LONGER))}, "
        f"with both {in_words(*against.difference(BOTH))}.",
        "The mean training ELBO of the last 1,000 steps moved by "
        f"{_listed({name: by[name]['train_elbo'] - by[S6]['train_elbo'] for name in (DEEPER, LONGER, BOTH)}, sign='+')}"
        " nats; a gain there that the test images do not share is of the training images alone.",
    ]
    return Answer(table, pictures, finding)


def _row(one: Made) -> dict[str, Any]:
    return {"steps": one.fit.history.step, "train_elbo": one.result["train"]["elbo"]} | final(one)


def _curves(made: dict[str, Made], *, title: str) -> Figure:
    """The ELBO and its terms, without what each has beside them."""
    columns = ("step", "elbo", "log_likelihood", "kl")
    rows = {name: [{key: row[key] for key in columns} for row in one.fit.history.rows] for name, one in made.items()}
    return figures.curves(rows, title=title)


def _listed(values: dict[str, float], *, sign: str = "") -> str:
    return ", ".join(f"{value:{sign}.1f} ({name})" for name, value in values.items())
