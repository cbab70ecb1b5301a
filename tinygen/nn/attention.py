"""Multi-head attention (Vaswani et al. 2017, sec. 3.2), and the cache that makes sampling from it affordable."""

from __future__ import annotations

from typing import Any

from tinygen import arrays, ops
from tinygen.errors import GraphError, InputError, ShapeError
from tinygen.nn import initialise
from tinygen.nn.linear import Initialiser, Linear
from tinygen.nn.module import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class KeyValueCache:
    """The keys and values of the positions that went by, (N, heads, T, F) each.

    A causal model that is sampled token by token would compute them again for every token: with T tokens, T^2 / 2 keys
    instead of T. One cache serves one attention layer through one sequence. It holds plain arrays, through which no
    gradients flow, so it is for sampling alone, inside `with tinygen.no_grad():`. Its memory begins with
    room for `room` positions: whoever knows how many will come spares it growing.
    """

    def __init__(self, room: int = 0):
        self.length, self.room, self._keys, self._values = 0, room, None, None

    def __len__(self) -> int:
        """How many positions it holds."""
        return self.length

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Take in the keys and values (N, heads, T, F) of T more positions."""
        if keys.requires_grad or values.requires_grad:
            raise GraphError("a cache keeps no history for gradients; sample inside `with tinygen.no_grad():`")
        self._keys, self._values = self._extended(self._keys, keys.data), self._extended(self._values, values.data)
        self.length += keys.shape[-2]

    def read(self) -> tuple[Tensor, Tensor]:
        """All keys and all values."""
        if not self.length:
            raise InputError("KeyValueCache: there is nothing to read yet; append keys and values first.")
        return Tensor(self._keys[..., : self.length, :]), Tensor(self._values[..., : self.length, :])

    def _extended(self, memory: Any, new: Any) -> Any:
        """The memory with `new` behind what it holds; when it is full, twice the room, so that copying stays rare."""
        *batch, t, features = new.shape
        if memory is not None and (*memory.shape[:-2], memory.shape[-1]) != (*batch, features):
            raise ShapeError(f"the cache holds keys of {memory.shape[:-2]} sequences and heads, these are of {batch}")
        if memory is None or self.length + t > memory.shape[-2]:
            room = self.room if memory is None and t <= self.room else 2 * (self.length + t)
            larger = arrays.xp(new).empty((*batch, room, features), new.dtype)
            if memory is not None:
                larger[..., : self.length, :] = memory[..., : self.length, :]
            memory = larger
        memory[..., self.length : self.length + t, :] = new
        return memory


class MultiHeadAttention(Module):
    """Every position asks, with each of `heads` queries, and takes a mean of the values whose keys answer.

        head_i = softmax(q_i k_i^T / sqrt(F)) v_i,    F = width / heads,    q = x Wq, k = c Wk, v = c Wv, split by head
        output = concatenate(head_1, ..., head_h) Wo

    Self-attention: keys and values come from x (..., T, width), so c = x. Cross-attention, if `context` names the width
    of what is attended to: c is (..., S, context). The result is (..., T, width). With causal=True a position sees
    itself and what comes before. Wq, Wk and Wv stand side by side in one Linear layer `qkv`, since one large product is
    faster than three; in cross-attention in two, `query` and `key_value`. Wo is that of `output`. Weights are drawn
    from N(0, 1 / fan_in); `output_init=initialise.zeros` lets a residual branch begin as nothing.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        context: int | None = None,
        causal: bool = False,
        bias: bool = True,
        *,
        rng: Generator,
        output_init: Initialiser = initialise.lecun_normal,
    ):
        if heads < 1 or width < 1 or width % heads:
            raise InputError(f"MultiHeadAttention: a width of {width} does not divide into {heads} heads.")
        if causal and context is not None:
            raise InputError("MultiHeadAttention: causal=True compares places in one sequence; a context is another.")
        self.heads, self.causal, self.cross = heads, causal, context is not None
        linear = lambda inputs, outputs, init: Linear(inputs, outputs, bias, rng=rng, weight_init=init)
        if self.cross:
            self.query = linear(width, width, initialise.lecun_normal)
            self.key_value = linear(context, 2 * width, initialise.lecun_normal)
        else:
            self.qkv = linear(width, 3 * width, initialise.lecun_normal)
        self.output = linear(width, width, output_init)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Any = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """mask: broadcasts to (..., heads, T, S); boolean, True where a query may attend to a key, or float, added to
        the scores.
        cache: x continues the positions in it, and is added to it. The cache of a cross-attention is filled from the
        first context it meets, and stands for it from then on.
        """
        if self.cross != (context is not None):
            raise InputError("cross-attention needs a context" if self.cross else "self-attention takes no context")
        if cache is not None and not (self.causal or self.cross):
            raise InputError("only causal self-attention and cross-attention can use a cache: else keys would change")
        if not self.cross:
            q, k, v = self._by_head(self.qkv(x), 3)
        else:
            (q,) = self._by_head(self.query(x), 1)
            k, v = (None, None) if cache else self._by_head(self.key_value(context), 2)
        if cache is not None:
            if k is not None:
                cache.append(k, v)
            k, v = cache.read()
        y = ops.scaled_dot_product_attention(q, k, v, mask, causal=self.causal)
        return self.output(ops.swapaxes(y, -2, -3).reshape(x.shape))

    def _by_head(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(..., T, parts * width) -> that many (..., heads, T, F)"""
        *batch, width = x.shape
        split = ops.swapaxes(x.reshape((*batch, parts * self.heads, width // (parts * self.heads))), -2, -3)
        return ops.split(split, parts, axis=-3)
