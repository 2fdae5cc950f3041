"""The options of `gan.py`: defaults, presets, and the networks and optimisers that they describe."""

import argparse
from functools import partial
from typing import Any

import torch
from torch import nn

from ppl_models import (
    ConvDecoder,
    ConvEncoder,
    Critic,
    DeepConvDecoder,
    DeepConvEncoder,
    Generator,
    MLPDecoder,
    MLPEncoder,
    UsageError,
    dcgan_,
    glorot_,
)
from ppl_models.augmentation import CHANGES
from runners.data import DataSet
from runners.loop.command import Options
from runners.loop.parser import (
    Parser,
    add_graph_option,
    add_image_options,
    add_run_options,
    fraction,
    natural,
    non_negative_number,
    positive,
    positive_number,
)
from runners.loop.random import forked

__all__ = ["DEFAULTS", "PRESETS", "PRESET_HELP", "QUICK", "check_options", "networks_of", "parser", "settings_of"]

DEFAULTS: Options = {
    "preset": "s12",
    "data": "auto",
    "data_root": None,
    "all_train": False,
    "binarize": "none",
    "networks": "conv",
    "latents": 10,
    "init": "glorot",  # from torch's own start the images have no contrast, and the critic has won
    "loss": "gan",
    "critic_steps": None,
    "generator_steps": 1,
    "penalty": None,
    "r1": 0.0,
    "path_energy": 0.0,
    "fuzz": 0.0,
    "augment": [],
    "average": None,
    "critic_lr": 1e-4,
    "critic_betas": [0.5, 0.9],
    "generator_lr": None,
    "generator_betas": None,
    "batch": 64,
    "steps": 10_000,
    "epochs": None,
    "precision": "float32",
    "pictures": 10,
    "selection": 20,
    "seed": 0,
    "device": None,
    "graph": None,
    "tensorboard": False,
    "quick": False,
}

BY_LOSS: dict[str, Options] = {
    "wgan-gp": {"critic_steps": 5, "penalty": 10.0, "generator_lr": 1e-4, "generator_betas": [0.5, 0.9]},
}
"""What a loss brings along where nothing else is said."""

OTHERWISE: Options = {"critic_steps": 1, "penalty": 0.0, "generator_lr": 3e-4, "generator_betas": [0.9, 0.9]}

SLOW: Options = {
    "latents": 128,
    "critic_lr": 1e-4,
    "critic_betas": [0.5, 0.999],
    "generator_lr": 1e-4,
    "generator_betas": [0.5, 0.999],
    "epochs": 100,
}

PRESETS: dict[str, Options] = {
    "s12": {},
    "s12-saturating": {"loss": "saturating"},
    "s13": {"loss": "wgan-gp"},
    "s14": SLOW
    | {
        "networks": "deep",
        "latents": 100,
        "init": "dcgan",
        "fuzz": 0.1,
        "critic_lr": 2e-4,
        "generator_lr": 2e-4,
        "batch": 32,
        "steps": 3000,
        "epochs": None,
    },
    "s14-mlp": SLOW | {"networks": "mlp"},
    "s14-mixed": SLOW | {"networks": "mixed"},
    "s17": {"path_energy": 1.0},
}

PRESET_HELP = (
    "settings by name, which other options change: s12 a GAN (the default; s12-saturating by "
    "its first loss), s13 a WGAN with gradient penalty, s14 a "
    "DCGAN for colour photographs, s14-mlp fully connected and s14-mixed its generator with two "
    "convolutions, s17 s12 with the energy of paths between latents"
)

QUICK: Options = {"steps": 300, "pictures": 2, "selection": 0}

NETWORKS = ("conv", "mlp", "mixed", "deep")
LOSSES = ("gan", "saturating", "wgan-gp", "least-squares", "hinge")
LABELLED = ("gan", "saturating")


def parser(page: str | None) -> Parser:
    """The options of gan.py, whose docstring is `page`."""
    parser = Parser("A generative adversarial network.", page)
    parser.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help=PRESET_HELP)
    run = parser.add_argument_group("the run")
    add_image_options(run)
    add_run_options(run)
    add_graph_option(run)
    add = parser.add_argument_group("the networks").add_argument
    add("--networks", choices=NETWORKS, help="conv, mlp, mixed or, with batch norm, deep")
    add("--latents", type=positive, help="dimensions of the generator's latent")
    add("--init", choices=["torch", "glorot", "dcgan"], help="how they start")
    add = parser.add_argument_group("the loss").add_argument
    add("--loss", choices=LOSSES, help="what the two minimise")
    add("--critic-steps", type=positive, help="critic updates per step (default: 1; wgan-gp: 5)")
    add("--generator-steps", type=positive, help="generator updates per step")
    add("--penalty", type=non_negative_number, help="weight of the gradient penalty (default: 0; wgan-gp: 10)")
    add("--r1", type=non_negative_number, help="weight of R1, the slope at real images")
    add("--path-energy", type=non_negative_number, metavar="WEIGHT", help="of the energy of paths between latents")
    add("--fuzz", type=non_negative_number, help="how far labels stray from 0 and 1")
    add(
        "--augment", nargs="+", choices=list(CHANGES), metavar="HOW", help=f"what the critic sees: {', '.join(CHANGES)}"
    )
    add("--average", type=fraction, metavar="DECAY", help="keep an average of the generator, such as 0.999")
    add = parser.add_argument_group("the optimisers").add_argument
    add("--critic-lr", type=positive_number, help="of its Adam")
    add("--critic-betas", type=fraction, nargs=2, help="likewise")
    add("--generator-lr", type=positive_number, help="of its Adam (default: 3e-4; wgan-gp: 1e-4)")
    add("--generator-betas", type=fraction, nargs=2, help="likewise (default: 0.9 0.9; wgan-gp: 0.5 0.9)")
    add("--epochs", type=positive, help="instead of --steps, in which the critic sees all images")
    add("--all-train", action=argparse.BooleanOptionalAction, help="train on all images, leaving none for validation")
    add = parser.add_argument_group("the report").add_argument
    add("--pictures", type=natural, help="how many pictures of samples to draw during training")
    add("--selection", type=natural, help="how often to look for the best generator; 0 for never")
    return parser.showing(DEFAULTS)


def check_options(given: Options, options: Options) -> None:
    """Refuse options that were typed and would change nothing, or that do not go together.

    Raises:
        UsageError: There is one.
    """
    if given.get("fuzz") and options["loss"] not in LABELLED:
        raise UsageError(f"--fuzz: {options['loss']} has no labels, expected --loss gan or saturating")
    if options["networks"] == "deep" and (options["penalty"] or options["r1"] or options["loss"] == "wgan-gp"):
        raise UsageError("--networks deep: batch norm makes images' slopes depend on each other; no penalty on them")


def networks_of(options: Options, data: DataSet) -> tuple[Generator, Critic]:
    """The generator and the critic that options describe, fresh from the options' seed.

    Raises:
        UsageError: They are not for images of this size.
    """
    shape, latents = data.shape, options["latents"]
    if options["networks"] in ("deep", "mixed") and (shape[1] % 4 or shape[2] % 4):
        raise UsageError(f"--networks {options['networks']}: images of {shape[1]}×{shape[2]}, expected multiples of 4")
    if options["networks"] == "deep" and (shape[1] % 16 or shape[2] % 16):
        raise UsageError(
            f"--networks deep: images of {shape[1]}×{shape[2]}, expected sides that are multiples of 16, as the 64×64 "
            "of --data FOLDER"
        )
    leaky: dict[str, Any] = {"activation": "leaky-relu"}
    with forked(options["seed"], torch.device("cpu")):
        match options["networks"]:
            case "conv":
                decoder: nn.Module = ConvDecoder(latents=latents, shape=shape)
                encoder: nn.Module = ConvEncoder(shape=shape, channels=(8, 16, 32, 64, 64), strides=(2, 1, 2, 1, 2))
            case "mlp":
                decoder = MLPDecoder(latents=latents, shape=shape, hidden=(256, 512, 1024), **leaky)
                encoder = MLPEncoder(shape=shape, hidden=(1024, 512, 256), **leaky)
            case "mixed":
                small = {"channels": (128, 64), "hidden": (1024,), "norm": "batch"}
                decoder = DeepConvDecoder(latents=latents, shape=shape, **small, **leaky)
                encoder = MLPEncoder(shape=shape, hidden=(1024, 512, 256), **leaky)
            case _:
                decoder = DeepConvDecoder(latents=latents, shape=shape, norm="batch")
                encoder = DeepConvEncoder(shape=shape, norm="batch", **leaky)
        start = {"torch": lambda module: module, "glorot": glorot_, "dcgan": dcgan_}[options["init"]]
        return start(Generator(decoder)), start(Critic(encoder))


def settings_of(options: Options) -> dict[str, Any]:
    """The settings of a `GanFit` that options describe."""
    own = OTHERWISE | BY_LOSS.get(options["loss"], {})
    chosen = options | {name: value for name, value in own.items() if options[name] is None}
    same = (
        "critic_steps",
        "generator_steps",
        "penalty",
        "r1",
        "path_energy",
        "fuzz",
        "augment",
        "average",
        "batch",
        "precision",
    )
    if options["loss"] not in LABELLED:
        chosen["fuzz"] = 0.0  # a preset's
    return {
        "loss": "wasserstein" if options["loss"] == "wgan-gp" else options["loss"],
        "critic_optimizer": _adam(chosen["critic_lr"], chosen["critic_betas"]),
        "generator_optimizer": _adam(chosen["generator_lr"], chosen["generator_betas"]),
        **{name: chosen[name] for name in (*same, "pictures", "selection", "seed")},
    }


def _adam(lr: float, betas: list[float]) -> Any:
    return partial(torch.optim.Adam, lr=lr, betas=tuple(betas), fused=True)
