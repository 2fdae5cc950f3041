"""Do different starts find different minima when images are inverted through a GAN's generator?"""

from collections.abc import Mapping
from typing import Any

from runners import figures
from runners.invert import invert
from runners.studies.adversaries import STEADY
from runners.studies.answer import Answer
from runners.studies.point import Made, Point, of_gan

__all__ = ["MINUTES", "answer", "runs"]

MINUTES = (1.5, 19)

QUICK = {"images": 4, "planted": 6, "restarts": 8}


def runs(*, quick: bool) -> dict[str, Point]:
    """A GAN, which is then only looked at."""
    settings = STEADY | {"steps": 600} if quick else {"steps": 8000}
    return {"S12": of_gan(pictures=0, selection=0, **settings)}


def answer(made: dict[str, Made], *, quick: bool) -> Answer:
    """Where the starts of each image end, and of images whose least loss is known."""
    fit = made["S12"].fit
    found = invert(fit, **QUICK if quick else {})
    planted, targets = found["planted"], found["targets"]
    table = [_row(f"test image {place}", image, targets["restarts"]) for place, image in enumerate(targets["each"])]
    table.append(
        {
            "inverted": f"{planted['images']} planted, in the mean",
            "best_loss": planted["worst_best_loss"],
            "settled": (planted["runs"] - planted["failed"] + planted["minima"] + planted["flat"]) / planted["runs"],
            "at_the_best": planted["success"],
        }
    )
    pictures = {
        "inversion": found.pictures["inversion"],
        "places": figures.places(found.codes["targets"].loss, targets["each"]),
    }
    return Answer(table, pictures, [_in_short(targets), *found["verdict"].values()])


def _row(name: str, image: Mapping[str, Any], restarts: int) -> dict[str, Any]:
    """What became of an image's starts: how many settled, in how many places, and what lies between these."""
    rises = [one["relative"] for one in image["barriers"] if one["found"]]
    return {
        "inverted": name,
        "best_loss": image["best_loss"],
        "settled": image["settled"] / restarts,
        "at_the_best": image["at_best"] / restarts,
        "places": image["clusters"],
        "places_by_image": image["clusters_of_images"],
        "barriers": f"{len(rises)} of {len(image['barriers'])}",
        **({"highest_rise": max(rises)} if rises else {}),
    }


def _in_short(targets: Mapping[str, Any]) -> str:
    """For how many images the answer is yes, and what its noise is."""
    several = sum(any(one["found"] for one in image["barriers"]) for image in targets["each"])
    inside, other = targets["highest_barrier_inside_a_cluster"], targets["median_barrier_to_another_image"]
    said = f"Different starts find different minima of {several} of {targets['images']} images: a place that no path "
    said += "found joins to the lowest one without a rise of the loss."
    if inside is not None:
        said += f" Inside one place the rise is {inside:.2%} at most, the noise of the search."
    if other is not None:
        said += f" To the best code of another image it is {other:.2%} in the median."
    return said
