import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toys import Off, always, at_start, batch_of, general_ppca, sampled

from guides import evidence
from guides.evidence import bounds, importance_sample
from guides.iwae import importance_terms
from ppl_models import Batch, UsageError


def test_importance_sampling_of_ppca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evidence.ROWS, "cpu", 20_000)  # in several parts
    model = general_ppca()
    x = sampled(model, 50)
    halves = [batch_of(x[:30]), Batch(x[30:], None, torch.arange(30, 50))]
    found = importance_sample(model, at_start(Off(model, x, wider=0.4)), halves, samples=30_000).log_evidence
    torch.testing.assert_close(found, model.evidence(x), rtol=0, atol=0.05)
    assert (found - model.evidence(x)).mean().abs() < 0.005


@pytest.mark.parametrize("rows", [12, 1000])
def test_sums_are_those_of_the_weights(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples are decoded at a time; 7 samples of 4 data, at most 3 samples at a time."""
    monkeypatch.setitem(evidence.ROWS, "cpu", rows)
    model = general_ppca()
    x = sampled(model, 4)
    guide, batch = Off(model, x, wider=0.5), batch_of(x)
    seen = []

    def noted(*args: object, **settings: object) -> object:
        seen.append(importance_terms(*args, **settings))
        return seen[-1]

    monkeypatch.setattr(evidence, "importance_terms", noted)
    found = importance_sample(model, at_start(guide), [batch], samples=7)
    assert [len(part.elbo) for part in seen] == ([3, 3, 1] if rows == 12 else [7])
    for datum, weights in enumerate(torch.cat([part.elbo for part in seen]).exp().mT.tolist()):
        assert found.log_evidence[datum].item() == pytest.approx(math.log(sum(weights) / 7))
        assert found.elbo[datum].item() == pytest.approx(sum(map(math.log, weights)) / 7)
        effective = sum(weights) ** 2 / sum(w**2 for w in weights)
        assert found.effective_samples[datum].item() == pytest.approx(effective)


def test_the_posteriors_weights_are_all_alike() -> None:
    model = general_ppca()
    x = sampled(model, 5)
    found = importance_sample(model, always(model.exact_guide), [batch_of(x)], samples=10)
    for bound in (found.log_evidence, found.elbo):
        torch.testing.assert_close(bound, model.evidence(x))
    torch.testing.assert_close(found.effective_samples, torch.full((5,), 10.0, dtype=torch.float64))


def test_an_encoder_runs_once_for_all_samples() -> None:
    model = general_ppca()
    x = sampled(model, 3)
    calls = []

    class Counted(Off):
        def start(self, batch: Batch) -> dict[str, Tensor]:
            calls.append(len(batch.index))
            return super().start(batch)

    importance_sample(model, at_start(Counted(model, x, wider=0.0)), [batch_of(x)], samples=5_000)
    assert calls == [3]


@pytest.mark.parametrize("ask", [bounds, importance_sample])
def test_what_cannot_be_asked_is_refused(ask: Callable[..., object]) -> None:
    model = general_ppca()
    x = sampled(model, 3)
    with pytest.raises(UsageError, match="found no data"):
        ask(model, always(model.exact_guide), [])
    with pytest.raises(UsageError, match="is a Tensor, expected a guide"):
        ask(model, model.exact_guide, [batch_of(x)])


def test_noise_depends_on_the_seed_and_on_nothing_before() -> None:
    model = general_ppca()
    x = sampled(model, 6)
    halves = [batch_of(x[:3]), Batch(x[3:], None, torch.arange(3, 6))]
    posterior = at_start(Off(model, x, wider=0.3))
    first = bounds(model, posterior, halves, seed=1).elbo
    torch.rand(5)
    assert torch.equal(bounds(model, posterior, halves, seed=1).elbo, first)
    assert torch.equal(bounds(model, posterior, halves[:1], seed=1).elbo, first[:3])
    assert (bounds(model, posterior, halves, seed=2).elbo != first).all()
