"""Transformers: blocks that let positions talk to each other in turn with thinking each for itself, and a small GPT."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.nn import initialise
from tinygen.nn.attention import KeyValueCache, MultiHeadAttention
from tinygen.nn.dropout import Dropout
from tinygen.nn.embedding import Embedding
from tinygen.nn.linear import MLP, Linear
from tinygen.nn.module import Module
from tinygen.nn.normalisation import LayerNorm
from tinygen.nn.residual import require
from tinygen.random import Generator
from tinygen.tensor import Tensor

BlockCache = tuple[KeyValueCache, KeyValueCache]
"""Of one block: that of its self-attention, and that of its cross-attention."""


class TransformerBlock(Module):
    """Attention, then a perceptron, each added to what came in. x: (N, T, width) -> (N, T, width).

        x = x + Attention(LayerNorm(x))                        causal or not
        x = x + Attention(LayerNorm(x), context)               only if `context`, its width, is given
        x = x + W2 gelu(W1 LayerNorm(x))                       with `expansion` * width hidden units

    The blocks of Vaswani et al. 2017, with the norm moved to the beginning of each branch, where it leaves the way from
    the last block to the first free (Radford et al. 2019, sec. 2.3; why this trains better: Xiong et al. 2020). Each
    branch begins as zero, and so the block as the identity; dropout acts on what a branch adds.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool = False,
        context: int | None = None,
        expansion: int = 4,
        dropout: float = 0.0,
        *,
        rng: Generator,
    ):
        zeros = initialise.zeros
        self.norm1 = LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, causal=causal, rng=rng, output_init=zeros)
        self.norm2 = self.cross = None
        if context is not None:
            self.norm2 = LayerNorm(width)
            self.cross = MultiHeadAttention(width, heads, context, rng=rng, output_init=zeros)
        self.norm3 = LayerNorm(width)
        self.mlp = MLP([width, expansion * width, width], ops.gelu, rng=rng, last_init=zeros)
        self.dropout = Dropout(dropout, rng=rng) if dropout else None

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Any = None, cache: BlockCache | None = None
    ) -> Tensor:
        """context: (N, S, context).  mask: of the self-attention, as in MultiHeadAttention."""
        require(self, "context", context, self.cross)
        own, other = (None, None) if cache is None else cache
        x = x + self._drop(self.attention(self.norm1(x), mask=mask, cache=own))
        if self.cross is not None:
            x = x + self._drop(self.cross(self.norm2(x), context, cache=other))
        return x + self._drop(self.mlp(self.norm3(x)))

    def _drop(self, branch: Tensor) -> Tensor:
        return branch if self.dropout is None else self.dropout(branch)


class GPT(Module):
    """Tokens in, log-odds of the next token out: p(x) = prod_t p(x_t | x_1, ..., x_{t-1}) (Radford et al. 2018, 2019).

        h = token embedding + learned embedding of the position;  causal blocks;  LayerNorm;  Linear

    tokens: integers (N, T) from 0 to tokens - 1, T <= length -> logits (N, T, tokens): those at t are about the token
    at t + 1, and depend on tokens 0 ... t. So a sequence begins with a token that says so, or with a class. The loss is
    `ops.cross_entropy(model(x[:, :-1]), x[:, 1:])`. Embeddings are drawn from N(0, .02^2); the last layer begins as
    zeros, so all tokens are equally likely then and the loss begins at log(tokens).

    With `context`, its width, every block attends to a context (N, S, context) as well, and it must be given.
    """

    def __init__(
        self,
        tokens: int,
        length: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 4,
        context: int | None = None,
        dropout: float = 0.0,
        *,
        rng: Generator,
    ):
        small = initialise.normal(0.02)
        self.length = length
        self.token = Embedding(tokens, width, rng=rng, weight_init=small)
        self.position = Embedding(length, width, rng=rng, weight_init=small)
        self.blocks = [
            TransformerBlock(width, heads, causal=True, context=context, dropout=dropout, rng=rng)
            for _ in range(layers)
        ]
        self.norm = LayerNorm(width)
        self.last = Linear(width, tokens, bias=False, rng=rng, weight_init=initialise.zeros)

    def forward(self, tokens: Any, context: Tensor | None = None, cache: list[BlockCache] | None = None) -> Tensor:
        """With a cache from `new_cache`, the tokens continue those given before, and so do the logits."""
        start = len(cache[0][0]) if cache else 0
        stop = start + tokens.shape[-1]
        if stop > self.length:
            raise InputError(f"{stop} tokens are more than the {self.length} that this model has positions for")
        h = self.token(tokens) + self.position.weight[start:stop]
        for i, block in enumerate(self.blocks):
            h = block(h, context, cache=cache[i] if cache else None)
        return self.last(self.norm(h))

    def new_cache(self) -> list[BlockCache]:
        """An empty cache for one batch of sequences."""
        return [(KeyValueCache(self.length), KeyValueCache()) for _ in self.blocks]

    def sample(
        self, tokens: Any, steps: int, rng: Generator, temperature: float = 1.0, context: Tensor | None = None
    ) -> np.ndarray:
        """Continue the sequences `tokens` (N, T), T >= 1, by `steps` tokens, drawn one by one: (N, T + steps).

        Logits are divided by the temperature: below 1 likely tokens become likelier. The keys and values of what was
        drawn before are kept, not computed again. Call `eval()` before, if the model has dropout.
        """
        if temperature <= 0:
            raise InputError(f"GPT.sample: temperature must be positive, not {temperature}.")
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or not tokens.shape[1] or tokens.shape[1] + steps > self.length + 1:
            raise InputError(
                f"GPT.sample: tokens of shape {tokens.shape} and {steps} steps; give (N, T) with T >= 1 and "
                f"T + steps <= {self.length + 1}."
            )
        cache, new = self.new_cache(), tokens
        with no_grad():
            for _ in range(steps):
                logits = self(new, context, cache).numpy()[:, -1].astype(np.float64) / temperature
                cdf = np.cumsum(np.exp(logits - logits.max(axis=-1, keepdims=True)), axis=-1)  # but for a factor
                u = rng.uniform((len(tokens), 1), dtype=np.float64)
                new = (cdf <= u * cdf[:, -1:]).sum(axis=-1, keepdims=True)  # by the inverse CDF
                tokens = np.concatenate([tokens, new], axis=1)
        return tokens
