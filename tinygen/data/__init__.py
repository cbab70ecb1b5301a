"""Data to learn from: real digits, and toy densities whose answers are known exactly."""

from tinygen.data.batches import Batches
from tinygen.data.bundle import digits
from tinygen.data.checkerboard import Checkerboard, checkerboard
from tinygen.data.coloured import (
    ColouredDigits,
    coloured_digits,
    diagonal_support,
    partial_support,
    uniform_support,
)
from tinygen.data.curves import NoisyCurves, moons, rings, spirals, swiss_roll
from tinygen.data.download import DownloadError, cache_folder
from tinygen.data.images import Dataset, LabelledImages, binarise, bits_per_dimension, dequantise, shrink
from tinygen.data.mixtures import (
    GaussianMixture,
    eight_gaussians,
    eight_unequal_gaussians,
    grid,
    ring,
    twenty_five_gaussians,
)
from tinygen.data.pinwheel import Pinwheel, pinwheel
from tinygen.data.sets import load

__all__ = [
    "Batches",
    "Checkerboard",
    "ColouredDigits",
    "Dataset",
    "DownloadError",
    "GaussianMixture",
    "LabelledImages",
    "NoisyCurves",
    "Pinwheel",
    "binarise",
    "bits_per_dimension",
    "cache_folder",
    "checkerboard",
    "coloured_digits",
    "dequantise",
    "diagonal_support",
    "digits",
    "eight_gaussians",
    "eight_unequal_gaussians",
    "grid",
    "load",
    "moons",
    "partial_support",
    "pinwheel",
    "ring",
    "rings",
    "shrink",
    "spirals",
    "swiss_roll",
    "twenty_five_gaussians",
    "uniform_support",
]
