"""Entropy and temperature: autograd against the heat capacity, limits, and where surprise is least."""

import math

import pytest
import torch

from ppl_models import CharGRU
from runners.data import Text
from runners.reading import surprise, tempered_reading
from runners.tempering import entropy, tempered
from runners.writing import write


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_entropy_grows_by_the_variance_of_the_energy(temperature: float) -> None:
    logits = 3 * torch.randn(7, 5, dtype=torch.float64)
    at = torch.full((7, 1), temperature, dtype=torch.float64, requires_grad=True)
    log_probs = (logits / at).log_softmax(-1)
    entropies = entropy(log_probs)
    torch.testing.assert_close(entropies, torch.distributions.Categorical(logits=logits / at).entropy())
    torch.testing.assert_close(tempered(logits, temperature=temperature), log_probs)
    (slope,) = torch.autograd.grad(entropies.sum(), at)
    energies = -logits
    mean = (log_probs.exp() * energies).sum(-1, keepdim=True)
    variance = (log_probs.exp() * (energies - mean).square()).sum(-1)
    torch.testing.assert_close(slope.squeeze(-1), (variance / temperature**3).detach())
    assert (slope > 0).all()


def test_limits() -> None:
    logits = torch.randn(7, 5, dtype=torch.float64)
    for temperature in (0.0, 1e-3):
        cold = tempered(logits, temperature=temperature)
        torch.testing.assert_close(entropy(cold), torch.zeros(7, dtype=torch.float64), atol=1e-2, rtol=0)
    hot = tempered(logits, temperature=1e6)
    torch.testing.assert_close(entropy(hot), torch.full((7,), math.log(5), dtype=torch.float64))


def test_at_0_one_of_the_likeliest_is_certain() -> None:
    tied = tempered(torch.tensor([[1.0, 1.0, 0.0]]), temperature=0.0).exp()
    assert sorted(tied.flatten().tolist()) == [0, 0, 1]


def text_and_model() -> tuple[Text, CharGRU]:
    text = Text(torch.randint(0, 4, (90,), dtype=torch.int32), "abcd")
    model = CharGRU("abcd", hidden=6, layers=1).double().eval()
    model.head.weight.data.mul_(8)  # far from uniform
    return text, model


def test_a_tempered_reading_is_that_of_each_conditional() -> None:
    text, model = text_and_model()
    temperatures = (0.3, 1.0, 2.5)
    found = tempered_reading(model, text, temperatures, rows=3, size=8)
    x = text.codes.long().view(3, 30)
    logits = model.logits(x[:, :-1])[0].detach()
    for row, temperature in zip(found, temperatures, strict=True):
        each = torch.distributions.Categorical(logits=logits / temperature)
        assert row["temperature"] == temperature
        assert row["surprise"] == pytest.approx(-float(each.log_prob(x[:, 1:]).mean()))
        assert row["entropy"] == pytest.approx(float(each.entropy().mean()))
    assert found[1]["surprise"] == pytest.approx(float(surprise(model, text, rows=3).mean()))


def test_surprise_is_least_where_it_meets_the_entropy() -> None:
    """Of a text that the model wrote at twice the temperature, near there."""
    _, model = text_and_model()
    codes = [code for code, _ in write(model, 400, rows=1, temperature=2.0)]
    text = Text(torch.cat(codes).to(torch.int32), "abcd")
    temperatures = [0.5 + 0.02 * n for n in range(400)]
    found = tempered_reading(model, text, temperatures)
    least = min(range(400), key=lambda n: found[n]["surprise"])
    assert 1 < temperatures[least] < 4
    apart = [row["entropy"] - row["surprise"] for row in found]
    assert apart[least - 1] < 0 < apart[least + 1]
