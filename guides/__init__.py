"""Ways of inferring a model's latents, and what they are judged by."""

from guides.amortized import Amortized
from guides.families import Diagonal
from guides.free import Free
from guides.objectives import ELBO, Terms, terms
from guides.refine import SGD, Adam, Refinement, refine

__all__ = ["ELBO", "SGD", "Adam", "Amortized", "Diagonal", "Free", "Refinement", "Terms", "refine", "terms"]
