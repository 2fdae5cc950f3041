import json
import math

import pytest
import torch
from torch import Tensor

from guides.sites import run_program
from ppl_models import Batch, Gaussian, Ladder, MLPDecoder, UsageError
from runners.blueprint import describe, rebuild


def model() -> Ladder:
    decoder = MLPDecoder(latents=4, shape=(1, 8, 8), hidden=(9,), activation="tanh")
    return Ladder(latents=(4, 3), hidden=(6, 5), decoder=decoder)


def test_defaults_are_the_published_two_layer_model() -> None:
    ladder = Ladder()
    assert ladder.latents == (100, 50)
    assert [tuple(p.shape) for p in ladder.net.parameters()][::2] == [(100, 50), (100, 100), (200, 100)]
    assert [tuple(p.shape) for p in ladder.decoder.parameters()][::2] == [(200, 100), (200, 200), (784, 200)]
    assert {type(layer).__name__ for layer in (*ladder.net, *ladder.decoder.body)} == {"Linear", "Tanh"}


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"latents \(3, 4, 5\), expected two"):
        Ladder(latents=(3, 4, 5))
    with pytest.raises(UsageError, match="decoder of 7 inputs, expected 5"):
        Ladder(latents=(5, 2), decoder=MLPDecoder(latents=7))


@pytest.mark.parametrize("particles", [1, 3])
def test_samples_every_site(particles: int) -> None:
    sites = run_program(model(), Batch(None, None, torch.arange(7)), particles=particles)
    leading = (7,) if particles == 1 else (3, 7)
    shapes = {name: tuple(site.value.shape) for name, site in sites.items()}
    assert shapes == {"z2": (*leading, 3), "z1": (*leading, 4), "x": (*leading, 1, 8, 8)}
    assert list(sites) == ["z2", "z1", "x"]


def normal_log_prob(value: Tensor, loc: Tensor | float, scale: Tensor | float) -> Tensor:
    scale = torch.as_tensor(scale, dtype=value.dtype)
    return (-0.5 * ((value - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def test_log_densities_by_hand() -> None:
    ladder, x = model().double(), torch.rand(5, 1, 8, 8, dtype=torch.float64).round()
    z1, z2 = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    batch = Batch(x, None, torch.arange(5))
    sites = run_program(ladder, batch, values={"z1": z1, "z2": z2}, particles=2)
    found = {name: site.log_prob((2, 5)) for name, site in sites.items()}

    w = list(ladder.net.parameters())
    out = ((z2 @ w[0].T + w[1]).tanh() @ w[2].T + w[3]).tanh() @ w[4].T + w[5]
    v = list(ladder.decoder.parameters())
    p = ((z1 @ v[0].T + v[1]).tanh() @ v[2].T + v[3]).sigmoid()
    flat = x.flatten(1)
    torch.testing.assert_close(found["z2"], normal_log_prob(z2, 0.0, 1.0))
    torch.testing.assert_close(found["z1"], normal_log_prob(z1, out[..., :4], out[..., 4:].exp()))
    torch.testing.assert_close(found["x"], (flat * p.log() + (1 - flat) * (1 - p).log()).sum(-1))


def test_likelihood_looks_at_the_lower_layer_alone() -> None:
    ladder, z1 = model(), torch.randn(3, 5, 4)
    mean = ladder.decode({"z1": z1}).mean
    assert mean.shape == (3, 5, 1, 8, 8)
    assert torch.equal(ladder.decode({"z1": z1, "z2": torch.randn(3, 5, 3)}, torch.zeros(5)).mean, mean)


def test_is_made_again_from_its_description() -> None:
    decoder = MLPDecoder(latents=4, shape=(1, 8, 8), hidden=(9,))
    ladder = Ladder(latents=(4, 3), hidden=(6,), activation="relu", decoder=decoder, likelihood=Gaussian(variance=0.3))
    again = rebuild(json.loads(json.dumps(describe(ladder))))
    assert type(again) is Ladder
    assert describe(again) == describe(ladder)
    again.load_state_dict(ladder.state_dict())
    z1 = torch.randn(2, 4)
    assert torch.equal(again.decode({"z1": z1}).mean, ladder.decode({"z1": z1}).mean)
