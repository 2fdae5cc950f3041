"""A VAE of NumPyro's, whole epochs of it compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from runners.contenders.workload import Contender, Setting

__all__ = ["numpyro_vae"]


def numpyro_vae(
    setting: Setting, pair: Callable[[], nn.ModuleDict], *, batch: int, betas: tuple[float, float]
) -> Contender:
    """NumPyro's SVI with the same networks and data resident as bytes; `lax.scan` over the batches of an epoch.

    Phan, Pradhan and Jankowiak 2019, arXiv:1912.11554. Its noise is its own.
    """
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax import lax, random
    from numpyro.infer import SVI, TraceMeanField_ELBO

    with setting.seeded():
        nets = pair()
    latents = nets["model"].latents

    def layers(net: nn.Module) -> list[dict[str, Any]]:
        linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        return [
            {"w": jnp.asarray(at.weight.detach().T.numpy()), "b": jnp.asarray(at.bias.detach().numpy())}
            for at in linear
        ]

    def dense(params: dict[str, Any], x: Any) -> Any:
        return x @ params["w"] + params["b"]

    def model(x: Any) -> None:
        first, *rest = numpyro.param("decoder", layers(nets["model"].decoder))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latents), 1.0).to_event(1))
            hidden = dense(first, z)
            for each in rest:
                hidden = dense(each, jax.nn.relu(hidden))
            numpyro.sample("x", dist.Bernoulli(logits=hidden, validate_args=False).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encoder = numpyro.param("encoder", layers(nets["guide"].encoder))
        heads = {name: numpyro.param(name, layers(head)[0]) for name, head in nets["guide"].heads.items()}
        hidden = x
        for each in encoder:
            hidden = jax.nn.relu(dense(each, hidden))
        with numpyro.plate("data", len(x)):
            scale = jnp.exp(dense(heads["log"], hidden))
            numpyro.sample("z", dist.Normal(dense(heads["loc"], hidden), scale).to_event(1))

    pixels = jnp.asarray(setting.images().pixels.flatten(1).numpy())
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3, *betas), TraceMeanField_ELBO())
    block = len(pixels) // batch

    @jax.jit
    def epoch(state: Any, key: Any) -> tuple[Any, Any]:
        order = random.permutation(key, len(pixels))[: block * batch].reshape(block, batch)

        def one(state: Any, rows: Any) -> tuple[Any, Any]:
            return svi.update(state, pixels[rows].astype(jnp.float32) / 255)

        return lax.scan(one, state, order)

    held = [svi.init(random.PRNGKey(0), pixels[:batch].astype(jnp.float32) / 255), random.PRNGKey(1)]

    def step() -> torch.Tensor:
        held[1], key = random.split(held[1])
        held[0], losses = epoch(held[0], key)
        return torch.tensor(float(losses[-1]) / batch)  # reading it waits for the epoch

    return Contender(step, block * batch)
