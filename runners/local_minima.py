"""Whether an inversion's runs ended in local minima: figures as in inversion.json, and sentences made of them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_models.inversion import Inversion, images_of, in_double, restarts_needed
from ppl_models.loss_barriers import barriers
from ppl_models.loss_minima import Minima, clusters, minima, typical_distances

__all__ = ["NEAR", "RECOVERED", "images_evidence", "planted_evidence", "sentences"]

RECOVERED = 1e-6
"""Squared error per pixel below which a planted image is found again."""

NEAR = 0.02
"""What of the distance of two codes of N(0, I), or of two of their images, is within one cluster."""

RISE = 1e-3
"""What of the loss at its higher end the loss has to rise by for a barrier."""

OTHERS = 3
"""Clusters, the lowest, to which barriers from the best one are looked for."""

Generator = Callable[[Tensor], Tensor]


def planted_evidence(generator: Generator, images: Tensor, found: Inversion) -> dict[str, Any]:
    """The control: of images that the generator made the least loss is 0, so what ends higher is not global.

    Args:
        generator: In eval mode.
        images: `(N, *event)`.
        found: Their inversion.
    """
    solved = found.loss < RECOVERED
    rate = float(solved.double().mean())
    lost = ~solved
    figures: dict[str, Any] = {
        "images": len(images),
        "restarts": len(solved),
        "recovered": int(solved.any(0).sum()),
        "runs": solved.numel(),
        "success": rate,
        "worst_best_loss": float(found.loss.amin(0).max()),
        "restarts_for_95_percent": None if rate == 0 else restarts_needed(rate),
        "failed": int(lost.sum()),
        "outside": int((_outside(found.z) & lost).sum()),
    }
    if figures["failed"]:
        which = lost.nonzero()
        around = minima(generator, images[which[:, 1]], found.z[lost])
        scale = found.start_gradient_norm.mean(0)[which[:, 1]]
        figures |= _kinds(around, scale) | {
            "failed_loss": [float(found.loss[lost].min()), float(found.loss[lost].max())]
        }
    else:
        figures |= {"smooth_minima": 0, "minima_with_kinks": 0, "minima": 0}
    return figures


def images_evidence(generator: Generator, images: Tensor, found: Inversion) -> dict[str, Any]:
    """For images of unknown least loss: which runs ended at minima, their clusters, and the barriers between these.

    Args:
        generator: In eval mode.
        images: `(N, *event)`.
        found: Their inversion.
    """
    around, scale = minima(generator, images, found.z), found.start_gradient_norm.mean(0)
    settled = around.smooth(scale) | around.nonsmooth(scale)
    codes, pixels = typical_distances(generator, found.z.shape[-1], images)
    by_code = clusters(found.z, NEAR * codes)
    with torch.no_grad():
        made = images_of(in_double(generator), found.z)
    by_image = clusters(made, NEAR * pixels)
    each, pairs = [], []
    for i, loss in enumerate(found.loss.T.tolist()):
        order = sorted(range(len(loss)), key=loss.__getitem__)
        label, settled_here = by_code[:, i].tolist(), settled[:, i].tolist()
        first: dict[int, int] = {}
        for run in order:
            if settled_here[run]:
                first.setdefault(label[run], run)
        heads = list(first.values())
        each.append(
            {
                "best_loss": loss[order[0]],
                "best_is_minimum": settled_here[order[0]],
                "at_best": sum(one == label[order[0]] for one in label),
                "minima": sum(settled_here),
                "clusters": len(heads),
                "clusters_of_images": len({by_image[run, i].item() for run in heads}),
                "cluster_losses": [loss[run] for run in heads],
                "barriers": [],
            }
        )
        if heads:
            pairs += [("between", i, heads[0], run, i) for run in heads[1 : 1 + OTHERS]]
            inside = [run for run in order if label[run] == label[heads[0]] and settled_here[run]]
            pairs += [("inside", i, inside[0], inside[-1], i)] * (len(inside) > 1)
            pairs += [("other image", i, heads[0], int(found.loss[:, i - 1].argmin()), i - 1)] * (len(images) > 1)
    nulls = {"inside": [], "other image": []}
    if pairs:
        kinds, at, start, end, ends_at = zip(*pairs, strict=True)
        at, start, end, ends_at = (torch.tensor(rows, device=images.device) for rows in (at, start, end, ends_at))
        z_a, z_b = found.z[start, at], found.z[end, ends_at]
        rises = [
            barriers(generator, *part) for part in zip(*(v.split(64) for v in (images[at], z_a, z_b)), strict=True)
        ]
        straight, relaxed = (torch.cat(values).tolist() for values in zip(*rises, strict=True))
        higher = torch.maximum(found.loss[start, at], found.loss[end, at]).tolist()
        for row, (kind, i) in enumerate(zip(kinds, at.tolist(), strict=True)):
            if kind == "between":
                rise = {"straight": straight[row], "relaxed": relaxed[row], "relative": relaxed[row] / higher[row]}
                each[i]["barriers"].append({"loss": higher[row], **rise})
            else:
                nulls[kind].append(relaxed[row])
    between = [one for image in each for one in image["barriers"]]
    noise = max(nulls["inside"], default=0.0)
    return {
        "images": len(images),
        "restarts": len(settled),
        "runs": settled.numel(),
        **_kinds(around, scale),
        "outside": int(_outside(found.z).sum()),
        "with_several_clusters": sum(image["clusters"] > 1 for image in each),
        "pairs": len(between),
        "pairs_with_barrier": sum(one["relaxed"] > max(noise, RISE * one["loss"]) for one in between),
        "pairs_with_straight_barrier": sum(one["straight"] > max(noise, RISE * one["loss"]) for one in between),
        "median_relative_barrier": sorted(one["relative"] for one in between)[len(between) // 2] if between else None,
        "highest_barrier_inside_a_cluster": noise,
        "median_barrier_to_another_image": sorted(nulls["other image"])[len(nulls["other image"]) // 2]
        if nulls["other image"]
        else None,
        "each": each,
    }


def sentences(found: dict[str, Any]) -> dict[str, str]:
    """What the figures say, by part, and no more."""
    said = {}
    if "planted" in found:
        of = found["planted"]
        needed, open_ = of["restarts_for_95_percent"], of["failed"] - of["minima"]
        text = f"{of['recovered']} of {of['images']} planted images were recovered to below {RECOVERED:g} per pixel, "
        text += f"by {of['success']:.1%} of {of['runs']:,} runs"
        text += "." if needed is None else f"; {needed} restarts recover an image with probability 95 %."
        if of["failed"]:
            text += f" The least loss is 0, so that the other {of['failed']:,} runs ended at no global minimum: "
            text += f"{of['minima']:,} at local minima, which are provably not global, and {open_:,} short of one "
            text += f"({of['outside']:,} of all these at more than twice the length of the prior's codes)."
        said["planted"] = text
    if "targets" in found:
        of = found["targets"]
        text = f"{of['minima']:,} of {of['runs']:,} runs on {of['images']} images ended at minima: "
        text += f"{of['smooth_minima']:,} by gradient and Hessian, {of['minima_with_kinks']:,} at kinks, by gradients "
        text += (
            f"around and no lower point among them; those of {of['with_several_clusters']} images in several clusters."
        )
        if of["pairs"]:
            text += " On the best path found from an image's best cluster to the next ones the loss rises in "
            text += f"{of['pairs_with_barrier']} of {of['pairs']} pairs, by {of['median_relative_barrier']:.2%} of the "
            text += f"higher end in the median (on the line in {of['pairs_with_straight_barrier']}): "
            apart = "different starts find different local minima there, as far as paths were searched."
            text += apart if of["pairs_with_barrier"] else "they may be one valley."
        text += " The least loss of these images is not known, so that no minimum can be said to be global."
        said["targets"] = text
    return said


def _kinds(around: Minima, scale: Tensor) -> dict[str, int]:
    smooth, kinked = around.smooth(scale), around.nonsmooth(scale)
    counts = {"minima": smooth | kinked, "smooth_minima": smooth, "minima_with_kinks": kinked & ~smooth}
    return {name: int(which.sum()) for name, which in counts.items()}


def _outside(z: Tensor) -> Tensor:
    """Codes at more than twice the length that N(0, I) has."""
    return z.norm(dim=-1) > 2 * math.sqrt(z.shape[-1])
