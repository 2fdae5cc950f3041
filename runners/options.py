"""The options of `svi.py`, and which of them do not go together."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ppl_models import UsageError
from runners.loop.command import Options
from runners.loop.parser import (
    Parser,
    add_graph_option,
    add_image_options,
    add_run_options,
    fraction,
    natural,
    non_negative_number,
    number,
    positive,
    positive_number,
)
from runners.own import is_own
from runners.presets import DEFAULTS, PRESET_HELP, PRESETS

__all__ = [
    "FAMILIES",
    "GUIDES",
    "MODELS",
    "NEEDED",
    "check_options",
    "parser",
]

NEEDED: tuple[tuple[Sequence[str], str, Sequence[Any]], ...] = (
    (("betas",), "optimizer", ("adam",)),
    (("hidden", "activation"), "model", ("mlp",)),
    (("sigma2", "learn_sigma2"), "likelihood", ("gaussian",)),
    (("scale",), "family", ("diagonal",)),
    (("rank",), "family", ("low-rank",)),
    (("joint", "carried", "cold"), "guide", ("free",)),
    (("local_steps", "local_rule", "local_lr", "updates"), "guide", ("free", "semi-amortized")),
    (("first_order",), "guide", ("semi-amortized",)),
    (("beta",), "objective", ("beta",)),
    (("schedule",), "objective", ("annealed",)),
    (("free_bits",), "objective", ("elbo", "annealed", "beta")),
    (("target", "constraint", "multiplier", "multiplier_lr"), "objective", ("constrained",)),
    (("gradient",), "objective", ("iwae",)),
)
"""Options that change something only where another one has certain values."""

OWN = {
    "model": ("hidden", "activation", "likelihood", "sigma2", "learn_sigma2"),
    "guide": ("family", "scale", "rank"),
}
"""Options that describe the toolkit's models and guides, not a user's."""

MODELS, GUIDES = ("conv", "mlp", "deep", "ladder"), ("free", "amortized", "semi-amortized")
FAMILIES = ("diagonal", "full-rank", "low-rank", "flow", "echo")
SCHEDULES = ("linear", "falling", "sigmoid", "cyclical")


def parser(
    page: str | None,
    *,
    description: str = "Variational inference in a deep generative model.",
    defaults: Options = DEFAULTS,
) -> Parser:
    """The options of svi.py, whose docstring is `page`, or of a command that has them too.

    Args:
        page: The command's docstring.
        description: The command in one line.
        defaults: What the help shows.
    """
    parser = Parser(description, page)
    parser.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help=PRESET_HELP)
    run = parser.add_argument_group("the run")
    add_image_options(run)
    add_run_options(run)
    add_graph_option(run)
    switch = argparse.BooleanOptionalAction  # a preset's can be taken back
    add = parser.add_argument_group("the model").add_argument
    add("--model", type=_named(MODELS), help=f"{', '.join(MODELS)}, or a file of yours, my.py:MyVAE")
    add("--conditional", action=switch, help="on class labels: p(x given y, z), q(z given x, y)")
    add("--latents", type=positive, help="dimensions of the latent")
    add("--hidden", type=positive, nargs="+", help="widths of the mlp's hidden layers")
    add("--activation", choices=["relu", "tanh", "leaky-relu"], help="of the mlp")
    add("--likelihood", choices=["bernoulli", "gaussian"], help="of the pixels")
    add("--sigma2", type=positive_number, help="variance of the Gaussian likelihood")
    add("--learn-sigma2", action=switch, help="learn that variance; --sigma2 is where it starts")
    add = parser.add_argument_group("the guide").add_argument
    add("--guide", type=_named(GUIDES), help=f"{', '.join(GUIDES)}, or a file of yours, my.py:MyGuide")
    add("--family", choices=FAMILIES, help="of the posteriors")
    add("--scale", choices=["log", "softplus"], help="how the diagonal family's standard deviation is written")
    add("--rank", type=positive, help="of the low-rank family's factor")
    add("--local-steps", type=positive, help="updates of an image's parameters (default: 10; semi-amortized: 20)")
    add("--local-rule", choices=["adam", "sgd"], help="by which rule (default: adam; semi-amortized: sgd)")
    add("--local-lr", type=positive_number, help="and step size per image (default: the rule's)")
    add("--first-order", action="store_true", help="train a semi-amortized encoder without gradients through updates")
    add("--joint", action="store_true", help="one optimiser: an image's parameters move with the decoder, by one step")
    add("--carried", action="store_true", help="one set of free parameters per batch position, as in the course")
    add("--cold", action="store_true", help="free parameters start at the prior at each visit")
    add = parser.add_argument_group("the objective").add_argument
    add("--objective", choices=["elbo", "annealed", "beta", "constrained", "iwae"], help="what is maximised")
    add("--beta", type=non_negative_number, help="weight of the KL term (default: 4)")
    add("--schedule", choices=SCHEDULES, help="of the annealed KL weight")
    add("--free-bits", type=non_negative_number, help="nats of KL per latent site that cost nothing")
    add("--target", type=number, help="of the constraint, per image (default: -90 nats)")
    add("--constraint", choices=["log-likelihood", "squared-error"], help="at least, or at most, the target")
    add("--multiplier", choices=["softplus", "moving-average"], help="the rule by which the multiplier moves")
    add("--multiplier-lr", type=positive_number, help="and its step size (default: 1e-3; moving-average: 3e-4)")
    add("--particles", type=positive, help="samples of the latents per image (default: 1; iwae: 5)")
    add("--gradient", choices=["dreg", "stl", "plain"], help="estimator of the iwae guide's gradient")
    add = parser.add_argument_group("the optimiser").add_argument
    add("--optimizer", choices=["adam", "rmsprop"], help="of the networks")
    add("--lr", type=positive_number, help="its step size")
    add("--betas", type=fraction, nargs=2, help="of adam (default: the course's 0.9 0.9)")
    add("--clip", type=positive_number, help="global norm that gradients are clipped to")
    add("--epochs", type=positive, help="instead of --steps")
    add("--init", choices=["torch", "glorot"], help="how networks start (default: glorot with an encoder, else torch)")
    add("--all-train", action=switch, help="train on all 60 000 images, leaving none for validation")
    add = parser.add_argument_group("the report").add_argument
    add("--pictures", type=natural, help="how many pictures of predictive samples to draw during training")
    add("--images", type=positive, help="test images of the final figures (default: all; 1000 where they are refined)")
    add("--updates", type=positive, help="updates of each of them (default: free 200; semi-amortized: --local-steps)")
    add("--evidence", type=natural, metavar="SAMPLES", help="importance-sample log p(x) of them, by default of 1000")
    return parser.showing(defaults)


def _named(names: Sequence[str]) -> Callable[[str], str]:
    def name(text: str) -> str:
        if text not in names and not is_own(text):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {', '.join(names)} or FILE.py:NAME")
        return text

    return name


def check_options(given: Options, options: Options) -> None:
    """Refuse options that were typed and would change nothing, or that do not go together.

    Raises:
        UsageError: There is one.
    """
    if options["joint"]:
        for name in ("local_steps", "local_rule", "local_lr"):
            if name in given:
                raise UsageError(
                    f"--{name.replace('_', '-')}: changes nothing with --joint, which takes the decoder's step"
                )
    for names, option, values in NEEDED:
        for name in names:
            if name in given and options[option] not in values:
                typed, needed = name.replace("_", "-"), option.replace("_", "-")
                raise UsageError(
                    f"--{typed}: changes nothing with --{needed} {options[option]}, only with {' or '.join(values)}"
                )
    for name in ("model", "guide"):
        owned = [other for other in OWN[name] if is_own(options[name]) and other in given]
        if owned:
            raise UsageError(f"--{owned[0].replace('_', '-')}: changes nothing with a {name} of your own")
    if options["model"] == "ladder":
        if options["conditional"]:
            raise UsageError("--conditional: the ladder reads no labels; expected --model conv, mlp or deep")
        if options["guide"] in ("free", "semi-amortized"):
            raise UsageError(
                f"--guide {options['guide']}: keeps or refines parameters of one latent, the ladder has two; expected "
                "--guide amortized"
            )
        if options["family"] != "diagonal":
            raise UsageError(f"--family {options['family']}: the ladder's guide is diagonal in each layer")
        if "latents" in given:
            raise UsageError("--latents: the ladder has 100 and 50")
    if options["family"] == "echo" and options["guide"] != "amortized" and not is_own(options["guide"]):
        raise UsageError(
            f"--guide {options['guide']}: Echo noise is other images' codes, so that no image's own parameters can be "
            "kept or refined; expected --guide amortized"
        )
    if options["family"] == "echo" and options["objective"] == "iwae":
        raise UsageError("--objective iwae: Echo has a rate but no density, which importance weights need")
    if options["family"] == "echo" and options["evidence"]:
        raise UsageError("--evidence: Echo has a rate but no density, which importance weights need")
    if options["family"] == "low-rank" and options["rank"] > options["latents"]:
        raise UsageError(f"--rank: found {options['rank']}, expected at most {options['latents']}, the latents")
    if options["family"] == "echo" and options["batch"] < 2:
        raise UsageError("--batch 1: Echo noise is made of the other images of a batch, expected at least 2")
    if options["constraint"] == "squared-error" and "target" not in given and options["target"] == DEFAULTS["target"]:
        raise UsageError("--constraint squared-error: needs a --target, the largest squared error of an image")
    if options["guide"] == "semi-amortized" and options["local_rule"] == "adam" and not options["first_order"]:
        raise UsageError("--local-rule adam: exact gradients through the updates need sgd, or add --first-order")
