"""A character-level recurrent model of text."""

from collections.abc import Iterable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_models.batch import Batch, UsageError
from ppl_models.gru import GRU

__all__ = ["CharGRU"]


class CharGRU(nn.Module):
    r"""A model of text by character, :math:`p(x_{1:S} \mid x_0, h_0) = \prod_t p(x_t \mid x_{t-1}, h_{t-1})`.

    Sutskever, Martens and Hinton 2011; Karpathy 2015. There are no latents: the state is a function of what was read,
    and what carries it from one batch to the next is the stream of batches, through `Batch.state`.

    Args:
        alphabet: The characters that there are, each once; a text is their positions in it.
        hidden: The size of the state of a layer.
        layers: How many layers of gated recurrent units.
        embedding: The size of what a character is read as, a learned vector; 0 reads its one-hot code.
        dropout: On every layer's output, in training.
        reset_after: The form of the units: see `GRU`.
        length: How many characters are sampled where none are observed.

    Raises:
        UsageError: A character is twice in the alphabet, or there is none.
    """

    def __init__(
        self,
        alphabet: str,
        *,
        hidden: int = 256,
        layers: int = 2,
        embedding: int = 0,
        dropout: float = 0.0,
        reset_after: bool = True,
        length: int = 100,
    ) -> None:
        super().__init__()
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise UsageError(f"alphabet: found {alphabet!r}, expected characters, each once")
        self.alphabet, self.hidden, self.layers, self.embedding = alphabet, hidden, layers, embedding
        self.dropout, self.reset_after, self.length = dropout, reset_after, length
        self.embed = nn.Embedding(len(alphabet), embedding) if embedding else None
        self.gru = GRU(embedding or len(alphabet), hidden, layers=layers, dropout=dropout, reset_after=reset_after)
        self.head = nn.Linear(hidden, len(alphabet))
        self._codes = {character: code for code, character in enumerate(alphabet)}

    def forward(self, batch: Batch) -> Tensor:
        """Observe the characters `x`, all but the first, given those before each; returns the state after them.

        Without `batch.x`, `length` characters are sampled, sites `x_1`, `x_2` and so on, after `x_0`, which can be any.

        Args:
            batch: `x` are codes `(B, S + 1)`, of which the first S are read and the last S observed; `state` is where
                the layers stand before, `(B, layers, hidden)`, or `None` for zeros.
        """
        with pyro.plate("data", len(batch.index)):
            if batch.x is None:
                return self._sampled(batch)
            logits, state = self.logits(batch.x[:, :-1], batch.state)
            pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=batch.x[:, 1:])
        return state

    def logits(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The unnormalised log-probabilities of the character after each.

        Args:
            x: Codes `(B, S)`.
            state: `(B, layers, hidden)`, or `None` for zeros.

        Returns:
            `(B, S, characters)`, cast to the weights' precision under autocast, and the state after, in it too,
            `(B, layers, hidden)`.
        """
        if self.embed is None:
            read = nn.functional.one_hot(x, len(self.alphabet)).to(self.head.weight.dtype)
        else:
            read = self.embed(x)
        outputs, state = self.gru(read, state)
        return self.head(outputs).to(self.head.weight.dtype), state.to(self.head.weight.dtype)

    def codes_of(self, text: str) -> Tensor:
        """The codes of a text, `(characters,)`.

        Raises:
            UsageError: A character is not in the alphabet.
        """
        unknown = sorted(set(text) - self._codes.keys())
        if unknown:
            raise UsageError(f"characters {', '.join(map(repr, unknown[:10]))} are not in the model's alphabet")
        return torch.tensor([self._codes[character] for character in text], dtype=torch.long)

    def text_of(self, codes: Iterable[int]) -> str:
        """The text of codes."""
        return "".join(self.alphabet[code] for code in codes)

    def _sampled(self, batch: Batch) -> Tensor:
        state, uniform = batch.state, self.head.bias.new_zeros(len(batch.index), len(self.alphabet))
        x = pyro.sample("x_0", dist.Categorical(logits=uniform))
        for t in range(1, self.length + 1):
            logits, state = self.logits(x.unsqueeze(-1), state)
            x = pyro.sample(f"x_{t}", dist.Categorical(logits=logits.squeeze(-2)))
        return state
