"""Layers: functions with parameters, found and saved by `Module`. The last axis is always the feature axis.

Every layer that draws its first weights is given a generator, `rng=tinygen.random.Generator(seed)`.
"""

from tinygen.nn import initialise
from tinygen.nn.attention import KeyValueCache, MultiHeadAttention
from tinygen.nn.convolution import Conv1d, Conv2d, ConvTranspose2d
from tinygen.nn.dropout import Dropout
from tinygen.nn.embedding import Embedding, FourierFeatures, TimeEmbedding, sinusoidal
from tinygen.nn.linear import MLP, Linear, Sequential
from tinygen.nn.module import Buffer, Module
from tinygen.nn.normalisation import BatchNorm, GroupNorm, GroupNormSiLU, LayerNorm, RMSNorm
from tinygen.nn.reparametrisation import SpectralNorm, WeightNorm
from tinygen.nn.residual import ConvResidualBlock, ResidualBlock, ResidualMLP
from tinygen.nn.transformer import GPT, TransformerBlock
from tinygen.nn.unet import ImageAttention, UNet
from tinygen.tensor import Parameter

__all__ = [
    "GPT",
    "MLP",
    "BatchNorm",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "ConvResidualBlock",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "FourierFeatures",
    "GroupNorm",
    "GroupNormSiLU",
    "ImageAttention",
    "KeyValueCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "ResidualBlock",
    "ResidualMLP",
    "Sequential",
    "SpectralNorm",
    "TimeEmbedding",
    "TransformerBlock",
    "UNet",
    "WeightNorm",
    "initialise",
    "sinusoidal",
]
