"""A mixture of Bernoullis: a hundred blurred templates, learned by expectation-maximisation.

    p(x) = sum_k pi_k prod_i mu_ki^x_i (1 - mu_ki)^(1 - x_i)

Given its component, the pixels of an image are independent; not given it, they are not, for each tells something of the
component, and that of all others. It is naive Bayes with classes that nobody has named. Equations as in Bishop 2006,
"Pattern recognition and machine learning", section 9.3.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.errors import InputError
from tinygen.models.naive_bayes import as_bits, as_images, checked
from tinygen.nn import Buffer, Module
from tinygen.random import Generator


class BernoulliMixture(Module):
    """K products of D Bernoullis, fitted by EM.

    components, dimensions: K and D
    smoothing: for each component, how many imaginary images of pure noise are added to those that it answers for

    It holds `weights` pi (K,) and `means` mu (K, D). Matrix products are done in the precision of the images.
    """

    def __init__(self, components: int, dimensions: int, smoothing: float = 0.1):
        if components < 1:
            raise InputError(f"BernoulliMixture: components must be at least 1, not {components}.")
        self.dimensions, self.smoothing = checked(dimensions, smoothing, type(self).__name__)
        self.components = components
        self.weights = Buffer(np.full(components, 1 / components))
        self.means = Buffer(np.full((components, dimensions), 0.5))

    # -- the density ---------------------------------------------------------------------------------------------

    def log_joint(self, x: np.ndarray) -> np.ndarray:
        """log pi_k + sum_i x_i log mu_ki + (1 - x_i) log(1 - mu_ki), (N, K), for images x (N, D)."""
        on, off = np.log(self.means.data), np.log1p(-self.means.data)
        with np.errstate(divide="ignore"):  # a component of weight 0 has log-weight -inf, and no part in any sum
            return x @ (on - off).T.astype(x.dtype) + off.sum(axis=1) + np.log(self.weights.data)

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats, (N,), of bits x (N, D)."""
        return ops.logsumexp(self.log_joint(as_bits(x, self.dimensions)), axis=1)

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n images, float32 0 and 1, (n, D): first the component, then its pixels."""
        component = rng.choice(self.components, n, self.weights.data)
        return (rng.uniform((n, self.dimensions)) < self.means.data[component]).astype(np.float32)

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(self, x: ArrayLike, rng: Generator, steps: int = 30) -> BernoulliMixture:
        """A start, and so many steps of EM on x (N, D), bits or intensities."""
        self.initialise(x, rng)
        for _ in range(steps):
            self.em_step(x)
        return self

    def initialise(self, x: ArrayLike, rng: Generator) -> None:
        """Templates near images drawn by k-means++ (Arthur & Vassilvitskii 2007): each in proportion to its squared
        distance from the nearest of those before. Three parts of the mean image keep all of them within reach.
        """
        x = as_images(x, self.dimensions)
        if len(x) < self.components:
            raise InputError(f"BernoulliMixture: {self.components} components start at as many images, not {len(x)}.")
        chosen, squared = [int(rng.integers(len(x)))], np.full(len(x), np.inf)
        norms = np.sum(x * x, axis=1)
        while len(chosen) < self.components:
            last = chosen[-1]
            squared = np.minimum(squared, np.maximum(norms - 2 * (x @ x[last]) + norms[last], 0)).astype(np.float64)
            far = squared / squared.sum() if squared.sum() else None  # None: all images are the same
            chosen.append(int(rng.choice(len(x), (), far)))
        self.weights.data = np.full(self.components, 1 / self.components)
        self.means.data = np.clip(0.75 * x.mean(axis=0, dtype=np.float64) + 0.25 * x[chosen], 1e-3, 1 - 1e-3)

    def em_step(self, x: ArrayLike) -> float:
        """One step of EM on x (N, D); returns, of the parameters *before* it, what no step lowers, in nats per image:

            1/N (sum_n log p(x_n) + (alpha / 2) sum_ki log mu_ki (1 - mu_ki))

        the log-likelihood with that of the imaginary images. The step:

            r_nk = pi_k p(x_n|k) / p(x_n)                                                                      eq. 9.56
            N_k = sum_n r_nk,    pi_k = N_k / N                                                          eq. 9.57, 9.60
            mu_k = (sum_n r_nk x_n + alpha / 2) / (N_k + alpha)                                       eq. 9.59, smoothed

        A component without images has weight 0 and becomes noise; nothing is divided by zero. Of intensities, p(x|k) is
        the geometric mean over their binarisations.
        """
        x = as_images(x, self.dimensions)
        log_joint = self.log_joint(x)
        log_p = ops.logsumexp(log_joint, axis=1)
        noise = np.log(self.means.data) + np.log1p(-self.means.data)
        r = np.exp(log_joint - log_p[:, None])
        counts = r.sum(axis=0)
        self.weights.data = counts / len(x)
        on = np.minimum((r.T.astype(x.dtype) @ x).astype(np.float64), counts[:, None])  # float32 may round above
        self.means.data = (on + self.smoothing / 2) / (counts[:, None] + self.smoothing)
        return float((log_p.sum() + self.smoothing / 2 * noise.sum()) / len(x))
