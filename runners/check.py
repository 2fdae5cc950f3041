"""Whether a user's own model and guide can be trained, evaluated and swapped here, and if not, what is wrong."""

import copy
from collections.abc import Iterator
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from guides.echo import echo_of
from guides.free import Rows
from guides.objectives import ELBO, Objective
from guides.sites import Program, run_program
from guides.terms import terms
from ppl_models import Batch, UsageError
from runners.data import DataSet
from runners.loop.errors import first_line
from runners.loop.random import forked

__all__ = ["check", "rehearse"]

OURS = ("ppl_models", "guides")
"""Packages whose exceptions are defects, not a user's."""


def check(model: Program, guide: Program, data: DataSet, *, size: int = 8) -> None:
    """Try a pair on a few images; says nothing where all is well.

    Tried in this order: that both run and their sites match, each with one value per datum; that every parameter gets
    a gradient; that two particles give what one gives; that the order of the batch does not matter; that nothing
    reads a tensor on the host.

    Args:
        model: The model.
        guide: The guide.
        data: The data set, from whose training split the images are.
        size: How many images.

    Raises:
        UsageError: One line that says what is wrong.
    """
    if echo_of(guide) is not None:
        size = max(size, echo_of(guide).depth + 1)
    first = data.train.first(min(size, len(data.train)))
    if isinstance(guide, Rows):
        guide.check_rows(first.index, batch=len(first))
    batch = next(first.in_order(size))
    model, guide = copy.deepcopy(model), copy.deepcopy(guide)
    with forked(0, batch.index.device), pyro.validation_enabled(False):
        with pyro.validation_enabled(True):  # as in a fit's first step
            _check_runs(model, guide, batch)
        _check_gradients(model, guide, batch)
        for program in (model, guide):
            if isinstance(program, nn.Module):
                program.eval()  # dropout would make two runs differ
        with torch.no_grad():
            if echo_of(guide) is not None:
                echo_of(guide).remember(guide.start(batch), batch.index)
            _check_particles(model, guide, batch)
            _check_order(model, guide, batch)
        _check_host_reads(model, guide, batch)


def rehearse(model: Program, guide: Program, objective: Objective, batch: Batch) -> None:
    """Ask an objective once for its loss, as the first step of a fit will.

    Raises:
        UsageError: What the user wrote raised something; or something gets a gradient that nothing would train.
    """
    try:
        with pyro.validation_enabled(True):
            loss, _ = objective(model, guide, batch)
    except UsageError:
        raise
    except Exception as error:
        if all(type(piece).__module__.startswith(OURS) for piece in (model, guide, objective)):
            raise
        # Whatever the user's code raised: it is reported, with its cause chained.
        line = first_line(error)
        if "within the support" in line:
            line = "grey values are no Bernoulli's: say validate_args=False in the model, or --binarize"
        raise UsageError(f"on a small batch the pieces raised {type(error).__name__}: {line}") from error
    modules = nn.ModuleList(piece for piece in (model, guide) if isinstance(piece, nn.Module))
    known = {id(parameter) for parameter in modules.parameters()}
    for leaf in _leaves(loss):
        if id(leaf) not in known:
            raise UsageError(
                f"a tensor of shape {tuple(leaf.shape)} gets a gradient, but neither model nor guide holds it as "
                "an nn.Module, so that nothing would train it"
            )


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that a loss sends gradients to."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        nodes += [following for following, _ in node.next_functions]


def _check_runs(model: Program, guide: Program, batch: Batch) -> None:
    for particles in (1, 2):
        try:
            terms(model, guide, batch, particles=particles, closed_form=False)
        except UsageError:
            raise
        except Exception as error:  # whatever the user's code raised: it is reported, with its cause chained
            count = f"{particles} particle{'s' * (particles > 1)}"
            raise UsageError(f"with {count} the pair raised {type(error).__name__}: {first_line(error)}") from error


def _check_gradients(model: Program, guide: Program, batch: Batch) -> None:
    modules = nn.ModuleDict({n: m for n, m in (("model", model), ("guide", guide)) if isinstance(m, nn.Module)})
    loss, _ = ELBO()(model, guide, batch)
    if loss.requires_grad:
        loss.backward()
    missing = [name for name, p in modules.named_parameters() if p.requires_grad and p.grad is None]
    if missing:
        raise UsageError(f"no gradient reaches {', '.join(missing)}: is it used, with rsample and without detach?")
    modules.zero_grad()


def _densities(
    model: Program, guide: Program, batch: Batch, values: dict[str, Tensor], *, particles: int = 1
) -> dict[str, Tensor]:
    """Each site's log-density at given latents, or its stated rate, by program and name, `(particles, batch)`."""
    shape, found = (particles, len(batch.index)), {}
    for role, program in (("guide", guide), ("model", model)):
        for name, site in run_program(program, batch, values=values, particles=particles).items():
            stated = site.log_prob(shape) if site.rate is None else site.per_datum(site.rate, shape)
            found[f"{role}'s site '{name}'"] = stated.expand(shape)
    return found


def _check_particles(model: Program, guide: Program, batch: Batch) -> None:
    one = {name: site.value for name, site in run_program(guide, batch).items()}
    two = {name: torch.stack([value, value]) for name, value in one.items()}
    single, double = _densities(model, guide, batch, one), _densities(model, guide, batch, two, particles=2)
    for name, values in double.items():
        if not torch.allclose(values, single[name].expand_as(values), rtol=1e-4, atol=1e-3):
            raise UsageError(f"{name}: two particles with the same latents give another log_prob than one")


def _check_order(model: Program, guide: Program, batch: Batch) -> None:
    size = len(batch.index)
    order = torch.arange(size - 1, -1, -1, device=batch.index.device)
    values = {name: site.value for name, site in run_program(guide, batch).items()}
    turned = Batch(*(item[order] if isinstance(item, Tensor) else item for item in batch))
    before = _densities(model, guide, batch, values)
    after = _densities(model, guide, turned, {name: value[order] for name, value in values.items()})
    half = torch.arange(max(size // 2, 1), device=batch.index.device)
    part = Batch(*(item[half] if isinstance(item, Tensor) else item for item in batch))
    alone = _densities(model, guide, part, {name: value[half] for name, value in values.items()})
    for name, values in before.items():
        if not torch.allclose(after[name], values[:, order], rtol=1e-4, atol=1e-3):
            raise UsageError(f"{name}: a datum's log_prob depends on the order of the batch")
        if not torch.allclose(alone[name], values[:, half], rtol=1e-4, atol=1e-3):
            raise UsageError(f"{name}: a datum's log_prob depends on the others in the batch")


def _check_host_reads(model: Program, guide: Program, batch: Batch) -> None:
    def meta(thing: Any) -> Any:
        return thing.to("meta") if isinstance(thing, (Tensor, nn.Module)) else thing

    try:
        loss, _ = ELBO()(meta(model), meta(guide), Batch(*map(meta, batch)))
        if loss.requires_grad:
            loss.backward()
    except Exception as error:  # whatever the user's code raised: it is reported, with its cause chained
        raise UsageError(
            f"the pair reads a tensor on the host, or makes one on another device: {first_line(error)}"
        ) from error
