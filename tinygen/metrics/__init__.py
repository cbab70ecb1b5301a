"""What a person trusts to tell a good sample from a bad one: one file per family of metrics."""

from tinygen.metrics.distances import Comparison, beside_floor, random_directions, sliced_wasserstein2, wasserstein2
from tinygen.metrics.modes import ModeCoverage, mode_coverage, share_of_gaussian_within

__all__ = [
    "Comparison",
    "ModeCoverage",
    "beside_floor",
    "mode_coverage",
    "random_directions",
    "share_of_gaussian_within",
    "sliced_wasserstein2",
    "wasserstein2",
]
