"""How likely does a latent-variable model find the data? Lower bounds of log p(x) by sampling, and the latents in use.

With z_1 ... z_k drawn from an encoder q(z|x), the importance weights w_i = p(x, z_i) / q(z_i|x) have mean p(x). So, the
logarithm being concave,

    ELBO = E[log w]  <=  L_k = E[log 1/k sum_i w_i]  <=  log p(x)

and L_k rises to log p(x) as k grows (Burda et al. 2016, "Importance weighted autoencoders", theorem 1). Everything is
in nats, summed over dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import arrays
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.metrics.points import as_points
from tinygen.tensor import Tensor


@dataclass(frozen=True)
class Bound:
    """What `importance_weighted_bound` found, in nats; the higher the better.

    value:             L_k, the mean over the examples
    error:             its standard error, from how much the examples differ
    elbo:              the mean of log w over the same draws, L_1
    per_example:       (n,) log 1/k sum_i w_i of each example
    effective_samples: (n,) (sum_i w_i)^2 / sum_i w_i^2: k if all weights are equal, near 1 where one of them decides
                       and the bound is loose
    k:                 draws for each example
    """

    value: float
    error: float
    elbo: float
    per_example: np.ndarray
    effective_samples: np.ndarray
    k: int


def importance_weighted_bound(log_weights: Callable[[int], Any], k: int = 1000, chunk: int = 20) -> Bound:
    """The importance-weighted bound L_k of n examples (Burda et al. 2016, eq. 8), in memory that does not grow with k.

    log_weights: called as log_weights(c), draws c fresh latents for each example and returns
                 log p(x, z) - log q(z|x), shape (c, n), an array or a Tensor; nothing is recorded
    chunk:       the largest c that it is asked for

    log 1/k sum_i w_i is summed up chunk by chunk, on a logarithmic scale and in float64: weights of e^-1000 count as
    they should. Raises InputError for log-weights that are NaN or +inf; -inf, a draw that cannot have made x, is a
    weight of zero.
    """
    if k < 1 or chunk < 1:
        raise InputError(f"importance_weighted_bound: k and chunk must be at least 1, not {k} and {chunk}.")
    log_sum = log_sum_of_squares = -np.inf
    total = 0.0
    for done in range(0, k, chunk):
        c = min(chunk, k - done)
        with no_grad():
            log_w = log_weights(c)
        log_w = np.asarray(log_w.numpy() if isinstance(log_w, Tensor) else arrays.to_numpy(log_w), np.float64)
        _check(log_w, c, log_sum)
        log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(log_w, axis=0))
        log_sum_of_squares = np.logaddexp(log_sum_of_squares, np.logaddexp.reduce(2 * log_w, axis=0))
        total = total + log_w.sum(axis=0)
    per_example, n = log_sum - np.log(k), len(log_sum)
    with np.errstate(invalid="ignore"):  # where all weights are zero, -inf - -inf: no effective sample, NaN, and then 0
        effective = np.nan_to_num(np.exp(2 * log_sum - log_sum_of_squares), nan=0.0)
        error = per_example.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Bound(float(per_example.mean()), float(error), float(total.mean() / k), per_example, effective, k)


def elbo(log_weights: Callable[[int], Any], k: int = 1, chunk: int = 20) -> float:
    """The evidence lower bound E[log p(x, z) - log q(z|x)] in nats, averaged over the examples and k draws for each.

    `log_weights` is that of `importance_weighted_bound`. Where the KL of q from the prior has a closed form, the mean
    of log p(x|z) - KL(q(z|x) || p(z)) estimates the same with less noise.
    """
    return importance_weighted_bound(log_weights, k, chunk).elbo


def _check(log_w: np.ndarray, c: int, log_sum: Any) -> None:
    n = log_w.shape[1:] if np.ndim(log_sum) == 0 else np.shape(log_sum)
    if log_w.ndim != 2 or log_w.shape != (c, *n) or log_w.size == 0:
        asked = f"({c}, n)" if np.ndim(log_sum) == 0 else f"({c}, {n[0]})"
        raise InputError(f"importance_weighted_bound: log_weights({c}) must return shape {asked}, not {log_w.shape}.")
    bad = np.isnan(log_w) | (log_w == np.inf)
    if bad.any():
        example = int(np.flatnonzero(bad.any(axis=0))[0])
        raise InputError(f"importance_weighted_bound: a log-weight of example {example} is NaN or +inf.")


@dataclass(frozen=True)
class ActiveUnits:
    """`count` latents are in use, of the `len(variances)` that there are; `variances` is what tells them apart."""

    count: int
    variances: np.ndarray


def active_units(means: ArrayLike, threshold: float = 0.01) -> ActiveUnits:
    """Which latents vary with the data (Burda et al. 2016, sec. 5.1): Var_x(E_{q(z|x)}[z_u]) > threshold.

    means: (n, d), the mean of q(z|x) for each of n examples. A unit that ignores x has collapsed onto the prior: its
    mean is the same for all examples. Where the two kinds are well apart, the threshold hardly matters.
    """
    means = as_points(means, "active_units: means")
    if len(means) < 2:
        raise InputError("active_units: a variance over the data needs two examples at least.")
    variances = means.var(axis=0, ddof=1)
    return ActiveUnits(int(np.sum(variances > threshold)), variances)
