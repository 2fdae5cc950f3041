"""What objects say of themselves: a line or a few, without pages of numbers and addresses in memory."""

import re
from typing import Any

import pytest
import small
import torch

from guides import (
    ELBO,
    IWAE,
    Adam,
    Amortized,
    AmortizedLadder,
    Constrained,
    CosineSchedule,
    CyclicalSchedule,
    Diagonal,
    Echo,
    Flow,
    FullRank,
    LinearSchedule,
    LowRank,
    Refinement,
    SigmoidSchedule,
    terms,
)
from guides.evidence import Evidence
from ppl_models import HINGE, PPCA, VAE, Batch, Critic, Gaussian, Generator, Ladder
from ppl_models.nets import ConvDecoder, ConvEncoder
from runners.loop.history import History
from runners.mixture import GRID
from runners.mixture_fit import fit

DATA, TEXT = small.data_set(fresh=True), small.text()
BATCH = Batch(torch.rand(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64), torch.arange(64))
EVIDENCE = Evidence(*(torch.full((1000,), value, dtype=torch.float64) for value in (-88.99, -91.5, 41.25)))

LINES: dict[str, Any] = {
    "DataSet(bars: 200 train + 50 test images of 1×8×8": DATA,
    "Images(200 images": DATA.train,
    "Stream(batches of 20, 10 an epoch, in epoch 0)": DATA.train.batches(20),
    "Text(3,000 characters": TEXT.train,
    "TextStream(batches of 5 sequences of 8, 74 an epoch": TEXT.train.batches(5),
    "Batch(x=<float32 (64, 1, 28, 28)>, y=<int64 (64,)>, index=<int64 (64,)>, state=None)": BATCH,
    "Batch(x=<float32 (64, 1, 28, 28) on meta>": Batch(*(value.to("meta") for value in BATCH[:3])),
    "Evidence(log_evidence=<float64 (1000,), mean -88.99>, elbo=<float64 (1000,), mean -91.5>": EVIDENCE,
    "ELBO(kl_weight=1.0, particles=1": ELBO(),
    "ELBO(kl_weight=LinearSchedule(start=0.0": ELBO(LinearSchedule()),
    "ELBO(kl_weight=<lambda>": ELBO(lambda n, N: n / N),
    "Constrained(target=-90.0, constraint='log_likelihood', rule='softplus'": Constrained(-90.0),
    "IWAE(particles=50, gradient='dreg')": IWAE(50),
    "CosineSchedule(": CosineSchedule(),
    "SigmoidSchedule(": SigmoidSchedule(),
    "CyclicalSchedule(": CyclicalSchedule(),
    "Refinement(steps=10, rule=Adam(lr=0.5": Refinement(),
    "Adam(lr=0.1": Adam(lr=0.1),
    "Diagonal(latents=3, scale='log')": Diagonal(3),
    "FullRank(latents=3)": FullRank(3),
    "LowRank(latents=3, rank=2)": LowRank(3),
    "Echo(latents=3, depth=9": Echo(3, depth=9),
    "Gaussian(variance=0.1, learned=True)": Gaussian(variance=0.1, learned=True),
    "PPCA(features=6, latents=2)": PPCA(torch.ones(6, 2)),
    "AdversarialLoss(critic=_margins, generator=_raised, fooled=2.0)": HINGE,
    "History(0 steps, 0 rows)": History(),
    "Mixture(name='grid', means=<": GRID,
}

SHORT: dict[str, Any] = {
    "Amortized": Amortized(latents=10),
    "AmortizedLadder": AmortizedLadder(),
    "SemiAmortized": small.semi_amortized(),
    "Free": small.free(DATA),
    "Flow(\n  latents=4, transforms=2": Flow(4),
    "VAE": VAE(),
    "CVAE": small.conditional(),
    "Ladder": Ladder(),
    "Generator": Generator(ConvDecoder()),
    "Critic": Critic(ConvEncoder()),
    "CharGRU": small.reader(TEXT),
}


def short(thing: Any, *, begins: str) -> str:
    said = repr(thing)
    assert said.startswith(begins)
    assert not re.search(r"0x[0-9a-f]{6,}|tensor\(", said)
    return said


@pytest.mark.parametrize("begins", LINES)
def test_a_value_is_one_line(begins: str) -> None:
    said = short(LINES[begins], begins=begins)
    assert "\n" not in said
    assert len(said) < 250


@pytest.mark.parametrize("begins", SHORT)
def test_a_module_is_a_short_table(begins: str) -> None:
    assert len(short(SHORT[begins], begins=begins).splitlines()) <= 30


def test_terms_and_what_is_in_them_are_one_line() -> None:
    batch = next(DATA.test.in_order(50))
    found = terms(small.model(), small.amortized(), batch, particles=2)
    said = short(found, begins="Terms(log_likelihood=<float32 (2, 50), mean ")
    assert "site_kl={'z': <float32 (2, 50), mean " in said
    assert "\n" not in said


def test_a_mixtures_fit_is_one_line() -> None:
    said = short(fit(GRID, "gan", steps=2, progress=False), begins="MixtureFit(mixture=Mixture(name='grid'")
    assert "history=History(2 steps, 1 rows)" in said
    assert "\n" not in said


def test_figures_that_are_averaged_stay_what_they_were() -> None:
    """Reading a repr changes nothing, and a NamedTuple is still a tuple."""
    x, *_ = BATCH
    repr(BATCH)
    assert x is BATCH.x
    assert BATCH._replace(x=None) == (None, *BATCH[1:])
