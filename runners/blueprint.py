"""What a toolkit object was made from, as JSON, and the object made again from that.

Every class of the toolkit keeps each constructor argument in an attribute of the same name; that convention is all
there is to it. Only names that `ppl_models`, `guides` and a few of torch's optimisers make public are ever called, so
a run folder cannot bring code of its own.
"""

import inspect
import platform
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

import guides
import ppl_models
from ppl_models import UsageError
from runners.loop import processes

if TYPE_CHECKING:
    from runners.run import Run

__all__ = ["config_of", "describe", "rebuild"]

OPTIMIZERS = ("Adam", "AdamW", "RMSprop", "SGD")
LARGEST = 100_000
"""Numbers in a tensor that a description still spells out."""


def describe(thing: Any) -> Any:
    """JSON that `rebuild` understands, for numbers, strings, lists, tensors and the toolkit's objects; else a note."""
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, (list, tuple)):
        return [describe(item) for item in thing]
    if isinstance(thing, Tensor) and thing.numel() <= LARGEST:
        return {"made by": "torch.tensor", "data": thing.tolist(), "dtype": str(thing.dtype)}
    if isinstance(thing, partial):
        return {"made by": f"torch.optim.{thing.func.__name__}", **{k: describe(v) for k, v in thing.keywords.items()}}
    name = type(thing).__name__
    if _public().get(name) is type(thing):
        # A module without a constructor of its own shows nn.Module's (*args, **kwargs), which stand for nothing.
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(type(thing)).parameters.values()
        arguments = [parameter.name for parameter in parameters if parameter.kind in named]
        return {"made by": name, **{argument: describe(getattr(thing, argument)) for argument in arguments}}
    return {"not the toolkit's own": type(thing).__name__}


def rebuild(description: Any) -> Any:
    """The object of a description.

    Raises:
        UsageError: It is not one of the toolkit's, or its arguments do not fit.
    """
    if isinstance(description, list):
        return tuple(rebuild(item) for item in description)
    if not isinstance(description, dict):
        return description
    name = description.get("made by")
    if name == "torch.tensor":
        return torch.tensor(description["data"], dtype=getattr(torch, description["dtype"].removeprefix("torch.")))
    if name is None or name not in _public():
        foreign = name or description.get("not the toolkit's own", "something")
        raise UsageError(f"config.json names {foreign}, which the toolkit does not make: pass the object itself")
    arguments = {name: rebuild(value) for name, value in description.items() if name != "made by"}
    try:
        make = _public()[name]
        return partial(make, **arguments) if name.startswith("torch.optim.") else make(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"config.json: cannot make {name} ({str(error).splitlines()[0]})") from error


def config_of(run: "Run") -> dict[str, Any]:
    """What a run was made from, as JSON; the data by name, size and fingerprint alone."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
    splits = {"train": run.data.train, "test": run.data.test}
    sizes = {name: f"{len(split):,} data, {split.fingerprint()}" for name, split in splits.items()}
    return {
        **{name: describe(piece) for name, piece in run.pieces.items()},
        "data": {"name": run.data.name, "binarize": run.data.binarize, **sizes},
        **{name: describe(value) for name, value in run.settings.items()},
        "device": str(run.device),
        "processes": processes.count(),
        "threads": torch.get_num_threads(),
        "versions": versions,
        **run.origin,
    }


def _public() -> dict[str, Callable[..., Any]]:
    classes = {
        name: getattr(package, name)
        for package in (ppl_models, guides)
        for name in package.__all__
        if isinstance(getattr(package, name), type)
    }
    return classes | {f"torch.optim.{name}": getattr(torch.optim, name) for name in OPTIMIZERS}
