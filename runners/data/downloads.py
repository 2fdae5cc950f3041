"""What every download shares: little patience, and which errors say that there is no way to it."""

import contextlib
import http.client
import socket
from collections.abc import Iterator

__all__ = ["UNREACHABLE", "impatient", "reason"]

TIMEOUT = 5.0  # Seconds a server may stay silent: a machine without a network should learn it soon.

UNREACHABLE = (OSError, RuntimeError, http.client.HTTPException)
"""What torchvision's downloads raise."""


def reason(error: Exception) -> str:
    """The last line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[-1]


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Wait for servers for a few seconds only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
