"""The study of two latents: without the KL term codes leave the prior; the plane is the prior's quantiles."""

import math
from pathlib import Path

import pytest
import torch
from toy_study import answered

from runners.studies.two_latents import plane


def test_without_the_kl_term_codes_leave_the_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = answered("two-latents", tmp_path, monkeypatch, steps=150, lr=5e-3).table
    rows = {row["run"]: row for row in table}
    for scale in ("log", "direct"):
        kept, free = rows[f"with KL, {scale}"], rows[f"without KL, {scale}"]
        assert free["kl_of_all_codes"] > kept["kl_of_all_codes"] + 0.5
        assert free["scale"] < kept["scale"]
        assert kept["elbo"] > free["elbo"]
    for row in table:
        assert row["kl"] == pytest.approx(row["information"] + row["kl_of_all_codes"])
        assert row["information"] <= math.log(row["images"]) + 1e-4


def test_the_plane_is_read_like_text_and_equally_likely() -> None:
    z = plane(5).double().unflatten(0, (5, 5))
    uniform = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    middles = (torch.arange(5).double() + 0.5) / 5
    torch.testing.assert_close(uniform[..., 0], middles.expand(5, 5), rtol=0, atol=1e-6)  # to the right
    torch.testing.assert_close(uniform[..., 1], middles.flip(0)[:, None].expand(5, 5), rtol=0, atol=1e-6)  # upwards
