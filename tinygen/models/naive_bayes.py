"""Naive Bayes: pixels that know nothing of each other, and the classifier that any density makes.

A generative classifier says how a class makes images, p(x|y), and how often the class comes, p(y). Bayes' rule turns
that round:

    p(y|x) = p(y) p(x|y) / p(x),    p(x) = sum_y p(y) p(x|y)

The naive one takes all pixels of a class for independent, p(x|y) = prod_i p(x_i|y). Fitting it is counting, each class
by itself and each pixel by itself, which is why it learns from little. It is never far off about a pixel, and always
about an image: every stroke is taken for as many separate pieces of evidence as it has pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.errors import InputError, ShapeError
from tinygen.nn import Buffer, Module
from tinygen.random import Generator

__all__ = ["ClassConditional", "NaiveBayes", "ProductOfBernoullis", "as_bits", "as_images"]


class ProductOfBernoullis(Module):
    """p(x) = prod_i p_i^x_i (1 - p_i)^(1 - x_i) over D bits: D coins, each with a bias of its own.

    dimensions: D
    smoothing:  how many imaginary images, half of whose every pixel is on, are added to the data. Without any, a pixel
                that happened to be off in all of them would be impossible for ever.
    """

    def __init__(self, dimensions: int, smoothing: float = 0.3):
        self.dimensions, self.smoothing = checked(dimensions, smoothing, type(self).__name__)
        self.p = Buffer(np.full(dimensions, 0.5))

    def fit(self, x: ArrayLike) -> ProductOfBernoullis:
        """Counts: p_i = (sum_n x_ni + alpha / 2) / (N + alpha). x: (N, D), bits or intensities (see `as_images`)."""
        x = as_images(x, self.dimensions)
        self.p.data = (x.sum(axis=0, dtype=np.float64) + self.smoothing / 2) / (len(x) + self.smoothing)
        return self

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats, (N,), of bits x (N, D)."""
        x = as_bits(x, self.dimensions)
        return x @ np.log(self.p.data) + (1 - x) @ np.log1p(-self.p.data)

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n images, float32 0 and 1, (n, D)."""
        return (rng.uniform((n, self.dimensions)) < self.p.data).astype(np.float32)


class ClassConditional(Module):
    """p(x, y) = p(y) p(x|y): one density for each class, which needs `fit(x)`, `log_prob(x)` and `sample(n, rng)`.

    densities: p(x|y) for y = 0, 1, ..., any Modules that have those methods
    """

    def __init__(self, densities: Sequence[Any]):
        if len(densities) < 1:
            raise InputError("ClassConditional: give a density for each class, one at least.")
        self.densities = list(densities)
        self.prior = Buffer(np.full(len(self.densities), 1 / len(self.densities)))

    def fit(self, x: ArrayLike, y: ArrayLike, **options: Any) -> ClassConditional:
        """Fits each density to the images x (N, ...) with its label y (N,), with the `options` of the densities' fit.

        p(y) = (N_y + 1) / (N + classes): a class that has not been seen yet may still come.
        """
        x, y = np.asarray(x), np.asarray(y)
        classes = len(self.densities)
        if y.shape != x.shape[:1] or not np.isin(y, range(classes)).all():
            raise InputError(f"ClassConditional: {len(x)} images need as many labels from 0 to {classes - 1}.")
        self.prior.data = (np.bincount(y, minlength=classes) + 1) / (len(y) + classes)
        for c, density in enumerate(self.densities):
            density.fit(x[y == c], **options)
        return self

    def log_joint(self, x: ArrayLike) -> np.ndarray:
        """log p(y) + log p(x|y) for all classes, (N, classes)."""
        return np.log(self.prior.data) + np.stack([density.log_prob(x) for density in self.densities], axis=1)

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) = log sum_y p(y) p(x|y), in nats, (N,)."""
        return ops.logsumexp(self.log_joint(x), axis=1)

    def predict(self, x: ArrayLike) -> np.ndarray:
        """The most probable class of each image, int64 (N,)."""
        return self.log_joint(x).argmax(axis=1)

    def sample(self, n: int, rng: Generator, labels: ArrayLike | None = None) -> np.ndarray:
        """n images, float32 (n, ...), of the classes `labels` (n,), or of classes drawn from p(y)."""
        labels = rng.choice(len(self.densities), n, self.prior.data) if labels is None else np.asarray(labels)
        if labels.shape != (n,) or not np.isin(labels, range(len(self.densities))).all():
            raise InputError(f"ClassConditional: {n} samples need as many labels below {len(self.densities)}.")
        drawn = {c: iter(self.densities[c].sample(int(np.sum(labels == c)), rng)) for c in np.unique(labels)}
        return np.stack([next(drawn[c]) for c in labels]) if n else self.densities[0].sample(0, rng)


class NaiveBayes(ClassConditional):
    """The class-conditional model in which the pixels of a class are independent."""

    def __init__(self, classes: int, dimensions: int, smoothing: float = 0.3):
        super().__init__([ProductOfBernoullis(dimensions, smoothing) for _ in range(classes)])


# -- what the models of binary images share ----------------------------------------------------------------------------


def as_images(x: ArrayLike, dimensions: int) -> np.ndarray:
    """x (N, D) as floats from 0 to 1, to be learned from.

    An intensity between 0 and 1 is the probability that the pixel is on. Counts are then those to expect of an image
    binarised at random, which is to learn from all its binarisations at once.
    """
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    if x.ndim != 2 or x.shape[1] != dimensions:
        raise ShapeError(f"images must be rows of {dimensions} pixels, (N, {dimensions}), not {x.shape}.")
    if not np.all((x >= 0) & (x <= 1)):
        raise InputError("images must lie between 0 and 1, and none of their pixels may be NaN.")
    return x


def as_bits(x: ArrayLike, dimensions: int) -> np.ndarray:
    """x (N, D) as floats that are 0 or 1, for only those have a probability. Raises InputError for any other."""
    x = as_images(x, dimensions)
    if not np.all((x == 0) | (x == 1)):
        raise InputError("only images of zeros and ones have a probability here; binarise them: tinygen.data.binarise.")
    return x


def checked(dimensions: int, smoothing: float, name: str) -> tuple[int, float]:
    """Both as they are, if they make sense."""
    if dimensions < 1 or not 0 < smoothing < np.inf:
        raise InputError(
            f"{name}: dimensions must be at least 1 and smoothing above 0, not {dimensions} and {smoothing}."
        )
    return dimensions, smoothing
