"""Denoising diffusion: a fixed chain turns data into noise step by step, a learned one walks back (Ho et al. 2020).

The forward chain adds a little Gaussian noise T times, until nothing of the data is left:

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)                                                   eq. 2
    q(x_t | x_0)     = N(sqrt(abar_t) x_0, (1 - abar_t) I),   alpha_t = 1 - beta_t,  abar_t = prod_s alpha_s   eq. 4

Each step back is nearly Gaussian too if beta_t is small, and its mean follows from the noise that is in x_t. A network
eps_theta(x_t, t) learns to predict that noise. Three things compose here: a schedule (the beta_t), a network (any
Module called with x_t and t), and this objective with its sampler.

Time is an index t = 0, ..., T - 1 into the schedule: the paper's t less one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.describe import Described
from tinygen.errors import InputError
from tinygen.nn import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class Schedule(Described):
    """The noise of each step: beta, alpha = 1 - beta and abar = cumprod(alpha), float64 arrays of shape (T,)."""

    def __init__(self, beta: Any):
        self.beta = np.asarray(beta, np.float64)
        if self.beta.ndim != 1 or not self.beta.size or not np.all((self.beta > 0) & (self.beta < 1)):
            raise InputError("Schedule: beta must be one number for each step, all between 0 and 1.")
        self.alpha = 1 - self.beta
        self.abar = np.cumprod(self.alpha)

    def __len__(self) -> int:
        return len(self.beta)

    @classmethod
    def linear(cls, steps: int) -> Schedule:
        """beta from 1e-4 to 0.02 at 1,000 steps (Ho et al. 2020, sec. 4); for other T scaled by 1000 / T, which leaves
        the noise at the end the same. T of 21 and more."""
        if steps <= 20:
            raise InputError(f"Schedule.linear: {steps} steps would need a beta of {20 / steps:.2g}; take 21 or more.")
        return cls(np.linspace(0.1 / steps, 20 / steps, steps))

    @classmethod
    def cosine(cls, steps: int, offset: float = 0.008, largest: float = 0.999) -> Schedule:
        """abar_t = f(t) / f(0) with f(t) = cos^2((t/T + s) / (1 + s) pi/2), and beta at most `largest`: noise that
        rises evenly, so that few steps suffice (Nichol & Dhariwal 2021, eq. 17; s is `offset`)."""
        f = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls(np.minimum(1 - f[1:] / f[:-1], largest))


class DDPM(Module):
    """A network under a schedule.

    net:      called as net(x_t, t) with x_t (N, *shape) and integers t (N,) or (1,); returns the shape of x_t
    shape:    of one example; (2,) for points in the plane
    predicts: what the network's output F means. "eps": the noise itself. "v": sqrt(abar_t) eps - sqrt(1 - abar_t) x_0,
              from which eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) F (Salimans & Ho 2022, app. D). With F = 0 that is
              exact for data distributed as N(0, I), so the network need only learn how the data differ from that.
    variance: of a step back, "beta" or "posterior" (the two choices of sec. 3.2: upper and lower bound)

    The data should have a mean near 0 and a standard deviation near 1 along each axis.
    """

    def __init__(
        self,
        net: Callable,
        schedule: Schedule,
        shape: tuple[int, ...],
        predicts: str = "eps",
        variance: str = "posterior",
    ):
        if predicts not in ("eps", "v") or variance not in ("beta", "posterior"):
            raise InputError(
                f'DDPM: predicts must be "eps" or "v", variance "beta" or "posterior", not {predicts!r}, {variance!r}.'
            )
        self.net, self.schedule, self.shape, self.predicts, self.variance = net, schedule, shape, predicts, variance
        self.signal = np.sqrt(schedule.abar).astype(np.float32)  # sqrt(abar_t): of x_0 in x_t
        self.spread = np.sqrt(1 - schedule.abar).astype(np.float32)  # sqrt(1 - abar_t): of the noise

    # -- training ------------------------------------------------------------------------------------------------

    def loss(self, x0: Any, rng: Generator) -> Tensor:
        """L_simple, averaged over examples and axes: E || eps - eps_theta(x_t, t) ||^2 (eq. 14). x0: (N, *shape)."""
        t = rng.integers(len(self.schedule), len(x0))
        eps = rng.normal(x0.shape)
        return ops.mean(ops.square(self.noise(self.diffuse(x0, t, eps), t) - eps))

    def diffuse(self, x0: Any, t: Any, eps: Any) -> Any:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps: t steps of the chain in one (eq. 4)."""
        return self._at(self.signal, t) * x0 + self._at(self.spread, t) * eps

    def noise(self, x: Any, t: Any) -> Any:
        """eps_theta(x_t, t): the noise that the network sees in x_t."""
        out = self.net(x, t)
        return out if self.predicts == "eps" else self._at(self.spread, t) * x + self._at(self.signal, t) * out

    def _at(self, values: np.ndarray, t: Any) -> np.ndarray:
        """values[t] as a column, to multiply examples with."""
        return values[t].reshape(-1, *(1 for _ in self.shape))

    # -- the two chains ------------------------------------------------------------------------------------------

    def noising(self, x0: np.ndarray, rng: Generator) -> Iterator[np.ndarray]:
        """The forward chain, step by step: x_0, x_1, ..., x_T (eq. 2)."""
        x = np.asarray(x0, np.float32)
        yield x
        for beta in self.schedule.beta:
            x = np.float32(math.sqrt(1 - beta)) * x + np.float32(math.sqrt(beta)) * rng.normal(x.shape)
            yield x

    def denoising(self, x: np.ndarray, rng: Generator) -> Iterator[np.ndarray]:
        """The reverse chain from x_T, usually N(0, I) noise, step by step: x_T, x_{T-1}, ..., x_0 (algorithm 2)."""
        yield x
        for t in reversed(range(len(self.schedule))):
            x = self.step(x, t, rng)
            yield x

    def step(self, x: np.ndarray, t: int, rng: Generator) -> np.ndarray:
        """One step back (eq. 11), without noise at the last:

        x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_theta(x_t, t)) / sqrt(alpha_t) + sigma_t z,   z ~ N(0, I)
        """
        s = self.schedule
        with no_grad():
            eps = self.noise(x, np.array([t]))
        eps = eps.data if isinstance(eps, Tensor) else eps
        mean = (x - np.float32(s.beta[t] / math.sqrt(1 - s.abar[t])) * eps) / np.float32(math.sqrt(s.alpha[t]))
        return mean if t == 0 else mean + np.float32(self.sigma(t)) * rng.normal(x.shape)

    def sigma(self, t: int) -> float:
        """The standard deviation of a step back: of q(x_{t-1} | x_t, x_0), eq. 7, or sqrt(beta_t), which is larger."""
        s = self.schedule
        beta = s.beta[t]
        return math.sqrt(beta if self.variance == "beta" else beta * (1 - s.abar[t - 1]) / (1 - s.abar[t]))

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n examples, float32 (n, *shape), by the reverse chain from noise."""
        *_, x0 = self.denoising(rng.normal((n, *self.shape)), rng)
        return x0
