"""What a GAN's fit comes to in the end: final figures and pictures; and what it has to say of itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from ppl_models.adversarial import NON_SATURATING, SATURATING
from runners import figures

if TYPE_CHECKING:
    from runners.gan_fit import GanFit

__all__ = ["curves", "final_figures", "lines", "remark", "result"]

TWO_FORMS = {"gan": ("−log D, non-saturating", NON_SATURATING), "saturating": ("log(1 − D), saturating", SATURATING)}
"""Generator losses of the same discriminator, shown beside each other."""

SETTLED = 500
"""Steps before which nothing is remarked on."""


def result(fit: "GanFit") -> dict[str, Any]:
    """The final figures of a fit: `train`, means of the last 1000 steps, and what else was measured on the way."""
    found = {
        "data": fit.data.name,
        "loss": fit.loss,
        "steps": fit.history.step,
        "seconds": round(fit.history.seconds, 1),
        "train": fit.history.final(),
    }
    if fit.history.rows:
        found["held_out"] = {"critic_loss": fit.history.rows[-1]["held_out"]}
    if fit.selection is not None and fit.selection.rows:
        found["chosen_by"] = fit.selection.about | {"images": "valid" if fit.data.valid is not None else "test"}
        found["best"] = next(row for row in fit.selection.rows if row["step"] == fit.selection.step)
        found["last"] = fit.selection.rows[-1]
    said = remark(fit)
    return found | ({"remark": said} if said else {})


def final_figures(fit: "GanFit", found: Mapping[str, Any]) -> dict[str, Figure]:
    """The curves, images, a path between latents, both forms of the generator's loss, and how the best was chosen."""
    drawn = {"curves": curves(fit), "images": fit.show(), "interpolation": fit.interpolation()}
    if fit.loss in TWO_FORMS:
        drawn["losses"] = figures.generator_losses(dict(TWO_FORMS.values()))
    if "best" in found:
        title = "by the classifier that chooses, beside the losses"
        drawn["selection"] = figures.curves(fit.selection.rows, title=title)
    return drawn


def curves(fit: "GanFit") -> Figure:
    """Both losses and what else was logged; the critic's on held-out images beside that on those of training.

    Of a Wasserstein critic, minus the loss without its penalty: its estimate of the distance.
    """
    name, sign = ("wasserstein_estimate", -1) if fit.loss == "wasserstein" else ("critic_loss", 1)
    rows, held = [], []
    for row in fit.history.rows:
        kept = {key: value for key, value in row.items() if key not in ("critic_loss", "held_out")}
        rows.append({"step": row["step"], name: sign * row["critic_loss"]} | kept)
        held.append({"step": row["step"], name: sign * row["held_out"]})
    level = f"{name}: {'no difference' if fit.loss == 'wasserstein' else 'fooled'}"
    return figures.curves({"training images": rows, "held-out images": held}, references={level: fit.fooled})


def remark(fit: "GanFit") -> str | None:
    """What has gone wrong, in one line with its number, or None."""
    if fit.history.step < SETTLED or not fit.history.rows:
        return None
    row = fit.history.rows[-1]
    if row["diversity"] < 0.2:
        return (
            f"the generator's images are nearly all alike: they have {row['diversity']:.2f} of the data's variance, "
            "expected about 1; train it more slowly, or the critic more"
        )
    if fit.loss == "wasserstein" and "slope" not in row:
        return "a Wasserstein critic without a penalty: nothing bounds its slope, so its values mean nothing"
    if not 0.5 <= row.get("slope", 1.0) <= 1.5:
        return (
            f"the critic's mean slope is {row['slope']:.2f}, expected near 1: the penalty, {row['penalty']:.2f}, does "
            "not hold it"
        )
    if fit.fooled and row["critic_loss"] < 0.03 * fit.fooled:
        return (
            f"the critic tells all images apart: its loss is {row['critic_loss']:.3f}, {fit.fooled:.2f} where it is "
            f"fooled; train it more slowly"
            + (", or with --fuzz" if fit.loss in TWO_FORMS and not fit.settings["fuzz"] else "")
        )
    late = fit.history.rows[-5:]
    train, held = (sum(row[name] for row in late) / len(late) for name in ("critic_loss", "held_out"))
    if len(late) == 5 and fit.fooled and held - train > 0.5 * fit.fooled:
        return (
            f"the critic knows its images by heart: its loss on held-out ones is {held:.2f}, on those of training "
            f"{train:.2f}; more data, or --augment"
        )
    return None


def lines(found: dict[str, Any]) -> list[str]:
    """Final figures as lines to print."""
    said = [f"{'train':>10}  " + "  ".join(f"{name} {value:.3f}" for name, value in found["train"].items())]
    if "held_out" in found:
        said.append(f"{'held out':>10}  critic_loss {found['held_out']['critic_loss']:.3f}")
    for name in ("best", "last"):
        if name in found:
            what = next(key for key in found[name] if key != "step")
            distance, step = found[name][what], found[name]["step"]
            said.append(f"{name:>10}  {what.replace('_', ' ')} {distance:.3g} at step {step:,}")
    return said + ([found["remark"]] if "remark" in found else [])
