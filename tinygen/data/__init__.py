"""Data to learn from: real digits, and toy densities whose answers are known exactly."""

from tinygen.data.batches import Batches
from tinygen.data.bundle import digits
from tinygen.data.download import DownloadError, cache_folder
from tinygen.data.images import Dataset, LabelledImages, binarise, bits_per_dimension, dequantise, shrink
from tinygen.data.sets import load
from tinygen.data.toy import GaussianMixture, eight_gaussians, ring

__all__ = [
    "Batches",
    "Dataset",
    "DownloadError",
    "GaussianMixture",
    "LabelledImages",
    "binarise",
    "bits_per_dimension",
    "cache_folder",
    "dequantise",
    "digits",
    "eight_gaussians",
    "load",
    "ring",
    "shrink",
]
