"""Coloured digits: two factors, digit and colour, of which some pairs may be kept from training.

A model that has learned p(image | digit) and p(image | colour) should compose them to a pair that it never saw. Which
pairs it sees is the support, a boolean matrix (10 digits, 10 colours).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.random import Generator

__all__ = [
    "COLOURS",
    "PALETTE",
    "ColouredDigits",
    "coloured_digits",
    "diagonal_support",
    "partial_support",
    "uniform_support",
]

COLOURS = ("red", "orange", "yellow", "green", "teal", "pink", "magenta", "violet", "grey", "white")

# Found by random search for ten colours that stand out on black (lightness L* of 41 and more) and lie far apart also as
# people without one of the three kinds of cones see them (simulated after Machado et al. 2009): of any two the distance
# in CIELAB is 31 at least.
PALETTE = np.array(
    [
        [188, 41, 44],
        [226, 143, 20],
        [240, 255, 0],
        [83, 252, 139],
        [16, 110, 119],
        [232, 161, 255],
        [180, 0, 254],
        [119, 78, 179],
        [150, 171, 146],
        [198, 255, 255],
    ],
    np.uint8,
)
PALETTE.setflags(write=False)


class ColouredDigits(NamedTuple):
    """images (N, H, W, 3) float32 in [0, 1], RGB on black; digit and colour (N,) int64, 0 to 9."""

    images: np.ndarray
    digit: np.ndarray
    colour: np.ndarray


def coloured_digits(images: ArrayLike, labels: ArrayLike, support: ArrayLike, rng: Generator) -> ColouredDigits:
    """Each digit in a colour drawn from those that the support has for it, all equally likely.

    images:  (N, H, W, 1) in [0, 1], of which an image of intensity v becomes v times its colour
    labels:  (N,) digits 0 to 9
    support: boolean (10, 10), support[digit, colour]; a digit without any colour is left out

    With digits that are equally frequent and as many colours for each, all pairs of the support are equally likely.
    """
    images, labels, support = np.asarray(images, np.float32), np.asarray(labels), _support(support)
    if images.ndim != 4 or images.shape[-1] != 1 or labels.shape != images.shape[:1]:
        raise InputError(
            f"coloured_digits: images must be (N, H, W, 1) and labels (N,), not {images.shape} and {labels.shape}."
        )
    if labels.dtype.kind not in "iu" or np.any((labels < 0) | (labels > 9)):
        raise InputError("coloured_digits: labels must be integers from 0 to 9.")
    kept = support.any(1)[labels]
    images, digit = images[kept], labels[kept].astype(np.int64)
    choices = support.sum(1)[digit]
    which = np.floor(rng.uniform(len(digit), dtype=np.float64) * choices)
    rank = np.cumsum(support, axis=1) - 1  # of a colour among those of its digit
    colour = np.argmax(support[digit] & (rank[digit] == which[:, None]), axis=1)
    rgb = PALETTE[colour].astype(np.float32) / 255
    return ColouredDigits(images * rgb[:, None, None, :], digit, colour)


def uniform_support() -> np.ndarray:
    """Every digit in every colour."""
    return np.ones((10, 10), bool)


def diagonal_support(width: int = 2) -> np.ndarray:
    """Digit d in the colours d, d + 1, ..., d + width - 1, modulo 10.

    With width 1 the colour tells the digit, and nothing shows which of the two makes the shape. From 2 on, neighbouring
    digits share a colour and neighbouring colours a digit.
    """
    if not 1 <= width <= 10:
        raise InputError(f"diagonal_support: width must be 1 to 10, not {width}.")
    return (np.arange(10) - np.arange(10)[:, None]) % 10 < width


def partial_support(held_out: int, rng: Generator) -> np.ndarray:
    """All pairs but `held_out` colours of each digit, which are as many digits of each colour, drawn at random."""
    if not 0 <= held_out <= 9:
        raise InputError(f"partial_support: held_out must be 0 to 9, not {held_out}.")
    return diagonal_support(10 - held_out)[rng.permutation(10)][:, rng.permutation(10)]


def _support(support: ArrayLike) -> np.ndarray:
    support = np.asarray(support)
    if support.shape != (10, 10) or support.dtype != bool or not support.any():
        raise InputError(
            f"The support must be boolean, (10 digits, 10 colours), some pair in it True; not {support.dtype} "
            f"{support.shape} with {np.count_nonzero(support)}."
        )
    return support
