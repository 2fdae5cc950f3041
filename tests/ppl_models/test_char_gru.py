"""The character model: both forms of its units against their equations, and as a Pyro program."""

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from ppl_models import GRU, Batch, CharGRU, UsageError


def by_equations(gru: GRU, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence at a time, one step at a time, one gate at a time, as the equations stand."""
    outputs, after = torch.zeros(*x.shape[:2], gru.hidden, dtype=x.dtype), torch.zeros_like(h)
    for row in range(len(x)):
        sequence = x[row]
        for layer, cell in enumerate(gru.cells):
            state, read = h[row, layer], []
            for step in sequence:
                if gru.reset_after:
                    w_r, w_z, w_n = cell.weight_ih_l0.chunk(3)
                    u_r, u_z, u_n = cell.weight_hh_l0.chunk(3)
                    b_r, b_z, b_n = cell.bias_ih_l0.chunk(3)
                    c_r, c_z, c_n = cell.bias_hh_l0.chunk(3)
                    r = torch.sigmoid(w_r @ step + b_r + u_r @ state + c_r)
                    z = torch.sigmoid(w_z @ step + b_z + u_z @ state + c_z)
                    candidate = torch.tanh(w_n @ step + b_n + r * (u_n @ state + c_n))
                else:
                    w_r, w_z, w_n = cell.read.weight.chunk(3)
                    b_r, b_z, b_n = cell.read.bias.chunk(3)
                    u_r, u_z = cell.gates.weight.chunk(2)
                    r = torch.sigmoid(w_r @ step + b_r + u_r @ state)
                    z = torch.sigmoid(w_z @ step + b_z + u_z @ state)
                    candidate = torch.tanh(w_n @ step + b_n + cell.candidate.weight @ (r * state))
                state = z * state + (1 - z) * candidate
                read.append(state)
            sequence, after[row, layer] = torch.stack(read), state
        outputs[row] = sequence
    return outputs, after


@pytest.mark.parametrize("reset_after", [True, False])
def test_the_equations(reset_after: bool) -> None:
    gru = GRU(3, 5, layers=2, reset_after=reset_after).double()
    x, h = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 2, 5, dtype=torch.float64)
    for state in (h, None):
        found, expected = gru(x, state), by_equations(gru, x, torch.zeros_like(h) if state is None else state)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_text_in_two_parts_is_the_text(reset_after: bool) -> None:
    model = CharGRU("abc", hidden=4, reset_after=reset_after).double()
    x = torch.randint(3, (2, 9))
    whole, end = model.logits(x)
    first, state = model.logits(x[:, :4])
    second, last = model.logits(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, end)


@pytest.mark.parametrize("reset_after", [True, False])
def test_dropout_is_on_every_layers_output_and_on_no_state(reset_after: bool) -> None:
    gru = GRU(3, 64, layers=2, dropout=0.5, reset_after=reset_after)
    x = torch.randn(8, 5, 3)
    outputs, state = gru(x)
    assert 0.4 < (outputs == 0).float().mean() < 0.6
    assert not (state == 0).any()
    # The first layer's states do not see dropout, the second's do, through what it reads.
    gru.eval()
    kept, settled = gru(x)
    torch.testing.assert_close(state[:, 0], settled[:, 0])
    assert not torch.allclose(state[:, 1], settled[:, 1])
    assert not (kept == 0).any()


@pytest.mark.parametrize("embedding", [0, 3])
def test_as_a_pyro_program(embedding: int) -> None:
    """What is sampled has the density that is observed, which is the sum of the characters' cross-entropies."""
    model = CharGRU("abcd", hidden=5, embedding=embedding, length=6).double()
    index = torch.arange(3)
    sampled = poutine.trace(model).get_trace(Batch(None, None, index))
    x = torch.stack([sampled.nodes[f"x_{t}"]["value"] for t in range(7)], 1)
    observed = poutine.trace(model).get_trace(Batch(x, None, index))
    uniform = 3 * torch.tensor(4.0, dtype=torch.float64).log()
    torch.testing.assert_close(observed.log_prob_sum(), sampled.log_prob_sum() + uniform)
    torch.testing.assert_close(observed.nodes["_RETURN"]["value"], sampled.nodes["_RETURN"]["value"])
    logits, _ = model.logits(x[:, :-1])
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(observed.log_prob_sum(), -entropy)
    observed.compute_log_prob()
    assert observed.nodes["x"]["log_prob"].shape == (3,)
    assert [site for site in observed.stochastic_nodes if site != "data"] == []


def test_logits_and_state_are_cast_to_full_precision_under_autocast() -> None:
    for reset_after in (True, False):
        model = CharGRU("abc", hidden=4, reset_after=reset_after)
        with torch.autocast("cpu", torch.bfloat16), pyro.validation_enabled(True):
            logits, state = model.logits(torch.randint(3, (2, 5)))
        assert logits.dtype == state.dtype == torch.float32


def test_text_and_codes() -> None:
    model = CharGRU("\n abé", hidden=2)
    assert model.text_of(model.codes_of("abba é\n")) == "abba é\n"
    with pytest.raises(UsageError, match="'x', 'y'"):
        model.codes_of("yaxy")
    for alphabet in ("", "abca"):
        with pytest.raises(UsageError, match="each once"):
            CharGRU(alphabet)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_sizes_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="GRU: found"):
        CharGRU("ab", **wrong)
