"""Generative models as Pyro programs."""

from ppl_models.adversarial import (
    HINGE,
    LEAST_SQUARES,
    NON_SATURATING,
    SATURATING,
    WASSERSTEIN,
    AdversarialLoss,
    cross_entropy,
    gradient_penalty,
    interpolates,
    r1_penalty,
    slopes,
)
from ppl_models.augmentation import augmented
from ppl_models.batch import Batch, UsageError
from ppl_models.char_gru import CharGRU
from ppl_models.cvae import CVAE
from ppl_models.gan import Critic, Generator
from ppl_models.gru import GRU
from ppl_models.inversion import Inversion, invert, restarts_needed
from ppl_models.ladder import Ladder
from ppl_models.layers import dcgan_, glorot_
from ppl_models.least_energy import LeastEnergyPath, least_energy_path, pullback_path
from ppl_models.likelihoods import Bernoulli, Gaussian
from ppl_models.loss_barriers import Barriers, barriers
from ppl_models.loss_minima import Minima, clusters, minima
from ppl_models.nets import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    DeepConvDecoder,
    DeepConvEncoder,
    MLPDecoder,
    MLPEncoder,
)
from ppl_models.path_energy import (
    normalised_path_energy,
    path_energy,
    pullback_energy,
)
from ppl_models.paths import spherical, straight, variance_preserving
from ppl_models.ppca import PPCA
from ppl_models.vae import VAE

__all__ = [
    "CVAE",
    "GRU",
    "HINGE",
    "LEAST_SQUARES",
    "MLP",
    "NON_SATURATING",
    "PPCA",
    "SATURATING",
    "VAE",
    "WASSERSTEIN",
    "AdversarialLoss",
    "Barriers",
    "Batch",
    "Bernoulli",
    "CharGRU",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "DeepConvDecoder",
    "DeepConvEncoder",
    "Gaussian",
    "Generator",
    "Inversion",
    "Ladder",
    "LeastEnergyPath",
    "MLPDecoder",
    "MLPEncoder",
    "Minima",
    "UsageError",
    "augmented",
    "barriers",
    "clusters",
    "cross_entropy",
    "dcgan_",
    "glorot_",
    "invert",
    "gradient_penalty",
    "interpolates",
    "least_energy_path",
    "minima",
    "normalised_path_energy",
    "path_energy",
    "pullback_energy",
    "pullback_path",
    "r1_penalty",
    "restarts_needed",
    "slopes",
    "spherical",
    "straight",
    "variance_preserving",
]
