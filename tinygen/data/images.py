"""Images with labels, and what is done to their pixels before a model sees them.

Images are float32 in [0, 1], shape (N, H, W, C), features last, 0 being the background. Their intensities are the 256
levels k / 255 of the files they come from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = ["Dataset", "LabelledImages", "binarise", "bits_per_dimension", "dequantise", "shrink"]

STATIC_SEED = 2008  # of the one binarisation that all figures under "static" share
LEVELS = 256


class LabelledImages(NamedTuple):
    """images (N, H, W, C) float32 in [0, 1]; labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A set to learn from and one to be measured on, which share no image; `name` is what they are."""

    name: str
    train: LabelledImages
    held_out: LabelledImages

    def shrunk(self) -> Dataset:
        """Both sets at half the height and width: see `shrink`."""
        train, held_out = (part._replace(images=shrink(part.images)) for part in (self.train, self.held_out))
        return Dataset(self.name, train, held_out)

    def binarised(self) -> Dataset:
        """Static binarisation: x ~ Bernoulli(intensity), drawn once, the same pixels in every run.

        Larochelle & Murray 2011 ("The neural autoregressive distribution estimator") and most likelihoods published
        since are on pixels drawn once. Those of the paper are drawn from MNIST too, but with other random numbers.
        """
        rng = Generator(STATIC_SEED)
        held_out, train = (part._replace(images=binarise(part.images, rng)) for part in (self.held_out, self.train))
        return Dataset(self.name, train, held_out)


def binarise(images: ArrayLike, rng: Generator) -> np.ndarray:
    """x ~ Bernoulli(intensity), float32 0 or 1. Called anew for each minibatch, this is dynamic binarisation.

    The pixels are independent given the intensities (Salakhutdinov & Murray 2008). 0 stays 0 and 1 stays 1.
    """
    images = np.asarray(images)
    if not np.all((images >= 0) & (images <= 1)):
        raise InputError("binarise: intensities are probabilities and must lie in [0, 1].")
    return (rng.uniform(images.shape) < images).astype(np.float32)


def shrink(images: ArrayLike) -> np.ndarray:
    """Half the height and width: each pixel is the mean of a square of 2 x 2, rounded to the nearest of 256 levels.

    (..., H, W, C) to (..., H/2, W/2, C). The rounding (half to even) keeps the images discrete, so that `dequantise`
    and bits per dimension mean on them what they mean on the originals.
    """
    images = np.asarray(images, np.float32)
    if images.ndim < 3 or images.shape[-3] % 2 or images.shape[-2] % 2:
        raise InputError(f"shrink: images must have shape (..., H, W, C) with H and W even, not {images.shape}.")
    *n, height, width, channels = images.shape
    squares = _levels(images, "shrink").reshape(*n, height // 2, 2, width // 2, 2, channels)
    return (np.rint(squares.mean((-4, -2))) / 255).astype(np.float32)


def dequantise(images: ArrayLike, rng: Generator) -> np.ndarray:
    """Uniform dequantisation: y = (255 x + u) / 256 with u ~ U[0, 1), so that a density may be fitted; y in [0, 1).

    A density p over y is a lower bound for the probability of the discrete image, D being its number of values
    (Theis et al. 2016, "A note on the evaluation of generative models", section 3.1; a cell of y has volume 256^-D):

    log P(x) >= E_u[log p(y)] - D log 256

    The constant D log 256 is what `bits_per_dimension` adds.
    """
    levels = _levels(np.asarray(images, np.float32), "dequantise")
    y = (levels + rng.uniform(levels.shape)) / np.float32(LEVELS)
    return np.minimum(y, np.nextafter(np.float32(1), np.float32(0)))  # rounding may reach 1 itself


def bits_per_dimension(log_prob: ArrayLike, dimensions: int) -> np.ndarray:
    """Bits per value of an 8-bit image from log p(y) in nats of its dequantised form: (log 256 - log p(y) / D) / log 2.
    """
    return (math.log(LEVELS) - np.asarray(log_prob, np.float64) / dimensions) / math.log(2)


def _levels(images: np.ndarray, name: str) -> np.ndarray:
    """255 x as whole numbers, float32. Raises InputError where x is not one of 0/255, 1/255, ..., 255/255."""
    levels = np.rint(255 * images)
    if not np.all((levels >= 0) & (levels < LEVELS) & (np.abs(255 * images - levels) < 1e-3)):
        raise InputError(f"{name}: intensities must be the 256 levels k / 255, as the data sets have them.")
    return levels
