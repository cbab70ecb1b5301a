"""Layers whose weight is computed from other numbers at each call: spectral and weight normalisation.

Both wrap a layer that has a `weight` (Linear, Embedding, the convolutions) and behave as it does otherwise:

    critic = SpectralNorm(Linear(64, 1, rng=rng), rng=rng)

The layer keeps its own parameter, which is what is trained; a shallow copy of it is called with the computed weight, so
that gradients flow through the computation and nothing is left behind. The weight is seen as a matrix with one row for
each output, (outputs, everything an output sums over).
"""

from __future__ import annotations

import copy
from typing import Any

from tinygen import arrays, ops
from tinygen.errors import InputError
from tinygen.nn.convolution import ConvTranspose2d
from tinygen.nn.module import Buffer, Module
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor

TINY = 1e-12  # what lengths are kept above, so that a weight of zeros stays one


class Reparametrised(Module):
    """A layer and a `weight()` to call it with, which a subclass writes."""

    def __init__(self, layer: Module):
        if not isinstance(getattr(layer, "weight", None), Parameter) or layer.weight.ndim < 2:
            raise InputError(
                f"{type(self).__name__}: {type(layer).__name__} has no weight of two or more axes; wrap a Linear, "
                "an Embedding or a convolution."
            )
        self.layer = layer

    def weight(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not say what its weight is; write weight().")

    def forward(self, *args: Any) -> Tensor:
        layer = copy.copy(self.layer)
        layer.weight = self.weight()
        return layer.forward(*args)

    @property
    def output_axis(self) -> int:
        """The axis of the weight that counts the outputs: the last, but in a transposed convolution the one before."""
        return self.layer.weight.ndim - (2 if isinstance(self.layer, ConvTranspose2d) else 1)


class SpectralNorm(Reparametrised):
    """The weight W divided by its largest singular value, sigma (Miyato et al. 2018, eq. 8): a Linear layer becomes
    1-Lipschitz. For a convolution, sigma is that of the kernel as a matrix, as in the paper; as a map of images it may
    still stretch by up to sqrt(KH * KW).

    Power iteration finds sigma (algorithm 1). Starting from the buffer u (outputs,), `iterations` times at each call:

        v = W^T u / |W^T u|,    u = W v / |W v|;         then  sigma = u^T W v,  with u and v taken as constants

    W changes little from step to step, so one iteration at each step keeps up, but for a lag where the largest singular
    values are close to each other: sigma is then too small, by some percent. `start` iterations are made when the layer
    is wrapped, from a u that `rng` draws. In evaluation u stays as it is.
    """

    def __init__(self, layer: Module, iterations: int = 1, start: int = 15, *, rng: Generator):
        super().__init__(layer)
        if iterations < 1:
            raise InputError(f"SpectralNorm: iterations must be at least 1, not {iterations}.")
        self.iterations = iterations
        self.u = Buffer(_unit(rng.normal((layer.weight.shape[self.output_axis],))))
        self.u.data = self._iterated(start)[0]

    def weight(self) -> Tensor:
        w = self._matrix(self.layer.weight)
        u, v = self._iterated(self.iterations if self.training else 0)
        if self.training:
            self.u.data = u  # copied: the u in the graph is not written to by the next call
        sigma = (u @ w) @ v
        return self.layer.weight / ops.maximum(sigma, TINY)

    def _matrix(self, weight: Any) -> Any:
        """(outputs, everything an output sums over), a Tensor of a Tensor and an array of an array."""
        return ops.moveaxis(weight, self.output_axis, 0).reshape((weight.shape[self.output_axis], -1))

    def _iterated(self, times: int) -> tuple[Any, Any]:
        """u and v after so many power iterations, as new arrays."""
        w, u = self._matrix(self.layer.weight.data), self.u.data.copy()
        v = _unit(u @ w)
        for i in range(times):
            v = v if i == 0 else _unit(u @ w)
            u = _unit(w @ v)
        return u, v


class WeightNorm(Reparametrised):
    """Length and direction of the weight trained apart: w = g v / |v| for each output (Salimans & Kingma 2016, eq. 2).

    The layer's own weight is v, with as many directions as outputs; the parameter g, `gain` (outputs,), begins as |v|,
    so that nothing changes at first. A weight of zeros has no direction and is refused.
    """

    def __init__(self, layer: Module):
        super().__init__(layer)
        lengths = self._lengths().data
        if not arrays.to_numpy(lengths).all():
            raise InputError("WeightNorm: an output's weights are all zero, which is no direction; draw them first.")
        self.gain = Parameter(lengths.reshape(-1))

    def weight(self) -> Tensor:
        axes = [1] * self.layer.weight.ndim
        axes[self.output_axis] = -1
        return self.layer.weight * (self.gain.reshape(axes) / self._lengths())

    def _lengths(self) -> Tensor:
        """|v| of each output, with as many axes as the weight."""
        others = tuple(i for i in range(self.layer.weight.ndim) if i != self.output_axis)
        return ops.norm(self.layer.weight, others, keepdims=True)


def _unit(a: Any) -> Any:
    return a / arrays.xp(a).maximum(arrays.xp(a).sqrt((a * a).sum()), a.dtype.type(TINY))
