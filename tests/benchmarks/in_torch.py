"""Workloads in PyTorch eager, in its own layouts: Linear weights (outputs, inputs), images (N, C, H, W), convolution
weights (outputs, inputs, KH, KW), in the memory format that is faster for the workload; queries, keys and values by one
Linear; its fused attention, and its optimisers with fused=True, the fastest that it has on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from workload import Sampling, Training, by_part

from tinygen import nn
from tinygen.random import Generator

Tensor = torch.Tensor


class TorchLayers(dict):
    """PyTorch's functions on weights by tinygen's names. Images are (N, C, H, W)."""

    torch, f = torch, functional

    def linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self[f"{name}.weight"], self.get(f"{name}.bias"))

    def mlp(self, name: str, layers: int, x: Tensor, activation: str) -> Tensor:
        """Linear layers 0, 2, 4, ... whose names begin with `name`, with activations between them."""
        for i in range(layers):
            x = self.linear(f"{name}{2 * i}", x)
            x = getattr(functional, activation)(x) if i < layers - 1 else x
        return x

    def conv(self, name: str, x: Tensor, stride: Any = 1, padding: Any = 0) -> Tensor:
        """A convolution; a Linear layer as a 1x1 convolution."""
        w = self[f"{name}.weight"]
        w = w[:, :, None, None] if w.ndim == 2 else w
        return functional.conv2d(x, w, self.get(f"{name}.bias"), stride, padding)

    def conv_transpose(self, name: str, x: Tensor, stride: Any = 1, padding: Any = 0) -> Tensor:
        return functional.conv_transpose2d(x, self[f"{name}.weight"], self.get(f"{name}.bias"), stride, padding)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self[f"{name}.gain"], self[f"{name}.bias"])

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        return functional.group_norm(x, math.gcd(8, x.shape[1]), self[f"{name}.gain"], self[f"{name}.bias"])

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        own = [self[f"{name}.{which}"] for which in ("mean", "var", "gain", "bias")]
        return functional.batch_norm(x, *own, training=True)

    def attention(self, name: str, x: Tensor, heads: int, causal: bool = False) -> Tensor:
        """(N, T, F) -> the same."""
        q, k, v = self.linear(f"{name}.qkv", x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.linear(f"{name}.output", out.transpose(1, 2).flatten(2))


def prepare(work: Training | Sampling, data: list[list[np.ndarray]], threads: int) -> tuple[Callable, Callable]:
    """A function that makes one step and returns its losses (or samples), and one that returns the weights by name."""
    torch.set_num_threads(threads)
    form = torch.channels_last if work.channels_last else torch.contiguous_format
    model = work.model(Generator(0))
    tables = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Embedding)} | {"codebook"}
    p = TorchLayers({name: _torch(w, name in tables, form) for name, w in model.state_dict().items()})
    batches = cycle([[_data(a, form) for a in batch] for batch in data])
    if isinstance(work, Sampling):
        return lambda: [_sample(work, p, next(batches))], dict
    losses, trained = by_part(work.torch), set(dict(model.named_parameters()))
    parts = {name: [w for key, w in p.items() if key in trained and key.startswith(name)] for name in losses}
    decay = {"weight_decay": 0.01} if work.optimiser == "AdamW" else {}
    rule = lambda weights: getattr(torch.optim, work.optimiser)(weights, work.lr, work.betas, fused=True, **decay)
    for weights in parts.values():
        for w in weights:
            w.requires_grad_()
    optimisers = {name: rule(weights) for name, weights in parts.items()}
    averages, updates = [w.detach().clone() for w in parts.get("", [])] if work.ema else [], 0

    def step() -> list:
        nonlocal updates
        batch, values = next(batches), []
        for name, loss in losses.items():
            if name:  # the other parts get no gradients
                for other, weights in parts.items():
                    for w in weights:
                        w.requires_grad_(other == name)
            value = loss(p, *batch)
            value.backward()
            optimisers[name].step()
            optimisers[name].zero_grad()
            values.append(value)
        if averages:
            with torch.no_grad():
                torch._foreach_lerp_(averages, parts[""], 1 - min(0.999, (1 + updates) / (10 + updates)))
            updates += 1
        return values

    return step, lambda: {name: _back(w.detach(), name in tables) for name, w in p.items()}


def _sample(work: Sampling, p: TorchLayers, noise: list) -> Tensor:
    with torch.inference_mode():
        return work.torch(p, *noise)


def _torch(w: np.ndarray, table: bool, form: Any) -> Tensor:
    """A weight in PyTorch's layout."""
    if w.ndim == 4:
        return torch.tensor(w.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=form)
    return torch.tensor(w if w.ndim < 2 or table else w.T.copy())


def _back(w: Tensor, table: bool) -> np.ndarray:
    """The inverse of `_torch`."""
    w = w.numpy()
    return w.transpose(2, 3, 1, 0) if w.ndim == 4 else w if w.ndim < 2 or table else w.T


def _data(a: np.ndarray, form: Any) -> Tensor:
    """Images (N, H, W, C) as (N, C, H, W); the rest as it is."""
    a = torch.tensor(a)
    return a.movedim(-1, 1).contiguous(memory_format=form) if a.ndim == 4 else a


def number(loss: Tensor) -> float:
    return loss.item()


def samples(x: Tensor) -> np.ndarray:
    return (x.movedim(1, -1) if x.ndim == 4 else x).numpy()
