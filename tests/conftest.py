"""Every test starts from the same seed and leaves no global state behind."""

from collections.abc import Iterator

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    pyro.enable_validation(True)
    torch.set_num_threads(threads)
