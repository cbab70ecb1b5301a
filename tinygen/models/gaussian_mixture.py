"""Gaussian mixtures by expectation-maximisation: ask who belongs to whom, then who is where, and again.

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

If it were known which component drew each point, the rest would be means and covariances. If the components were known,
Bayes' rule would tell how likely each is to have drawn a point. EM (Dempster, Laird & Rubin 1977) begins somewhere and
does the one and the other in turn; the log-likelihood rises with every turn, to a local maximum. Equations as in
Bishop 2006, "Pattern recognition and machine learning", section 9.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.errors import InputError, ShapeError
from tinygen.nn import Buffer, Module
from tinygen.random import Generator

RESOLVED = 1e-12  # of the largest variance: what float64 can still tell from none
STARVED = 1e-8  # points: a component responsible for fewer stays where it is


class GMM(Module):
    """A mixture of K Gaussians in d dimensions, with full covariances, fitted by EM in float64.

    components, dimensions: K and d
    floor:                  the least variance in any direction. Without one the likelihood has no maximum: a component
                            can shrink onto a single point, where its density grows for ever.

    It holds `weights` pi (K,), `means` mu (K, d) and `covariances` Sigma (K, d, d). An untrained one has K standard
    normals in one place, which EM cannot tell apart: call `fit`, or `initialise` and then `em_step` as often as wanted.
    """

    def __init__(self, components: int, dimensions: int, floor: float = 1e-6):
        if components < 1 or dimensions < 1 or not floor > 0:
            raise InputError(
                f"GMM: components and dimensions must be at least 1 and the floor of the variance above 0, not "
                f"{components}, {dimensions} and {floor}."
            )
        self.components, self.dimensions, self.floor = components, dimensions, floor
        self.weights = Buffer(np.full(components, 1 / components))
        self.means = Buffer(np.zeros((components, dimensions)))
        self.covariances = Buffer(np.tile(np.eye(dimensions), (components, 1, 1)))

    # -- the density ---------------------------------------------------------------------------------------------

    def log_joint(self, x: ArrayLike) -> np.ndarray:
        """log pi_k + log N(x; mu_k, Sigma_k), (N, K), for points x (N, d).

        With Sigma = L L^T (Cholesky) the exponent is -|y|^2 / 2 for y = L^-1 (x - mu), and det Sigma = (prod_i L_ii)^2.
        """
        x = self._points(x)
        out = np.empty((len(x), self.components))
        for k, L in enumerate(np.linalg.cholesky(self.covariances.data)):
            y = np.linalg.solve(L, (x - self.means.data[k]).T)
            out[:, k] = -0.5 * np.sum(y * y, axis=0) - np.sum(np.log(np.diag(L)))
        with np.errstate(divide="ignore"):  # a component of weight 0 has log-weight -inf, and no part in any sum
            return out + np.log(self.weights.data) - 0.5 * self.dimensions * np.log(2 * np.pi)

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats, (N,)."""
        return ops.logsumexp(self.log_joint(x), axis=1)

    def sample(self, n: int, rng: Generator, return_labels: bool = False) -> Any:
        """n points, float32 (n, d); with `return_labels` also the component that drew each, int64 (n,)."""
        labels = rng.choice(self.components, n, self.weights.data)
        noise = rng.normal((n, self.dimensions), np.float64)
        roots = np.linalg.cholesky(self.covariances.data)
        x = (self.means.data[labels] + np.einsum("nij,nj->ni", roots[labels], noise)).astype(np.float32)
        return (x, labels) if return_labels else x

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(self, x: ArrayLike, rng: Generator, starts: int = 10, trial: int = 20, steps: int = 500) -> GMM:
        """EM from the best of several starts, until a step gains less than 1e-9 nats per point, or `steps` times.

        EM climbs to the top of the hill that it begins on. So each start climbs for `trial` steps, and the highest of
        them goes on (Biernacki, Celeux & Govaert 2003 call it emEM).
        """
        best, best_log_p = None, -np.inf
        for _ in range(starts):
            self.initialise(x, rng)
            log_p = [self.em_step(x) for _ in range(trial)][-1]
            if log_p > best_log_p:
                best, best_log_p = self.state_dict(), log_p
        self.load_state_dict(best)
        before = -np.inf
        for _ in range(steps):
            log_p = self.em_step(x)
            if log_p - before < 1e-9:
                break
            before = log_p
        return self

    def initialise(self, x: ArrayLike, rng: Generator) -> None:
        """A start by k-means++ (Arthur & Vassilvitskii 2007): each centre is a data point, drawn in proportion to its
        squared distance from the nearest of those before; then each component takes the points nearest to its centre.
        """
        x = self._points(x)
        if len(x) < self.components:
            raise InputError(f"GMM: {self.components} components need as many points to start at, not {len(x)}.")
        centres, nearest, squared = np.empty((self.components, self.dimensions)), np.zeros(len(x), int), None
        for k in range(self.components):
            far = None if squared is None or not squared.sum() else squared / squared.sum()
            centres[k] = x[rng.choice(len(x), (), far)]
            distance = np.sum((x - centres[k]) ** 2, axis=1)
            nearer = np.full(len(x), True) if squared is None else distance < squared
            nearest[nearer] = k
            squared = distance if squared is None else np.minimum(distance, squared)
        self.means.data = centres
        self.maximise(x, np.eye(self.components)[nearest])

    def em_step(self, x: ArrayLike) -> float:
        """One E-step and one M-step on points x (N, d); returns the mean log-likelihood, in nats, *before* them.

            r_nk = pi_k N(x_n; mu_k, Sigma_k) / p(x_n)      the responsibility of component k for point n       eq. 9.13
        """
        log_joint = self.log_joint(x)
        log_p = ops.logsumexp(log_joint, axis=1)
        self.maximise(self._points(x), np.exp(log_joint - log_p[:, None]))
        return float(log_p.mean())

    def maximise(self, x: np.ndarray, r: np.ndarray) -> None:
        """The M-step: the parameters that make x (N, d) likeliest under responsibilities r (N, K).

            N_k = sum_n r_nk,    pi_k = N_k / N                                                          eq. 9.18, 9.22
            mu_k = sum_n r_nk x_n / N_k                                                                        eq. 9.17
            Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)^T / N_k                                              eq. 9.19

        Eigenvalues of Sigma_k below the floor are raised to it, which is the exact maximum among covariances that keep
        the floor (Ingrassia & Rocci 2007): the likelihood still never falls. A component that is left with no points
        has weight 0 and keeps its place; to divide by N_k = 0 would leave NaN.
        """
        counts = r.sum(axis=0)
        means, covariances = self.means.numpy().copy(), self.covariances.numpy().copy()
        for k in np.flatnonzero(counts > STARVED):
            means[k] = r[:, k] @ x / counts[k]
            centred = x - means[k]
            values, vectors = np.linalg.eigh((r[:, k, None] * centred).T @ centred / counts[k])
            least = max(self.floor, RESOLVED * values[-1])
            covariances[k] = (vectors * np.maximum(values, least)) @ vectors.T
        self.weights.data, self.means.data, self.covariances.data = counts / counts.sum(), means, covariances

    # -- how many components -------------------------------------------------------------------------------------

    @property
    def free_parameters(self) -> int:
        """K - 1 weights, K means, K symmetric matrices."""
        d = self.dimensions
        return self.components * (1 + d + d * (d + 1) // 2) - 1

    def bic(self, x: ArrayLike) -> float:
        """Schwarz's (1978) criterion in nats, -log p(x_1, ..., x_N) + (free parameters / 2) log N: the less the better.

        A parameter that is fitted to nothing gains half a nat on average; the criterion asks for (log N) / 2 from each.
        """
        log_p = self.log_prob(x)
        return float(-log_p.sum() + 0.5 * self.free_parameters * np.log(len(log_p)))

    def _points(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimensions:
            raise ShapeError(f"GMM: points must have shape (N, {self.dimensions}), not {x.shape}.")
        if not np.isfinite(x).all():
            raise InputError("GMM: some points hold NaN or infinity; leave them out.")
        return x
