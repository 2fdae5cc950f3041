"""Running a Pyro program once: its sample sites, and weights on some of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from ppl_models.batch import Batch, UsageError
from ppl_models.reprs import fields_repr

__all__ = ["At", "FiniteSites", "Params", "Program", "Site", "WeightLatents", "full_precision", "run_program"]

Program = Callable[[Batch], Any]

Params = dict[str, Tensor]
"""Variational parameters, or what an optimiser keeps for them, by name; one row per datum, `(batch, *)`."""


@dataclass(frozen=True, eq=False)
class At:
    """A guide at given parameters: the program `guide.sample(batch, params)`."""

    guide: Any
    params: Params

    __repr__ = fields_repr

    def __call__(self, batch: Batch) -> Any:
        return self.guide.sample(batch, self.params)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast inside: networks may run in half precision, distributions do not."""
    # Autocast knows no meta device, on which pairs are checked for host reads.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class Site(NamedTuple):
    """One `pyro.sample` statement as it ran."""

    name: str
    fn: Any
    value: Tensor
    is_observed: bool
    scale: float | Tensor
    mask: Tensor | bool | None
    rate: Tensor | None = None

    __repr__ = fields_repr
    """What a guide without a density says its KL term is, `infer={"rate": …}`, `(batch,)`."""

    def log_prob(self, shape: tuple[int, int]) -> Tensor:
        """The site's log-density, masked but not scaled, one value per datum.

        Raises:
            UsageError: The density's own shape is not that.
        """
        with full_precision(self.value.device):
            return self.per_datum(self.fn.log_prob(self.value), shape)

    def per_datum(self, values: Tensor, shape: tuple[int, int]) -> Tensor:
        """`values`, zero where the site is masked; refused unless they are one per datum.

        Checked site by site, since a sum over sites would broadcast a wrong shape into a right one.
        """
        particles, size = shape
        if values.shape not in ((size,), (1, size), (particles, size)):
            raise UsageError(
                f"site '{self.name}': its log_prob has shape {tuple(values.shape)}, expected ({size},), one value per "
                "datum: sample inside the plate and declare the event's dimensions with .to_event()"
            )
        return scale_and_mask(values, 1.0, self.mask)

    def weigh(self, values: Tensor) -> Tensor:
        """`values` under the site's scale; exactly 0 for the number 0, where -inf x 0 would be NaN."""
        if isinstance(self.scale, Tensor) or self.scale not in (0, 1):
            return values * self.scale
        return values if self.scale == 1 else torch.zeros_like(values)


class Recorder(Messenger):
    """Keeps what each sample site was; gives latent sites the values of an earlier run where there are any."""

    def __init__(self, values: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.values = values or {}
        self.sites: dict[str, Site] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            value, event = self.values[msg["name"]], msg["fn"].event_shape
            if value.shape[value.dim() - len(event) :] != event:
                raise UsageError(
                    f"site '{msg['name']}': the guide's value has shape {tuple(value.shape)}, the model expects it to "
                    f"end in {tuple(event)}"
                )
            msg["value"], msg["done"] = value, True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        # A plate announces itself as a sample site of its indices; its class is private to Pyro.
        if type(msg["fn"]).__name__ == "_Subsample":
            return
        name = msg["name"]
        if not msg["is_observed"] and not any(frame.dim == -1 for frame in msg["cond_indep_stack"]):
            raise UsageError(f"site '{name}' is a latent outside the data plate, which is not supported")
        if name in self.sites:
            raise UsageError(f"site '{name}' is sampled twice in one run")
        event = msg["fn"].event_shape
        if msg["is_observed"] and msg["value"].shape[msg["value"].dim() - len(event) :] != event:
            # Otherwise one channel would be compared with each of three, and nothing would say so.
            found, expected = tuple(msg["value"].shape), tuple(event)
            raise UsageError(
                f"site '{name}': observed data of shape {found}, the likelihood expects it to end in {expected}"
            )
        rate = (msg["infer"] or {}).get("rate")
        self.sites[name] = Site(name, msg["fn"], msg["value"], msg["is_observed"], msg["scale"], msg["mask"], rate)


class WeightLatents(ScaleMessenger):
    """Pyro's scale handler, narrowed to latent sites: the one place where a KL weight lives.

    Unlike its parent it accepts 0 and tensors that are not looked at. It belongs on model AND guide, since Pyro's
    `Trace_ELBO` reads the scale of both and `TraceMeanField_ELBO` that of the guide alone.

    Args:
        weight: The factor on the sites' log-probabilities, a number or a scalar tensor.
        sites: Their names; by default every site that is not observed.
    """

    def __init__(self, weight: float | Tensor, *, sites: frozenset[str] | None = None) -> None:
        Messenger.__init__(self)  # the parent's refuses 0 and reads tensors on the host
        self.scale, self.sites = weight, sites

    def _process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or type(msg["fn"]).__name__ == "_Subsample":
            return
        if not msg["is_observed"] if self.sites is None else msg["name"] in self.sites:
            super()._process_message(msg)


class FiniteSites(Messenger):
    """Stops any program inside it at the first site whose value or log-density is not finite; reads on the host."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if type(msg["fn"]).__name__ == "_Subsample":
            return
        rate = (msg["infer"] or {}).get("rate")
        density = ("log-density", msg["fn"].log_prob(msg["value"])) if rate is None else ("rate", rate)
        for what, values in (("value", msg["value"]), density):
            if not values.isfinite().all():
                raise FloatingPointError(f"the {what} of site '{msg['name']}'")


def run_program(
    program: Program,
    batch: Batch,
    *,
    values: dict[str, Tensor] | None = None,
    weight: float | Tensor = 1.0,
    particles: int = 1,
) -> dict[str, Site]:
    """Run a model or a guide once and return its sites by name.

    Args:
        program: A Pyro program of one batch.
        batch: The batch.
        values: Values that latent sites take instead of sampling, by name.
        weight: The scale of latent sites.
        particles: How many independent runs at once, as a plate at dimension -2; with 1 there is no such plate.
    """
    recorder = Recorder(values)
    plain = not isinstance(weight, Tensor) and weight == 1
    with (
        recorder,
        pyro.plate("particles", particles, dim=-2) if particles > 1 else nullcontext(),
        nullcontext() if plain else WeightLatents(weight),
    ):
        program(batch)
    return recorder.sites
