"""Handing a pair to `pyro.infer.SVI`, which trains what is in Pyro's parameter store and nothing else."""

from itertools import count

import pyro
from torch import nn
from torch.distributions import constraints

from guides.free import Rows
from guides.sites import Program
from ppl_models.batch import Batch, UsageError

__all__ = ["for_svi"]

_pairs = count()


def for_svi(model: nn.Module, guide: nn.Module) -> tuple[Program, Program]:
    """The pair as programs that show their parameters to Pyro, so that stock `SVI` trains both modules in place.

    `SVI(*for_svi(model, guide), pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(batch)`; Bingham et al. 2019,
    arXiv:1810.09538. Stock losses are nats SUMMED over the batch, ours are means per datum: divide by
    `len(batch.index)` to compare, and expect gradients that many times as large.

    Names in the parameter store are new at each call: under an old one `pyro.module` hands out the tensors that had
    it first, and a guide swapped in later would in silence not train. The store keeps parameters alive until
    `pyro.clear_param_store()`, which does no harm between steps. Parameters with `requires_grad=False` stay as they
    are; Pyro warns of them unless their module is in eval mode. Save a module's `state_dict()`: Pyro hangs weak
    references on the parameters it has seen, and those cannot be pickled.

    Args:
        model: A model.
        guide: A guide without rows.

    Returns:
        What `SVI` takes as its model and its guide, functions of one batch.

    Raises:
        UsageError: One of the two is not a module, or the guide has rows (`Free`), which no optimiser trains.
    """
    for role, program in (("model", model), ("guide", guide)):
        if not isinstance(program, nn.Module):
            raise UsageError(
                f"for_svi: the {role} is a {type(program).__name__}, expected an nn.Module with parameters"
            )
    if isinstance(guide, Rows):
        raise UsageError(
            f"for_svi: stock SVI cannot train the rows of {type(guide).__name__}, which are buffers refined at each "
            "visit: use svi.fit, or a guide without rows"
        )
    pair = next(_pairs)
    return _registered(f"pair{pair}.model", model), _registered(f"pair{pair}.guide", guide)


def _registered(name: str, module: nn.Module) -> Program:
    def program(batch: Batch) -> object:
        own = {f"{name}$$${key}": value for key, value in module.named_parameters() if value.requires_grad}
        # What is new to pyro.module it makes contiguous: of channels_last weights it would train a copy.
        state = {"params": own, "constraints": dict.fromkeys(own, constraints.real)}
        pyro.get_param_store().set_state(state)
        pyro.module(name, module)
        return module(batch)

    return program
