"""Normalisation layers: x - mean, over the standard deviation, times a gain, plus a bias; see `tinygen.ops.layer_norm`.

What the mean is taken over makes the difference: LayerNorm and RMSNorm the features of one position, GroupNorm a group
of features over one whole example, BatchNorm one feature over the whole batch. So only BatchNorm makes an example
depend on the others in its batch, and only it behaves differently in training and in evaluation. Features last.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.nn.module import Buffer, Module
from tinygen.tensor import Parameter, Tensor


class LayerNorm(Module):
    """Over the features of each position (Ba et al. 2016). (..., features) -> the same.

    gain: (features,), ones;  bias: (features,), zeros;  neither if affine=False.
    """

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True):
        self.eps = eps
        self.gain, self.bias = _affine("LayerNorm", features, affine)

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.gain, self.bias, eps=self.eps)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) times the gain, over the features of each position, without subtracting a mean (Zhang &
    Sennrich 2019, eq. 4). (..., features) -> the same. gain: (features,), ones; none if affine=False.
    """

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True):
        self.eps = eps
        self.gain, _ = _affine("RMSNorm", features, affine)

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.gain, eps=self.eps)


class GroupNorm(Module):
    """Over all positions and features / groups neighbouring features of each example (Wu & He 2018). (N, ..., features)
    -> the same. One group normalises whole examples; as many groups as features each feature map ("instance norm").

    gain: (features,), ones;  bias: (features,), zeros;  neither if affine=False.
    """

    def __init__(self, groups: int, features: int, eps: float = 1e-5, affine: bool = True):
        if groups < 1 or features % groups:
            raise InputError(f"GroupNorm: {features} features do not divide into {groups} groups.")
        self.groups, self.eps = groups, eps
        self.gain, self.bias = _affine("GroupNorm", features, affine)

    def forward(self, x: Tensor) -> Tensor:
        return ops.group_norm(x, self.gain, self.bias, groups=self.groups, eps=self.eps)


class GroupNormSiLU(GroupNorm):
    """silu((1 + scale) GroupNorm(x) + shift), with a scale and a shift (N, features) of each example, or none of them.

    What stands before a convolution in a residual block, as one op: it reads and writes an image once, not four times.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return ops.group_norm_silu(x, self.gain, self.bias, scale, shift, groups=self.groups, eps=self.eps)


class BatchNorm(Module):
    """Each feature over the batch and all positions (Ioffe & Szegedy 2015). (N, ..., features) -> the same.

    In training it normalises with the mean and the variance (divided by n) of the batch at hand, and moves the running
    ones, the buffers `mean` and `var`, towards them; in evaluation it normalises with the running ones (algorithm 2):

        mean = (1 - momentum) mean + momentum mean(batch)
        var  = (1 - momentum) var  + momentum var(batch) n / (n - 1),    n numbers of the feature in the batch

    Momentum is the weight of what is new, and the running variance is the unbiased one, both as in PyTorch (Keras and
    the momentum of optimisers count the other way). gain and bias: (features,), ones and zeros; none if affine=False.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        if not 0 <= momentum <= 1:
            raise InputError(f"BatchNorm: momentum is the weight of the new batch, from 0 to 1, not {momentum}.")
        self.eps, self.momentum = eps, momentum
        self.gain, self.bias = _affine("BatchNorm", features, affine)
        self.mean = Buffer(np.zeros(features, np.float32))
        self.var = Buffer(np.ones(features, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return ops.batch_norm_inference(x, self.mean, self.var, self.gain, self.bias, eps=self.eps)
        n = math.prod(x.shape[:-1])
        if n < 2:
            raise InputError(f"training needs two numbers of each feature or more, and x {x.shape} has {n}")
        y, mean, var = ops.batch_norm(x, self.gain, self.bias, eps=self.eps)
        m = self.momentum
        with no_grad():
            self.mean.data = (1 - m) * self.mean + m * mean
            self.var.data = (1 - m) * self.var + (m * n / (n - 1)) * var
        return y


def _affine(name: str, features: int, wanted: bool) -> tuple[Parameter | None, Parameter | None]:
    if features < 1:
        raise InputError(f"{name}: features must be at least 1, not {features}.")
    if not wanted:
        return None, None
    return Parameter(np.ones(features, np.float32)), Parameter(np.zeros(features, np.float32))
