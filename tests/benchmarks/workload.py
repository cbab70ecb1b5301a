"""What a workload is: a model and what is done with it, written once for each library, side by side.

The model is tinygen's; its weights, by tinygen's names, are what every library starts from. A peer reaches them through
its layers (`in_torch.TorchLayers`, `in_jax.JaxLayers`), so that the three functions of a workload read alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from tinygen import nn
from tinygen.random import Generator

Losses = Callable | Mapping[str, Callable]


class Training(NamedTuple):
    """One step: forward, backward, the optimiser. Time is that of a step.

    model:     rng -> a Module
    batch:     rng -> the arrays that one step is given; drawn beforehand, so that random numbers are not measured
    tinygen:   (model, *arrays) -> loss;  torch: (layers, *tensors) -> loss;  jax: (layers, *arrays) -> loss
               or a loss for each part of the model, by its name: the parts then take turns, one optimiser each
    optimiser: "Adam" or "AdamW", with weight decay 0.01
    ema:       whether a moving average of the weights is kept
    channels_last: PyTorch's memory format of images; whichever is faster for it
    """

    title: str
    model: Callable
    batch: Callable
    tinygen: Losses
    torch: Losses
    jax: Losses
    optimiser: str = "Adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    ema: bool = False
    channels_last: bool = False


class Sampling(NamedTuple):
    """Drawing samples, given all the noise there is to draw. Time is that of all samples.

    model:   rng -> a Module
    noise:   rng -> the arrays that the sampler is given
    tinygen: (model, *arrays) -> samples;  torch: (layers, *tensors) -> samples;  jax: (layers, *arrays) -> samples
    """

    title: str
    model: Callable
    noise: Callable
    tinygen: Callable
    torch: Callable
    jax: Callable
    channels_last: bool = False


def by_part(losses: Losses) -> dict[str, Callable]:
    """The losses by the name of the part that each trains; "" is the whole model."""
    return {"": losses} if callable(losses) else dict(losses)


def stirred(model: nn.Module, rng: Generator) -> nn.Module:
    """The model with small random numbers where it has zeros, so that its samples depend on all of it."""
    for parameter in model.parameters():
        if not np.any(parameter.data):
            parameter.data = rng.normal(parameter.shape) * np.float32(0.02)
    return model
