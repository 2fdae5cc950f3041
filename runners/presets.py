"""Settings of `svi.py`: the defaults, and those of each system by name."""

from runners.loop.command import Options

__all__ = ["DEFAULTS", "PRESETS", "PRESET_HELP", "QUICK"]

DEFAULTS: Options = {
    "preset": "s1",
    "data": "auto",
    "data_root": None,
    "all_train": False,
    "binarize": "none",
    "model": "conv",
    "conditional": False,
    "hidden": [200, 200],
    "activation": "relu",
    "likelihood": "bernoulli",
    "sigma2": 0.01,
    "learn_sigma2": False,
    "latents": 10,
    "guide": "free",
    "family": "diagonal",
    "scale": "log",
    "rank": 2,
    "init": None,
    "local_steps": None,
    "local_rule": None,
    "local_lr": None,
    "first_order": False,
    "joint": False,
    "carried": False,
    "cold": False,
    "objective": "elbo",
    "beta": 4.0,
    "schedule": "linear",
    "free_bits": 0.0,
    "target": -90.0,
    "constraint": "log-likelihood",
    "multiplier": "softplus",
    "multiplier_lr": None,
    "gradient": "dreg",
    "particles": None,
    "optimizer": "adam",
    "lr": 1e-3,
    "betas": [0.9, 0.9],
    "clip": None,
    "batch": 64,
    "steps": 10_000,
    "epochs": None,
    "precision": "float32",
    "pictures": 0,
    "updates": None,
    "images": None,
    "evidence": None,
    "seed": 0,
    "device": None,
    "graph": None,
    "tensorboard": False,
    "quick": False,
}

S7: Options = {
    "guide": "amortized",
    "model": "mlp",
    "hidden": [500, 500],
    "latents": 40,
    "betas": [0.9, 0.999],
    "binarize": "stochastic",
    "all_train": True,
    "batch": 128,
    "epochs": 50,
    "evidence": 1000,
}

S8: Options = {
    "guide": "amortized",
    "model": "deep",
    "latents": 32,
    "likelihood": "gaussian",
    # Near the variance of the pixels: from far below, Adam remembers the huge first gradients for a long time.
    "sigma2": 0.05,
    "learn_sigma2": True,
    "batch": 32,
    "pictures": 10,
    "steps": 600,  # a few hundred photographs are soon learned by heart
}

# Burda et al. 2016 with one stochastic layer, on the fixed binarisation; --particles is its k.
IWAE: Options = {
    "guide": "amortized",
    "objective": "iwae",
    "model": "mlp",
    "activation": "tanh",
    "latents": 50,
    "data": "fixed-binarized",
    "betas": [0.9, 0.999],
    "batch": 100,
    "epochs": 50,
    "evidence": 1000,
}

PRESETS: dict[str, Options] = {
    "s1": {},
    # The course's own setting: plain SGD of 0.05 on the mean over 64 images, in variables that are carried from batch
    # to batch whatever is in it. They hardly move. Its layers started Glorot-uniform, as encoders' decoders do here.
    "s1-course": {"init": "glorot", "carried": True, "local_rule": "sgd", "local_lr": 0.05 / 64},
    "s2": {"guide": "amortized"},
    "s3": {"guide": "amortized", "objective": "annealed"},
    "s4": {"guide": "amortized", "objective": "constrained"},
    "s5": {"guide": "semi-amortized"},
    "s6": {
        "guide": "amortized",
        "model": "mlp",
        "latents": 100,
        "scale": "softplus",
        "binarize": "threshold",
        "optimizer": "rmsprop",
        "pictures": 5,
    },
    "s7": S7 | {"conditional": True, "pictures": 5},
    # S7's networks without its labels: the twin whose training curve is published.
    "s7-unlabelled": S7,
    "s8": S8,
    # The variance given, as there, instead of learned.
    "s8-course": S8 | {"learn_sigma2": False},
    "s9": {"guide": "amortized", "objective": "beta"},
    "s10": {"guide": "amortized", "family": "echo", "batch": 100},
    "iwae": IWAE,
    "iwae-ladder": IWAE | {"model": "ladder"},
}

PRESET_HELP = (
    "settings by name, which other options change: s1 free parameters (the default; s1-course as in the course), s2 an "
    "encoder, s3 annealed, s4 constrained, s5 semi-amortized, s6 fully connected, s7 class-conditional (s7-unlabelled "
    "its twin), s8 photographs (s8-course at a given variance), s9 a KL weight of 4, s10 Echo noise, iwae Burda et "
    "al.'s networks (iwae-ladder their two stochastic layers)"
)

QUICK: Options = {"steps": 300, "images": 200, "updates": 50}
