"""Ways of inferring a model's latents, and what they are judged by."""

from guides.amortized import Amortized
from guides.amortized_ladder import AmortizedLadder
from guides.constrained import Constrained
from guides.echo import Echo
from guides.families import Diagonal, FullRank, LowRank
from guides.flows import Flow
from guides.free import Free
from guides.iwae import IWAE
from guides.objectives import ELBO
from guides.refine import Refinement, refine
from guides.rules import SGD, Adam
from guides.schedules import CosineSchedule, CyclicalSchedule, LinearSchedule, SigmoidSchedule
from guides.semi_amortized import SemiAmortized
from guides.terms import Terms, terms

__all__ = [
    "ELBO",
    "IWAE",
    "SGD",
    "Adam",
    "Amortized",
    "AmortizedLadder",
    "Constrained",
    "CosineSchedule",
    "CyclicalSchedule",
    "Diagonal",
    "Echo",
    "Flow",
    "Free",
    "FullRank",
    "LinearSchedule",
    "LowRank",
    "Refinement",
    "SemiAmortized",
    "SigmoidSchedule",
    "Terms",
    "refine",
    "terms",
]
