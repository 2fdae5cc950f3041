"""What a CUDA graph does, on a CPU: operations are recorded with the numbers and memory that they had, and replayed."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runners.loop.watch import Scalars, Work


class Recording:
    """A graph as `Captured` wants it. Python runs while it is recorded, and what that changed is put back."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.recorder = _Recorder()

    def warm_up(self, work: Work) -> tuple[Scalars, str | None]:
        self.verbs.append("warm up")
        return work(), None

    def capture(self, work: Work) -> Scalars:
        self.verbs.append("capture")
        state = torch.get_rng_state()
        with self.recorder:
            scalars = work()
        for storage, was in self.recorder.found:
            storage.copy_(was)
        torch.set_rng_state(state)
        return scalars

    @torch.no_grad()
    def replay(self) -> None:
        self.verbs.append("replay")
        for operation, args, kwargs, made in self.recorder.operations:
            again = tree_leaves(operation(*args, **kwargs))
            for tensor, value in zip(tree_leaves(made), again, strict=True):
                if isinstance(tensor, Tensor) and not _shared(tensor, (args, kwargs)):
                    tensor.copy_(value)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.found: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert torch.Tag.data_dependent_output not in func.tags, f"{func} reads a tensor on the host"
        for storage in map(Tensor.untyped_storage, _tensors((args, kwargs))):
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.found.append((storage, storage.clone()))
        made = func(*args, **kwargs)
        self._known |= {tensor.untyped_storage()._cdata for tensor in _tensors(made)}
        self.operations.append((func, args, kwargs, made))  # which keeps all of it alive
        return made


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _shared(tensor: Tensor, values: Any) -> bool:
    """Whether a tensor is one of those, or a view of one."""
    return tensor.untyped_storage()._cdata in {other.untyped_storage()._cdata for other in _tensors(values)}
