"""Where tensors live: devices by name, by default, and what is put there."""

from typing import Any

import torch
from torch import nn

from ppl_models import UsageError
from runners.loop import processes

__all__ = ["device_of", "device_or_default", "placed"]


def device_of(name: str | None) -> torch.device | None:
    """The device of `--device`, or `None` for the default."""
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: found {name!r}, expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device: found {name!r}, expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device: found {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def device_or_default(device: torch.device | str | None) -> torch.device:
    """The device, by default CUDA where there is one, else the CPU.

    Raises:
        UsageError: Of several processes this one has no CUDA device to itself.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # Through a tensor, since "cuda" and "cuda:0" are different devices to torch until one is made.
    found = torch.empty(0, device=device).device
    if processes.count() > 1 and found.type == "cuda" and found.index != processes.local_rank():
        raise UsageError(
            f"--device: found {found} for process {processes.local_rank()} of a machine with "
            f"{torch.cuda.device_count()} CUDA devices: expected cuda, with a device for each process, or cpu"
        )
    return found


def placed(piece: Any, device: torch.device) -> Any:
    """A piece of a run on its device, convolutions with channels last; what is no module stays as it is."""
    return piece.to(device, memory_format=torch.channels_last) if isinstance(piece, nn.Module) else piece
