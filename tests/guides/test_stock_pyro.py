import pyro
import pytest
import small
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO

from ppl_models import Batch


@pytest.fixture
def batch() -> Batch:
    return small.images(6).gather(torch.arange(6))


def test_predictive_draws_from_posterior_and_prior(batch: Batch) -> None:
    model, guide = small.model(), small.amortized()
    latents = Predictive(guide, num_samples=4, parallel=True)(batch)
    assert latents["z"].shape == (4, 6, 2)
    unseen = batch._replace(x=None)
    again = Predictive(model, posterior_samples=latents, parallel=True)(unseen)
    assert again["x"].shape == (4, 6, 1, 8, 8)
    assert Predictive(model, num_samples=4)(unseen)["x"].shape == (4, 6, 1, 8, 8)


def test_poutine_traces_and_replays(batch: Batch) -> None:
    model, guide = small.model(), small.amortized()
    traced = poutine.trace(guide).get_trace(batch)
    replayed = poutine.trace(poutine.replay(model, trace=traced)).get_trace(batch)
    assert replayed.nodes["z"]["value"] is traced.nodes["z"]["value"]


def test_stock_svi_leaves_plain_modules_untrained(batch: Batch) -> None:
    """What README warns of; `svi.fit` is the way, and every swapped-in guide trains there (test_fit.py)."""
    model, guide = small.model(), small.amortized()
    before = small.weights(guide)
    stock = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        stock.step(batch)
    assert not small.changed(guide, before)
