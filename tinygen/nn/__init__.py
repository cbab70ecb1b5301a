"""Layers: functions with parameters, found and saved by `Module`. The last axis is always the feature axis.

Every layer that draws its first weights is given a generator, `rng=tinygen.random.Generator(seed)`.
"""

from tinygen.nn import initialise
from tinygen.nn.embedding import Embedding, sinusoidal
from tinygen.nn.linear import MLP, Linear, Sequential
from tinygen.nn.module import Buffer, Module
from tinygen.nn.residual import ResidualBlock, ResidualMLP
from tinygen.tensor import Parameter

__all__ = [
    "MLP",
    "Buffer",
    "Embedding",
    "Linear",
    "Module",
    "Parameter",
    "ResidualBlock",
    "ResidualMLP",
    "Sequential",
    "initialise",
    "sinusoidal",
]
