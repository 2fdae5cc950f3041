"""Generative models as Pyro programs."""

from ppl_models.batch import Batch, UsageError
from ppl_models.cvae import CVAE
from ppl_models.ladder import Ladder
from ppl_models.likelihoods import Bernoulli, Gaussian
from ppl_models.nets import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    DeepConvDecoder,
    DeepConvEncoder,
    MLPDecoder,
    MLPEncoder,
    glorot_,
)
from ppl_models.paths import variance_preserving
from ppl_models.ppca import PPCA
from ppl_models.vae import VAE

__all__ = [
    "CVAE",
    "MLP",
    "PPCA",
    "VAE",
    "Batch",
    "Bernoulli",
    "ConvDecoder",
    "ConvEncoder",
    "DeepConvDecoder",
    "DeepConvEncoder",
    "Gaussian",
    "Ladder",
    "MLPDecoder",
    "MLPEncoder",
    "UsageError",
    "glorot_",
    "variance_preserving",
]
