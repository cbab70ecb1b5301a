"""Normalisation: (x - mean) / sqrt(variance + eps), then a gain and a bias for each feature; they differ only in what
the mean and the variance are taken over. Features are last: x is (N, ..., C).

    layer_norm     the features, at each position              RMS norm does not subtract the mean
    group_norm     all positions and a group of the features, for each example; group_norm_silu goes on to SiLU
    batch_norm     all examples and positions, for each feature

Variances are those of the numbers at hand, divided by their count n, not by n - 1. Where the numbers are all equal the
result is zero (and then the bias), with finite gradients. Gain and bias may be None.
"""

from __future__ import annotations

import math

from tinygen.domains import positive
from tinygen.errors import ShapeError
from tinygen.fused import fused
from tinygen.ops.activations import silu
from tinygen.ops.elementwise import sqrt, square
from tinygen.ops.reductions import mean
from tinygen.ops.shapes import reshape


def _standardise(x, axes, eps):
    """x with mean 0 and variance 1 over `axes`, and that mean and variance."""
    mu = mean(x, axes, keepdims=True)
    centred = x - mu
    var = mean(square(centred), axes, keepdims=True)
    return centred / sqrt(var + eps), mu, var


def _affine(x, gain, bias):
    x = x if gain is None else x * gain
    return x if bias is None else x + bias


def _features(x, *vectors):
    """Check that each vector has one number for each feature of x."""
    if not x.shape:
        raise ShapeError("x must have at least one axis, that of its features")
    for vector in vectors:
        if vector is not None and tuple(vector.shape) != tuple(x.shape[-1:]):
            raise ShapeError(f"one number for each of the {x.shape[-1]} features is needed, in shape ({x.shape[-1]},)")


def _normalised(draw, low=1):
    """x with a gain and a bias or without, and an eps that finite differences can resolve."""
    x = draw.array(draw.shape(low))
    vector = lambda: draw.choice([None, draw.array(x.shape[-1:])])
    return (x, vector(), vector()), {"eps": draw.choice([0.1, 0.5])}


@fused(inputs=_normalised)
def layer_norm(x, gain=None, bias=None, /, eps=1e-5):
    """Normalise over the last axis (Ba et al. 2016). Gain and bias: (C,)."""
    _features(x, gain, bias)
    y, _, _ = _standardise(x, -1, eps)
    return _affine(y, gain, bias)


def _scaled(draw):
    (x, gain, _), params = _normalised(draw)
    return (x, gain), params


@fused(inputs=_scaled)
def rms_norm(x, gain=None, /, eps=1e-5):
    """x / sqrt(mean(x^2) + eps) over the last axis, times the gain (C,) (Zhang & Sennrich 2019, eq. 4)."""
    _features(x, gain)
    return _affine(x / sqrt(mean(square(x), -1, keepdims=True) + eps), gain, None)


def _grouped(draw):
    groups, (width, n) = draw.integer(1, 2), draw.sizes(2, high=2)
    c = groups * width
    x = draw.array((n, *draw.shape(0, 2, 2), c))
    vector = lambda: draw.choice([None, draw.array((c,))])
    return (x, vector(), vector()), {"groups": groups, "eps": draw.choice([0.1, 0.5])}


@fused(inputs=_grouped)
def group_norm(x, gain=None, bias=None, /, *, groups, eps=1e-5):
    """Normalise each example over its positions and C / groups neighbouring features (Wu & He 2018, eq. 7).

    x: (N, ..., C), gain and bias: (C,). One group is a layer norm over whole examples, C groups an instance norm.
    """
    _features(x, gain, bias)
    if len(x.shape) < 2:
        raise ShapeError("x must have at least two axes: (N, ..., C)")
    n, *positions, c = x.shape
    if groups < 1 or c % groups:
        raise ShapeError(f"the {c} features do not divide into {groups} groups")
    y, _, _ = _standardise(reshape(x, (n, math.prod(positions), groups, c // groups)), (1, 3), eps)
    return _affine(reshape(y, x.shape), gain, bias)


def _grouped_and_told(draw):
    (x, gain, bias), params = _grouped(draw)
    vector = lambda: draw.choice([None, draw.array((draw.choice([1, x.shape[0]]), x.shape[-1]))])
    return (x, gain, bias, vector(), vector()), params


@fused(inputs=_grouped_and_told)
def group_norm_silu(x, gain=None, bias=None, scale=None, shift=None, /, *, groups, eps=1e-5):
    """silu((1 + scale) group_norm(x, gain, bias) + shift): what a residual block does between two convolutions.

    scale and shift, which may be None, are those of each example, (N, C) or (1, C): they tell it of time or class
    ("adaptive group norm": Dhariwal & Nichol 2021, sec. 3.1). x: (N, ..., C), gain and bias: (C,).
    """
    y = group_norm(x, gain, bias, groups=groups, eps=eps)
    for vector in (scale, shift):
        if vector is not None and tuple(vector.shape) not in ((x.shape[0], x.shape[-1]), (1, x.shape[-1])):
            raise ShapeError(f"scale and shift must be {(x.shape[0], x.shape[-1])} or {(1, x.shape[-1])}")
    told = lambda vector: reshape(vector, (vector.shape[0], *(1 for _ in x.shape[1:-1]), x.shape[-1]))
    y = y if scale is None else y * (1 + told(scale))
    return silu(y if shift is None else y + told(shift))


@fused(inputs=lambda draw: _normalised(draw, low=2))
def batch_norm(x, gain=None, bias=None, /, eps=1e-5):
    """Normalise over all axes but the last, as in training (Ioffe & Szegedy 2015, algorithm 1): (y, mean, var).

    x and y: (N, ..., C), all else (C,). The mean and the variance are those of this batch, from which a layer keeps the
    running ones that it hands to `batch_norm_inference`; for an unbiased variance multiply by n / (n - 1).
    """
    _features(x, gain, bias)
    y, mu, var = _standardise(x, tuple(range(x.ndim - 1)), eps)
    return _affine(y, gain, bias), reshape(mu, x.shape[-1:]), reshape(var, x.shape[-1:])


def _with_statistics(draw):
    (x, gain, bias), params = _normalised(draw)
    return (x, draw.array(x.shape[-1:]), draw.array(x.shape[-1:], positive), gain, bias), params


@fused(inputs=_with_statistics)
def batch_norm_inference(x, mean, var, gain=None, bias=None, /, eps=1e-5):
    """Normalise with a given mean and variance (C,) for each feature, as in evaluation; x: (..., C)."""
    _features(x, mean, var, gain, bias)
    return _affine((x - mean) / sqrt(var + eps), gain, bias)
