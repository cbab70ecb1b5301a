"""Workloads in JAX: one step, with its optimiser written out, is one program under jit, which may write over the memory
of the weights that it was given. Layouts are tinygen's own, which are also those that JAX's users prefer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from workload import Sampling, Training, by_part

from tinygen.random import Generator

IMAGES = ("NHWC", "HWIO", "NHWC")


class JaxLayers(dict):
    """jax.numpy's functions on weights by tinygen's names. What batch norm makes of buffers is left in `changed`."""

    jax, jnp, lax = jax, jnp, lax

    def __init__(self, weights: dict):
        super().__init__(weights)
        self.changed: dict = {}

    def linear(self, name: str, x: Any) -> Any:
        y = x @ self[f"{name}.weight"]
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def mlp(self, name: str, layers: int, x: Any, activation: str) -> Any:
        """Linear layers 0, 2, 4, ... whose names begin with `name`, with activations between them."""
        for i in range(layers):
            x = self.linear(f"{name}{2 * i}", x)
            x = getattr(jax.nn, activation)(x) if i < layers - 1 else x
        return x

    def conv(self, name: str, x: Any, stride: int = 1, padding: Any = 0) -> Any:
        """`padding` is an integer, or ((top, bottom), (left, right))."""
        pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding
        y = lax.conv_general_dilated(x, self[f"{name}.weight"], (stride, stride), pads, dimension_numbers=IMAGES)
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def conv_transpose(self, name: str, x: Any, stride: int = 1, padding: int = 0) -> Any:
        w = self[f"{name}.weight"]
        pads = [(k - 1 - padding, k - 1 - padding) for k in w.shape[:2]]
        how = {"dimension_numbers": IMAGES, "transpose_kernel": True}
        y = lax.conv_transpose(x, w, (stride, stride), pads, **how)
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def layer_norm(self, name: str, x: Any) -> Any:
        return self._normal(x, (-1,)) * self[f"{name}.gain"] + self[f"{name}.bias"]

    def group_norm(self, name: str, x: Any) -> Any:
        n, h, w, c = x.shape
        groups = math.gcd(8, c)
        y = self._normal(x.reshape(n, h * w, groups, c // groups), (1, 3)).reshape(x.shape)
        return y * self[f"{name}.gain"] + self[f"{name}.bias"]

    def batch_norm(self, name: str, x: Any) -> Any:
        axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        now = {"mean": x.mean(axes), "var": x.var(axes) * (n / (n - 1))}
        for key, value in now.items():
            self.changed[f"{name}.{key}"] = 0.9 * self[f"{name}.{key}"] + 0.1 * lax.stop_gradient(value)
        self.update(self.changed)
        return self._normal(x, axes) * self[f"{name}.gain"] + self[f"{name}.bias"]

    def _normal(self, x: Any, axes: tuple) -> Any:
        return (x - x.mean(axes, keepdims=True)) * lax.rsqrt(x.var(axes, keepdims=True) + 1e-5)

    def attention(self, name: str, x: Any, heads: int, causal: bool = False) -> Any:
        """(N, T, F) -> the same."""
        n, t, _ = x.shape
        q, k, v = jnp.moveaxis(self.linear(f"{name}.qkv", x).reshape(n, t, 3, heads, -1), 2, 0)
        return self.linear(f"{name}.output", jax.nn.dot_product_attention(q, k, v, is_causal=causal).reshape(n, t, -1))


def adam(work: Training, weights: dict, grads: dict, m: dict, v: dict, t: Any) -> tuple[dict, dict, dict]:
    """Step t = 1, 2, ... of Adam (Kingma & Ba 2015, algorithm 1), or of AdamW: new weights and moments."""
    (b1, b2), decay = work.betas, 0.01 if work.optimiser == "AdamW" else 0.0
    m = {name: b1 * m[name] + (1 - b1) * g for name, g in grads.items()}
    v = {name: b2 * v[name] + (1 - b2) * g * g for name, g in grads.items()}
    move = lambda name: (m[name] / (1 - b1**t)) / (jnp.sqrt(v[name] / (1 - b2**t)) + 1e-8)
    return {name: w - work.lr * (move(name) + decay * w) for name, w in weights.items()}, m, v


def prepare(work: Training | Sampling, data: list[list[np.ndarray]], threads: int) -> tuple[Callable, Callable]:
    """A function that makes one step and returns its losses (or samples), and one that returns the weights by name.

    The number of threads is that of the cores which this process may use.
    """
    model = work.model(Generator(0))
    batches = cycle([[jnp.asarray(a) for a in batch] for batch in data])
    weights = {name: jnp.asarray(w) for name, w in model.state_dict().items()}
    if isinstance(work, Sampling):
        sample = jax.jit(lambda weights, *noise: work.jax(JaxLayers(weights), *noise))
        return lambda: [jax.block_until_ready(sample(weights, *next(batches)))], dict
    trained = set(dict(model.named_parameters()))
    zeros = {name: jnp.zeros_like(w) for name, w in weights.items() if name in trained}
    state = {"weights": weights, "m": zeros, "v": jax.tree.map(jnp.copy, zeros), "t": jnp.zeros((), jnp.float32)}
    state["ema"] = {name: jnp.copy(weights[name]) for name in zeros} if work.ema else {}

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state: dict, batch: list) -> tuple[dict, list]:
        weights, m, v, t, values = dict(state["weights"]), dict(state["m"]), dict(state["v"]), state["t"] + 1, []
        for name, loss in by_part(work.jax).items():

            def of(own: dict, weights: dict = weights, loss: Callable = loss) -> tuple[Any, dict]:
                layers = JaxLayers(weights | own)
                return loss(layers, *batch), layers.changed

            own = {key: w for key, w in weights.items() if key in trained and key.startswith(name)}
            (value, changed), grads = jax.value_and_grad(of, has_aux=True)(own)
            for old, new in zip((weights, m, v), adam(work, own, grads, m, v, t), strict=True):
                old.update(new)
            weights.update(changed)
            values.append(value)
        rate = 1 - jnp.minimum(0.999, t / (9 + t))
        average = {name: a + rate * (weights[name] - a) for name, a in state["ema"].items()}
        return {"weights": weights, "m": m, "v": v, "t": t, "ema": average}, values

    def step() -> list:
        nonlocal state
        state, values = jax.block_until_ready(advance(state, next(batches)))
        return values

    return step, lambda: {name: np.asarray(w) for name, w in state["weights"].items()}


def number(loss: Any) -> float:
    return float(loss)


def samples(x: Any) -> np.ndarray:
    return np.asarray(x)
