"""What a person trusts to tell a good sample from a bad one: one file per family of metrics.

A figure means little without what real data score at the same sample size. `beside_floor` measures that for anything
that compares two clouds of points, `DigitMetrics.floor` for digits; where the figure of true data is known, the
docstring says it.
"""

from tinygen.metrics.bounds import ActiveUnits, Bound, active_units, elbo, importance_weighted_bound
from tinygen.metrics.classifier import DigitClassifier, digit_classifier
from tinygen.metrics.digits import DigitMetrics, DigitScores
from tinygen.metrics.distances import Comparison, beside_floor, random_directions, sliced_wasserstein2, wasserstein2
from tinygen.metrics.frechet import frechet_distance, gaussian_frechet_distance
from tinygen.metrics.modes import ModeCoverage, histogram_kl, mode_coverage, share_of_gaussian_within
from tinygen.metrics.neighbours import (
    DensityCoverage,
    Memorisation,
    density_coverage,
    expected_coverage,
    memorisation,
    nearest,
)
from tinygen.metrics.two_sample import (
    TwoSampleTest,
    energy_distance,
    median_distance,
    mmd,
    nearest_neighbour_test,
    unbiased_mmd2,
)

__all__ = [
    "ActiveUnits",
    "Bound",
    "Comparison",
    "DensityCoverage",
    "DigitClassifier",
    "DigitMetrics",
    "DigitScores",
    "Memorisation",
    "ModeCoverage",
    "TwoSampleTest",
    "active_units",
    "beside_floor",
    "density_coverage",
    "digit_classifier",
    "elbo",
    "energy_distance",
    "expected_coverage",
    "frechet_distance",
    "gaussian_frechet_distance",
    "histogram_kl",
    "importance_weighted_bound",
    "median_distance",
    "memorisation",
    "mmd",
    "mode_coverage",
    "nearest",
    "nearest_neighbour_test",
    "random_directions",
    "share_of_gaussian_within",
    "sliced_wasserstein2",
    "unbiased_mmd2",
    "wasserstein2",
]
