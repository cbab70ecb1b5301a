"""Data to learn from: toy densities whose answers are known exactly."""

from tinygen.data.toy import GaussianMixture, eight_gaussians, ring

__all__ = ["GaussianMixture", "eight_gaussians", "ring"]
