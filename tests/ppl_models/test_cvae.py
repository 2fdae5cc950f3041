import copy
import json

import pyro
import pytest
import small
import torch
from torch import Tensor

from guides import ELBO, Amortized, Diagonal, terms
from guides.sites import run_program
from ppl_models import CVAE, VAE, Batch, ConvDecoder, Gaussian, MLPDecoder, MLPEncoder, UsageError
from runners.blueprint import describe, rebuild
from runners.check import check


def model(*, classes: int = 3) -> CVAE:
    return CVAE(classes=classes, decoder=MLPDecoder(latents=2 + classes, shape=(1, 8, 8), hidden=(16,)))


def guide(*, classes: int = 3) -> Amortized:
    return Amortized(encoder=MLPEncoder(shape=(1, 8, 8), hidden=(16,), classes=classes), family=Diagonal(2))


def labelled(size: int = 6, **like: object) -> Batch:
    return Batch(torch.rand(size, 1, 8, 8, **like), torch.arange(size) % 3, torch.arange(size))


def test_sizes_of_latents_and_labels() -> None:
    default = CVAE(latents=7, classes=4)
    assert isinstance(default.decoder, ConvDecoder)
    assert (default.decoder.latents, default.latents, default.classes) == (11, 7, 4)
    assert (model().latents, model().classes) == (2, 3)
    for decoder, classes in ((MLPDecoder(latents=10), 10), (MLPDecoder(latents=10), 0)):
        with pytest.raises(UsageError, match=f"{classes} classes and a decoder of 10 inputs"):
            CVAE(classes=classes, decoder=decoder)


def test_decodes_the_latents_joined_by_the_label() -> None:
    cvae, z, y = model().double(), torch.randn(5, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    joined = torch.cat([z, torch.eye(3, dtype=torch.float64)[y]], -1)
    torch.testing.assert_close(cvae.decode(z, y).base_dist.logits, cvae.decoder(joined))


@pytest.mark.parametrize(
    ("z", "y", "batch"),
    [((4, 6), (6,), (4, 6)), ((6, 5), (6, 5), (6, 5)), ((6, 1), (3,), (6, 3)), ((2, 4, 6), (6,), (2, 4, 6))],
    ids=["particles", "paths", "every class", "particles of particles"],
)
def test_labels_broadcast_against_latents(z: tuple[int, ...], y: tuple[int, ...], batch: tuple[int, ...]) -> None:
    cvae, codes, labels = model().double(), torch.randn(*z, 2, dtype=torch.float64), torch.randint(0, 3, y)
    decoded = cvae.decode(codes, labels)
    assert decoded.batch_shape == batch
    flat = cvae.decode(codes.expand(*batch, 2).reshape(-1, 2), labels.expand(batch).reshape(-1))
    torch.testing.assert_close(decoded.mean.reshape(flat.mean.shape), flat.mean)


@pytest.mark.parametrize(
    ("y", "message"), [(None, "no labels"), (torch.zeros(4).long(), r"shape \(4,\)"), (torch.zeros(6), "integers")]
)
def test_wrong_labels_are_refused(y: Tensor | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model()(labelled()._replace(y=y))


def test_labels_matter_and_only_by_their_weights() -> None:
    cvae, z, y = model().double(), torch.randn(6, 2, dtype=torch.float64), torch.arange(6) % 3
    mean = cvae.decode(z, y).mean
    assert ((mean - cvae.decode(z, (y + 1) % 3).mean).abs().amax((1, 2, 3)) > 1e-3).all()
    permuted, order = copy.deepcopy(cvae), torch.tensor([2, 0, 1])
    with torch.no_grad():
        permuted.decoder.body[0].weight[:, 2 + order] = cvae.decoder.body[0].weight[:, 2:]
    torch.testing.assert_close(permuted.decode(z, order[y]).mean, mean)


def test_latents_do_not_depend_on_the_label() -> None:
    batch = labelled()._replace(x=None)
    sites = run_program(model(), batch, particles=2)
    assert sites["x"].value.shape == (2, 6, 1, 8, 8)
    prior = sites["z"].fn.base_dist
    assert not prior.loc.any()
    assert prior.scale.eq(1).all()


def test_bound_is_the_vaes_where_the_labels_weights_are_zero() -> None:
    cvae, batch = model().double(), labelled(dtype=torch.float64)
    vae = VAE(decoder=MLPDecoder(latents=2, shape=(1, 8, 8), hidden=(16,))).double()
    with torch.no_grad():
        weights = cvae.decoder.state_dict()
        weights["body.0.weight"][:, 2:] = 0
        vae.decoder.load_state_dict(weights | {"body.0.weight": weights["body.0.weight"][:, :2]})
    infer = guide().double()
    torch.manual_seed(3)
    expected = terms(vae, infer, batch, particles=4)
    torch.manual_seed(3)
    torch.testing.assert_close(terms(cvae, infer, batch, particles=4), expected)


def test_the_pair_passes_the_check() -> None:
    check(model(classes=2), guide(classes=2), small.data_set())


def test_nothing_is_read_on_the_host() -> None:
    pair = [module.to("meta") for module in (model(), guide())]
    batch = Batch(*(item if item is None else item.to("meta") for item in labelled()))
    with pyro.validation_enabled(False):
        loss, _ = ELBO(particles=2)(*pair, batch)
    loss.backward()
    assert all(p.grad is not None for module in pair for p in module.parameters())


def test_densities_stay_in_float32_under_autocast() -> None:
    batch = labelled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inferred = run_program(guide(), batch)
        generated = run_program(model(), batch, values={"z": inferred["z"].value})
    assert inferred["z"].fn.base_dist.loc.dtype == torch.float32
    assert generated["x"].fn.base_dist.logits.dtype == torch.float32
    assert generated["x"].log_prob((1, 6)).dtype == torch.float32


def test_is_made_again_from_its_description() -> None:
    decoder = MLPDecoder(latents=5, shape=(1, 8, 8), hidden=(16,), activation="tanh")
    cvae = CVAE(latents=2, classes=3, decoder=decoder, likelihood=Gaussian(variance=0.2, learned=True))
    again = rebuild(json.loads(json.dumps(describe(cvae))))
    assert type(again) is CVAE
    assert describe(again) == describe(cvae)
    again.load_state_dict(cvae.state_dict())
    z, y = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    assert torch.equal(again.decode(z, y).mean, cvae.decode(z, y).mean)
