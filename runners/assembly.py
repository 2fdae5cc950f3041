"""The options of `svi.py`, presets of them, and the model, guide and data set that they describe."""

from collections.abc import Callable
from functools import partial

import torch

from guides import SGD, Adam, Amortized, Diagonal, Free, Refinement
from ppl_models import VAE, Bernoulli, ConvDecoder, ConvEncoder, Gaussian, MLPDecoder, MLPEncoder, UsageError, glorot_
from runners import data as sources
from runners.data import DataSet
from runners.loop.command import (
    Options,
    Parser,
    add_run_options,
    natural,
    non_negative_number,
    positive,
    positive_number,
)
from runners.loop.random import forked

__all__ = [
    "DEFAULTS",
    "INIT",
    "PRESETS",
    "QUICK",
    "check_options",
    "data_of",
    "device_of",
    "optimizer_of",
    "pair_of",
    "parser",
]

DEFAULTS: Options = {
    "preset": "s1",
    "data": "auto",
    "data_root": None,
    "all_train": False,
    "binarize": "none",
    "model": "conv",
    "hidden": [200, 200],
    "likelihood": "bernoulli",
    "sigma2": 0.01,
    "latents": 10,
    "guide": "free",
    "init": None,
    "scale": "log",
    "local_steps": 10,
    "local_rule": "adam",
    "local_lr": None,
    "joint": False,
    "carried": False,
    "cold": False,
    "beta": 1.0,
    "particles": 1,
    "optimizer": "adam",
    "lr": 1e-3,
    "betas": [0.9, 0.9],
    "clip": None,
    "batch": 64,
    "steps": 10_000,
    "epochs": None,
    "precision": "float32",
    "pictures": 0,
    "updates": 200,
    "images": None,
    "seed": 0,
    "device": None,
    "quick": False,
}

PRESETS: dict[str, Options] = {
    "s1": {},
    # The course's own setting: plain SGD of 0.05 on the mean over 64 images, in variables that are carried from batch
    # to batch whatever is in it. They hardly move.
    "s1-course": {"carried": True, "local_rule": "sgd", "local_lr": 0.05 / 64},
    "s2": {"guide": "amortized"},
    "s6": {
        "guide": "amortized",
        "model": "mlp",
        "latents": 100,
        "scale": "softplus",
        "binarize": "threshold",
        "optimizer": "rmsprop",
        "pictures": 5,
    },
    # S7's networks without its labels: the twin whose training curve is published.
    "s7-unlabelled": {
        "guide": "amortized",
        "model": "mlp",
        "hidden": [500, 500],
        "latents": 40,
        "betas": [0.9, 0.999],
        "binarize": "stochastic",
        "all_train": True,
        "batch": 128,
        "epochs": 50,
    },
}

INIT = {"free": "torch", "amortized": "glorot"}
"""How networks start by default: what trained each guide better on MNIST."""

QUICK: Options = {"steps": 300, "images": 200, "updates": 50}

NEEDED = (
    (("betas",), "optimizer", "adam"),
    (("hidden",), "model", "mlp"),
    (("sigma2",), "likelihood", "gaussian"),
    (("local_steps", "local_rule", "local_lr", "joint", "carried", "cold", "updates"), "guide", "free"),
)
"""Options that change something only where another one has a certain value."""


def parser(page: str | None) -> Parser:
    """The options of svi.py, whose docstring is `page`."""
    parser = Parser("Variational inference in a deep generative model.", page)
    add_run_options(parser)
    add = parser.add_argument
    add("--preset", choices=list(PRESETS), help="settings by name; other options change them")
    add("--model", choices=["conv", "mlp"], help="the networks of the VAE")
    add("--hidden", type=positive, nargs="+", help="widths of the mlp's hidden layers")
    add("--likelihood", choices=["bernoulli", "gaussian"])
    add("--sigma2", type=positive_number, help="variance of the Gaussian likelihood")
    add("--latents", type=positive)
    add("--guide", choices=["free", "amortized"])
    add("--init", choices=["torch", "glorot"], help="how networks start (default: glorot with an encoder, else torch)")
    add("--scale", choices=["log", "softplus"], help="how the posterior's standard deviation is written")
    add("--local-steps", type=positive, help="updates of an image's free parameters at each visit")
    add("--local-rule", choices=["adam", "sgd"])
    add("--local-lr", type=positive_number, help="step size per image (default: 0.5 for adam, 1e-3 for sgd)")
    add("--joint", action="store_true", help="one optimiser: an image's parameters move with the decoder, by one step")
    add("--carried", action="store_true", help="one set of free parameters per batch position, as in the course")
    add("--cold", action="store_true", help="free parameters start at the prior at each visit")
    add("--beta", type=non_negative_number, help="weight of the KL term")
    add("--particles", type=positive)
    add("--optimizer", choices=["adam", "rmsprop"])
    add("--lr", type=positive_number)
    add("--betas", type=non_negative_number, nargs=2, help="of adam (default: the course's 0.9 0.9)")
    add("--clip", type=positive_number, help="global norm that gradients are clipped to")
    add("--epochs", type=positive, help="instead of --steps")
    add("--all-train", action="store_true", help="train on all 60 000 images, leaving none for validation")
    add("--pictures", type=natural, help="how many pictures of predictive samples to draw during training")
    add("--updates", type=positive, help="updates of fresh free parameters in the final figures")
    add("--images", type=positive, help="test images of the final figures (default: all; 1000 with a free guide)")
    return parser


def check_options(given: Options, options: Options) -> None:
    """Refuse options that were typed and would change nothing.

    Raises:
        UsageError: There is one.
    """
    if options["joint"]:
        for name in ("local_steps", "local_rule", "local_lr"):
            if name in given:
                raise UsageError(
                    f"--{name.replace('_', '-')}: changes nothing with --joint, which takes the decoder's step"
                )
    for names, option, value in NEEDED:
        for name in names:
            if name in given and options[option] != value:
                typed, needed = name.replace("_", "-"), option.replace("_", "-")
                raise UsageError(f"--{typed}: changes nothing with --{needed} {options[option]}, only with {value}")


def data_of(options: Options) -> DataSet:
    """The data set that options name."""
    return sources.load(
        options["data"],
        root=options["data_root"],
        binarize=options["binarize"],
        all_train=options["all_train"],
    )


def optimizer_of(options: Options) -> Callable[..., torch.optim.Optimizer]:
    """The optimiser that options describe, still without its parameters.

    Raises:
        UsageError: Adam's betas are not below 1.
    """
    if options["optimizer"] == "rmsprop":
        # TensorFlow's constants. Its loss was the batch's sum, which an optimiser that divides by the gradient's size
        # does not see.
        return partial(torch.optim.RMSprop, lr=options["lr"], alpha=0.9, eps=1e-10)
    if max(options["betas"]) >= 1:
        raise UsageError(f"--betas: found {options['betas']}, expected two numbers from 0 to below 1")
    return partial(torch.optim.Adam, lr=options["lr"], betas=tuple(options["betas"]), fused=True)


def pair_of(options: Options, data: DataSet) -> tuple[VAE, Amortized | Free]:
    """The model and the guide that options describe, fresh from the options' seed."""
    with forked(options["seed"], torch.device("cpu")):
        model, guide = _model(options, data), _guide(options, data)
        if (options["init"] or INIT[options["guide"]]) == "glorot":
            glorot_(model)
            glorot_(guide)
        return model, guide


def _model(options: Options, data: DataSet) -> VAE:
    shape, latents = data.shape, options["latents"]
    if options["model"] == "mlp":
        decoder = MLPDecoder(latents=latents, shape=shape, hidden=options["hidden"][::-1])
    else:
        decoder = ConvDecoder(latents=latents, shape=shape)
    likelihood = Bernoulli() if options["likelihood"] == "bernoulli" else Gaussian(variance=options["sigma2"])
    return VAE(decoder=decoder, likelihood=likelihood)


def _guide(options: Options, data: DataSet) -> Amortized | Free:
    family = Diagonal(options["latents"], scale=options["scale"])
    if options["guide"] == "amortized":
        mlp = options["model"] == "mlp"
        encoder = MLPEncoder(shape=data.shape, hidden=options["hidden"]) if mlp else ConvEncoder(shape=data.shape)
        return Amortized(encoder=encoder, family=family)
    carried = options["carried"]
    rows = options["batch"] if carried else data.train
    return Free(rows, family=family, refinement=_refinement(options), warm=not options["cold"], carried=carried)


def _refinement(options: Options) -> Refinement:
    if options["joint"]:
        # The decoder's step size for the rows as well, their moments kept from visit to visit.
        rule = Adam(lr=options["lr"], betas=(0.9, 0.9))
        return Refinement(steps=1, rule=rule, decay=0.0, keep_moments=True, joint=True)
    given = {} if options["local_lr"] is None else {"lr": options["local_lr"]}
    if options["local_rule"] == "sgd":
        return Refinement(steps=options["local_steps"], rule=SGD(**given), final=1.0, decay=0.0)
    return Refinement(steps=options["local_steps"], rule=Adam(**given))


def device_of(name: str | None) -> torch.device | None:
    """The device of `--device`, or `None` for the default."""
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: found {name!r}, expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device: found {name!r}, expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device: found {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device
