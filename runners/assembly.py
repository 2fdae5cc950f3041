"""The model, guide, objective and optimiser that options of `svi.py` describe."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from guides import (
    ELBO,
    IWAE,
    SGD,
    Adam,
    Amortized,
    AmortizedLadder,
    Constrained,
    CyclicalSchedule,
    Diagonal,
    Echo,
    Flow,
    Free,
    FullRank,
    LinearSchedule,
    LowRank,
    Refinement,
    SemiAmortized,
    SigmoidSchedule,
)
from guides.objectives import Objective
from guides.semi_amortized import REFINEMENT
from ppl_models import (
    CVAE,
    VAE,
    Bernoulli,
    ConvDecoder,
    ConvEncoder,
    DeepConvDecoder,
    DeepConvEncoder,
    Gaussian,
    Ladder,
    MLPDecoder,
    MLPEncoder,
    UsageError,
    glorot_,
)
from runners.data import DataSet
from runners.loop import processes
from runners.loop.command import Options
from runners.loop.random import forked
from runners.own import is_own, own

__all__ = [
    "init_of",
    "objective_of",
    "optimizer_of",
    "pair_of",
]


INIT = {"free": "torch", "amortized": "glorot", "semi-amortized": "glorot"}
"""How networks start by default: what trained each guide better on MNIST."""

SCHEDULES = {
    "linear": LinearSchedule(),
    "falling": LinearSchedule(start=1.0, end=0.0),
    "sigmoid": SigmoidSchedule(),
    "cyclical": CyclicalSchedule(),
}


def objective_of(options: Options) -> Objective:
    """The objective that options describe."""
    particles = options["particles"] or (5 if options["objective"] == "iwae" else 1)
    free_bits = options["free_bits"]
    match options["objective"]:
        case "elbo":
            return ELBO(particles=particles, free_bits=free_bits)
        case "beta":
            return ELBO(options["beta"], particles=particles, free_bits=free_bits)
        case "annealed":
            return ELBO(SCHEDULES[options["schedule"]], particles=particles, free_bits=free_bits)
        case "iwae":
            return IWAE(particles=particles, gradient=options["gradient"])
    return Constrained(
        options["target"],
        constraint=options["constraint"].replace("-", "_"),
        rule=options["multiplier"].replace("-", "_"),
        lr=options["multiplier_lr"],
        particles=particles,
    )


def optimizer_of(options: Options) -> Callable[..., torch.optim.Optimizer]:
    """The optimiser that options describe, still without its parameters."""
    if options["optimizer"] == "rmsprop":
        # TensorFlow's constants. Its loss was the batch's sum, which an optimiser that divides by the gradient's size
        # does not see.
        return partial(torch.optim.RMSprop, lr=options["lr"], alpha=0.9, eps=1e-10)
    return partial(torch.optim.Adam, lr=options["lr"], betas=tuple(options["betas"]), fused=True)


def init_of(options: Options) -> str:
    """How networks start, "torch" or "glorot"."""
    return options["init"] or INIT.get(options["guide"], "torch")


def pair_of(options: Options, data: DataSet) -> tuple[nn.Module, nn.Module]:
    """The model and the guide that options describe, fresh from the options' seed.

    Raises:
        UsageError: A file of the user's own does not hold what was named.
    """
    with forked(options["seed"], torch.device("cpu")):
        model = _model(options, data)
        guide = _guide(options, data, model)
        if init_of(options) == "glorot":
            # Not what a file of the user's own starts, nor a family: a flow starts as the identity.
            if not is_own(options["model"]):
                glorot_(model)
            if not is_own(options["guide"]):
                for part in (part for name, part in guide.named_children() if name != "family"):
                    glorot_(part)
        return model, guide


def _model(options: Options, data: DataSet) -> nn.Module:
    shape, latents = data.shape, options["latents"]
    if is_own(options["model"]):
        return own(options["model"], shape=shape, latents=latents)
    gaussian = Gaussian(variance=options["sigma2"], learned=options["learn_sigma2"])
    likelihood = Bernoulli() if options["likelihood"] == "bernoulli" else gaussian
    if options["model"] == "ladder":
        return Ladder(decoder=MLPDecoder(latents=100, shape=shape, activation="tanh"), likelihood=likelihood)
    if options["model"] == "deep" and (shape[1] % 16 or shape[2] % 16):
        raise UsageError(
            f"--model deep: images of {shape[1]}×{shape[2]}, expected sides that are multiples of 16, as the 64×64 "
            "of --data FOLDER"
        )
    classes = _classes(options, data)
    mlp = {"hidden": options["hidden"][::-1], "activation": options["activation"]}
    make = {"conv": ConvDecoder, "mlp": partial(MLPDecoder, **mlp), "deep": DeepConvDecoder}[options["model"]]
    decoder = make(latents=latents + classes, shape=shape)
    if classes:
        return CVAE(latents=latents, classes=classes, decoder=decoder, likelihood=likelihood)
    return VAE(decoder=decoder, likelihood=likelihood)


def _guide(options: Options, data: DataSet, model: nn.Module) -> nn.Module:
    latents = getattr(model, "latents", options["latents"])
    if is_own(options["guide"]):
        return own(options["guide"], shape=data.shape, latents=latents, data=data.train)
    if options["model"] == "ladder":
        return AmortizedLadder(encoder=MLPEncoder(shape=data.shape, activation="tanh"))
    family = _family(options, latents)
    if options["guide"] == "free":
        rows = options["batch"] if options["carried"] else data.train
        refinement = _refinement(options, options["local_rule"] or "adam", 10)
        return Free(rows, family=family, refinement=refinement, warm=not options["cold"], carried=options["carried"])
    encoder = _encoder(options, data)
    if options["guide"] == "amortized":
        return Amortized(encoder=encoder, family=family)
    refinement = _refinement(options, options["local_rule"] or "sgd", 20)
    return SemiAmortized(encoder=encoder, family=family, refinement=refinement, exact=not options["first_order"])


def _family(options: Options, latents: int) -> nn.Module:
    match options["family"]:
        case "diagonal":
            return Diagonal(latents, scale=options["scale"])
        case "low-rank":
            return LowRank(latents, rank=options["rank"])
        case "echo":
            # With fewer others in a process's batch the chain is shorter, and its clip tighter.
            return Echo(latents, depth=min(99, options["batch"] // processes.count() - 1))
        case "full-rank":
            return FullRank(latents)
    return Flow(latents)


def _encoder(options: Options, data: DataSet) -> nn.Module:
    shape, classes = data.shape, _classes(options, data)
    if options["model"] == "mlp":
        hidden, activation = options["hidden"], options["activation"]
        return MLPEncoder(shape=shape, hidden=hidden, activation=activation, classes=classes)
    return (DeepConvEncoder if options["model"] == "deep" else ConvEncoder)(shape=shape, classes=classes)


def _classes(options: Options, data: DataSet) -> int:
    return int(data.train.labels.max()) + 1 if options["conditional"] else 0


def _refinement(options: Options, rule: str, steps: int) -> Refinement:
    if options["joint"]:
        # The decoder's step size for the rows as well, their moments kept from visit to visit.
        joint = Adam(lr=options["lr"], betas=(0.9, 0.9))
        return Refinement(steps=1, rule=joint, decay=0.0, keep_moments=True, joint=True)
    steps = options["local_steps"] or steps
    given = {} if options["local_lr"] is None else {"lr": options["local_lr"]}
    if options["guide"] == "semi-amortized":
        made = replace(REFINEMENT.rule, **given) if rule == "sgd" else Adam(**({"lr": 0.1} | given))
        return replace(REFINEMENT, steps=steps, rule=made)
    if rule == "sgd":
        return Refinement(steps=steps, rule=SGD(**given), final=1.0, decay=0.0)
    return Refinement(steps=steps, rule=Adam(**given))
