"""A user's own model or guide, from a file that was named on the command line."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_models import UsageError
from runners.loop.errors import first_line

__all__ = ["is_own", "own"]


def is_own(text: str) -> bool:
    """Whether an option's value names a file and something in it, `my.py:MyVAE`."""
    return ".py:" in text


def own(text: str, **offered: Any) -> Any:
    """What `text`, `FILE.py:NAME`, names: a class is made, with those of the offered arguments that it takes.

    Raises:
        UsageError: There is no such file or name, or importing or making it raised.
    """
    file, _, name = text.rpartition(":")
    if not name:
        raise UsageError(f"{text}: names nothing in the file, expected FILE.py:NAME")
    found = getattr(_imported(Path(file)), name, None)
    if not callable(found):
        raise UsageError(f"{text}: {file} has no {name} that can be called")
    if not isinstance(found, type):
        return found  # a function of a batch is a model or a guide as it is
    taken = inspect.signature(found).parameters
    try:
        return found(**{name: value for name, value in offered.items() if name in taken})
    except Exception as error:  # whatever the user's code raised: it is reported, with its cause chained
        raise UsageError(f"{text}: making it raised {type(error).__name__}: {first_line(error)}") from error


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    path = path.resolve()
    # Under a name of its own, so that it neither hides nor is taken for a module that is installed.
    name = f"own_{path.stem}_{abs(hash(path))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent))  # at the end, so that its neighbours hide nothing
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path}: importing it raised {type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
