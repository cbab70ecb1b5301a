"""Data to learn from: real digits, and toy densities whose answers are known exactly."""

from tinygen.data.bundle import digits
from tinygen.data.images import Dataset, LabelledImages, binarise, bits_per_dimension, dequantise, shrink
from tinygen.data.toy import GaussianMixture, eight_gaussians, ring

__all__ = [
    "Dataset",
    "GaussianMixture",
    "LabelledImages",
    "binarise",
    "bits_per_dimension",
    "dequantise",
    "digits",
    "eight_gaussians",
    "ring",
    "shrink",
]
