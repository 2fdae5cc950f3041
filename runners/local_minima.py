"""Whether an inversion's runs ended in local minima: figures as in inversion.json, and sentences made of them."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_models.inversion import Inversion, restarts_needed
from ppl_models.loss_barriers import Barriers, barriers
from ppl_models.loss_minima import Minima, clusters, minima, typical_distances
from ppl_models.squared_error import images_of, in_double

__all__ = ["NEAR", "RECOVERED", "images_evidence", "planted_evidence", "sentences"]

RECOVERED = 1e-6
"""Squared error per pixel below which a planted image is found again."""

NEAR = 0.02
"""What of the distance of two codes of N(0, I), or of two of their images, is within one cluster."""

OTHERS = 3
"""Clusters, the lowest, to which barriers from the best one are looked for."""

Generator = Callable[[Tensor], Tensor]


class Pair(NamedTuple):
    """Two codes between which a barrier of the loss of an image is looked for.

    Attributes:
        kind: Between clusters, inside the best one (where it should be none), or to another image's best code.
        image: Whose loss it is.
        start: The run at one end, of this image.
        end: The run at the other.
        end_image: The image that this is a run of.
    """

    kind: str
    image: int
    start: int
    end: int
    end_image: int


def planted_evidence(generator: Generator, images: Tensor, found: Inversion) -> dict[str, Any]:
    """The control: of images that the generator made the least loss is 0, so what ends higher is not global.

    Args:
        generator: In eval mode.
        images: `(N, *event)`.
        found: Their inversion.

    Returns:
        Numbers of runs but where said otherwise: `images`, how many; `restarts`, for each; `recovered`, of the images,
        and `success`, of the runs, the share below `RECOVERED`; `hardest_success`, of the runs of the image with the
        fewest; `worst_best_loss`, squared error per pixel; `restarts_for_95_percent`, the least number that misses an
        image with probability 5 % at most, averaged over these images, None if more than were made;
        `restarts_at_pooled_rate`, those that one image with the rate `success` would need; `failed`, and of these
        `minima` (`smooth_minima` or `minima_with_kinks`), `flat`, `outside` of twice the length of the prior's codes,
        and the least and largest `failed_loss`.
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
        "hardest_success": float(solved.double().mean(0).min()),
        "worst_best_loss": float(found.loss.amin(0).max()),
        "restarts_for_95_percent": _restarts(solved.sum(0).tolist(), len(solved)),
        "restarts_at_pooled_rate": None if rate == 0 else restarts_needed(rate),
        "failed": int(lost.sum()),
        "outside": int((_outside(found.z) & lost).sum()),
    }
    if figures["failed"]:
        which = lost.nonzero()
        around = minima(generator, images[which[:, 1]], found.z[lost])
        scale = found.start_gradient_norm.mean(0)[which[:, 1]]
        figures |= _counts(around, scale, outside=_outside(found.z[lost]))
        figures["failed_loss"] = [float(found.loss[lost].min()), float(found.loss[lost].max())]
    else:
        figures |= {"minima": 0, "smooth_minima": 0, "minima_with_kinks": 0, "flat": 0}
    return figures


def images_evidence(generator: Generator, images: Tensor, found: Inversion) -> dict[str, Any]:
    """For images of unknown least loss: which runs ended at minima, their clusters, and the barriers between these.

    What two codes of one cluster show of a barrier is the noise of an image. They are near each other: of codes far
    apart it is not known whether a valley joins them, but for generators made so, on which the search was tried.

    Args:
        generator: In eval mode.
        images: `(N, *event)`.
        found: Their inversion.

    Returns:
        `images`, how many; `restarts`, for each; of the `runs`, those at `minima` (`smooth_minima` or
        `minima_with_kinks`), those without gradient where it is `flat`, and those `outside` of twice the length of the
        prior's codes; `with_several_clusters`, of the images; `pairs` of clusters tried, and how many have a barrier,
        `pairs_with_barrier`, or one on the line; medians, relative to the loss at the higher end, of these barriers
        and of those to the best code of another image, None where there is none; `highest_barrier_inside_a_cluster`,
        likewise relative. In `each`, for each image: `best_loss`, squared error per pixel, and whether this
        `best_is_minimum`; how many runs settled, at minima or where it is flat; of these their `clusters`, by code and
        by image, how many are in the lowest, `at_best`, and each cluster's least loss; and the `barriers` from the
        lowest cluster to the next ones, squared error per pixel but for the `relative` one: the `loss` at the higher
        end, the rise on the line, `straight`, on the best path, `relaxed`, by how much this may be too high,
        `uncertainty`, and whether it is `found`.
    """
    around, scale = minima(generator, images, found.z), found.start_gradient_norm.mean(0)
    outside = _outside(found.z)
    settled = (around.smooth(scale) | around.flat(scale) | around.nonsmooth(scale)) & ~outside
    codes, pixels = typical_distances(generator, found.z.shape[-1], images)
    with torch.no_grad():
        made = images_of(in_double(generator), found.z)
    each, pairs = [], []
    for i, loss in enumerate(found.loss.T.tolist()):
        runs = sorted(settled[:, i].nonzero().flatten().tolist(), key=loss.__getitem__)
        by_code, by_image = _clusters(found.z[runs, i], NEAR * codes), _clusters(made[runs, i], NEAR * pixels)
        heads = [members[0] for members in by_code]
        best = min(range(len(loss)), key=loss.__getitem__)
        each.append(
            {
                "best_loss": loss[best],
                "best_is_minimum": bool(settled[best, i]),
                "settled": len(runs),
                "at_best": len(by_code[0]) if runs else 0,
                "clusters": len(heads),
                "clusters_of_images": len(by_image),
                "cluster_losses": [loss[runs[head]] for head in heads],
                "barriers": [],
            }
        )
        pairs += [Pair("between", i, runs[heads[0]], runs[head], i) for head in heads[1 : 1 + OTHERS]]
        if runs and len(by_code[0]) > 1:
            pairs.append(Pair("inside", i, runs[0], runs[by_code[0][-1]], i))
        if runs and len(images) > 1:
            pairs.append(Pair("other image", i, runs[0], int(found.loss[:, i - 1].argmin()), (i - 1) % len(images)))
    rises = _rises(generator, images, found.z, pairs)
    noise, other = _nulls(pairs, rises)
    around_each = torch.tensor([noise.get(pair.image, 0.0) for pair in pairs], dtype=torch.float64)
    bent, straight = rises.found(around_each).tolist(), rises.found_on_the_line(around_each).tolist()
    for row, pair in enumerate(pairs):
        if pair.kind == "between":
            at = Barriers(*(float(values[row]) for values in rises))
            figures = {"loss": at.higher, "straight": at.straight, "relaxed": at.relaxed, "uncertainty": at.uncertainty}
            figures |= {"relative": _relative(at.relaxed, at.higher), "found": bent[row]}
            each[pair.image]["barriers"].append(figures | {"found_on_the_line": straight[row]})
    between = [one for image in each for one in image["barriers"]]
    real = [one["relative"] for one in between if one["found"]]
    inside = [_relative(float(r), float(h)) for p, r, h in _rows(pairs, rises) if p.kind == "inside"]
    return {
        "images": len(images),
        "restarts": len(settled),
        "runs": settled.numel(),
        **_counts(around, scale, outside=outside),
        "outside": int(outside.sum()),
        "with_several_clusters": sum(image["clusters"] > 1 for image in each),
        "pairs": len(between),
        "pairs_with_barrier": len(real),
        "pairs_with_straight_barrier": sum(one["found_on_the_line"] for one in between),
        "median_relative_barrier": median(real) if real else None,
        "highest_barrier_inside_a_cluster": max(inside, default=None),
        "median_barrier_to_another_image": median(other) if other else None,
        "each": each,
    }


def sentences(found: dict[str, Any]) -> dict[str, str]:
    """What the figures say, by part, and no more."""
    said = {}
    if "planted" in found:
        said["planted"] = _of_planted(found["planted"])
    if "targets" in found:
        said["targets"] = _of_targets(found["targets"])
    return said


def _of_planted(of: dict[str, Any]) -> str:
    needed, open_ = of["restarts_for_95_percent"], of["failed"] - of["minima"] - of["flat"]
    text = f"{of['recovered']} of {of['images']} planted images were recovered to below {RECOVERED:g} per pixel, "
    text += f"by {of['success']:.1%} of {of['runs']:,} runs, and {of['hardest_success']:.1%} of the hardest image's; "
    if needed is None:
        text += f"all {of['restarts']} restarts leave out more than 5 % of these images."
    else:
        text += (
            f"{needed} restart{'s recover' if needed > 1 else ' recovers'} one of these images with probability 95 %, "
        )
        text += "on average over them."
    if of["failed"]:
        text += f" The least loss is 0, so that the other {of['failed']:,} runs ended at no global minimum: "
        text += f"{of['minima']:,} at local minima, which are provably not global, "
        if of["flat"]:
            text += f"{of['flat']:,} where it is flat in some direction, "
        text += f"and {open_:,} short of one ({of['outside']:,} of these ran off to more than twice the length of the "
        text += "prior's codes)."
    return text


def _of_targets(of: dict[str, Any]) -> str:
    text = f"{of['minima']:,} of {of['runs']:,} runs on {of['images']} images ended at minima, {of['smooth_minima']:,} "
    text += f"by gradient and Hessian, {of['minima_with_kinks']:,} at kinks, by gradients around and no lower point "
    text += "among them"
    text += f"; {of['flat']:,} more where it is flat in some direction and nothing lower." if of["flat"] else "."
    if of["outside"]:
        text += f" {of['outside']:,} ran off to more than twice the length of the prior's codes, and count as none."
    if of["minima"] or of["flat"]:
        text += f" The runs of {of['with_several_clusters']} of {of['images']} images ended in several places."
    if of["pairs"]:
        real = of["pairs_with_barrier"]
        text += f" Between an image's lowest place and the next ones the loss rises in {real} of {of['pairs']} pairs "
        text += f"on the best path found (on the line in {of['pairs_with_straight_barrier']})"
        if real:
            text += f", there by {of['median_relative_barrier']:.2%} of the higher end in the median: different starts "
            text += "find different local minima there, as far as paths were searched."
        else:
            text += ": no two are shown to be different minima, and they may be one valley."
    return text + " The least loss of these images is not known, so that no minimum can be said to be global."


def _restarts(successes: list[int], restarts: int) -> int | None:
    """The least number, of those made, that draws no success with probability 5 % at most, averaged over images."""
    for count in range(1, restarts + 1):
        # Drawn without replacement from an image's own runs: a rate pooled over images would be too hopeful.
        missed = sum(math.comb(restarts - k, count) for k in successes) / math.comb(restarts, count)
        if missed <= 0.05 * len(successes):
            return count
    return None


def _clusters(points: Tensor, threshold: float) -> list[list[int]]:
    """Members of each cluster of points `(count, features)`, in the points' order."""
    members: dict[int, list[int]] = {}
    if len(points):
        for row, label in enumerate(clusters(points, threshold).tolist()):
            members.setdefault(label, []).append(row)
    return list(members.values())


def _rises(generator: Generator, images: Tensor, z: Tensor, pairs: list[Pair]) -> Barriers:
    """Barriers of all pairs, on the host."""
    if not pairs:
        return Barriers(*torch.zeros(4, 0, dtype=torch.float64))
    _, image, start, end, end_image = (list(values) for values in zip(*pairs, strict=True))
    return Barriers(*(v.cpu() for v in barriers(generator, images[image], z[start, image], z[end, end_image])))


def _rows(pairs: list[Pair], rises: Barriers) -> list[tuple[Pair, float, float]]:
    """Each pair's rise on the best path, and the loss at its higher end."""
    return list(zip(pairs, rises.relaxed.tolist(), rises.higher.tolist(), strict=True))


def _nulls(pairs: list[Pair], rises: Barriers) -> tuple[dict[int, float], list[float]]:
    """By image the rise inside its best cluster, squared error per pixel; and those to other images, relative."""
    rows = _rows(pairs, rises)
    noise = {pair.image: relaxed for pair, relaxed, _ in rows if pair.kind == "inside"}
    return noise, [_relative(relaxed, higher) for pair, relaxed, higher in rows if pair.kind == "other image"]


def _relative(rise: float, loss: float) -> float:
    """A rise relative to a loss, 0 where there is none."""
    return rise / loss if loss > 0 else 0.0


def _counts(around: Minima, scale: Tensor, *, outside: Tensor) -> dict[str, int]:
    """Of each kind those that are not `outside`: what slides down a tail for ever looks like a minimum from there."""
    smooth, kinked, flat = (of(scale) & ~outside for of in (around.smooth, around.nonsmooth, around.flat))
    kinds = {"minima": smooth | kinked, "smooth_minima": smooth, "minima_with_kinks": kinked & ~smooth}
    return {name: int(which.sum()) for name, which in (kinds | {"flat": flat & ~kinked}).items()}


def _outside(z: Tensor) -> Tensor:
    """Codes at more than twice the length that N(0, I) has."""
    return z.norm(dim=-1) > 2 * math.sqrt(z.shape[-1])
