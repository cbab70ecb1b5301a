"""Continuous normalising flows: a velocity field carries noise to data (Chen et al. 2018; Grathwohl et al. 2019).

Let layers become infinitely many and infinitely thin, and a flow becomes a differential equation:

    dz/dt = f(z(t), t),    z(0) ~ N(0, I),    x = z(1)

Any network may be the velocity f: solutions of a differential equation never meet, so following the current backwards
from x always leads to its z(0). The density changes along the way as the current converges or spreads, by the trace of
the Jacobian alone; no determinant is needed (sec. 2.2):

    d log p(z(t)) / dt = -tr(df/dz),    log p(x) = log p(z(0)) - int_0^1 tr(df/dz) dt

The exact trace takes as many backward passes as there are dimensions. Hutchinson's estimate takes one (sec. 3.1):

    tr(df/dz) = E[e^T (df/dz) e]    for noise e with mean 0 and covariance I

With one e for all times of a solution the estimate of log p(x) is unbiased, as the expectation may be taken outside the
integral. Sections are those of Grathwohl et al. (2019), "FFJORD".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import grad, no_grad, vjp
from tinygen.errors import InputError
from tinygen.models.flow import Flow, standard_normal
from tinygen.nn import MLP, Module, initialise
from tinygen.ode import dormand_prince, rk4
from tinygen.random import Generator
from tinygen.registry import mode
from tinygen.tensor import Tensor, tensor


class Velocity(Module):
    """f(z, t): an MLP of z and t, zero at first, so that nothing moves. (N, features), a number -> (N, features).

    Its activation must have a derivative everywhere, or the density would jump where it has none.
    """

    def __init__(
        self, features: int, width: int = 64, hidden: int = 3, activation: Callable = ops.tanh, *, rng: Generator
    ):
        sizes = [features + 1, *[width] * hidden, features]
        self.net = MLP(sizes, activation, rng=rng, last_init=initialise.zeros)

    def forward(self, z: Any, t: float) -> Any:
        return self.net(ops.concatenate([z, np.full((len(z), 1), t, z.dtype)], axis=-1))


class CNF(Flow):
    """The flow along a velocity field, of vectors (features,).

    velocity: a Module, called as velocity(z, t) with z (N, features) and a number t from 0 to 1; t = 1 is the data
    trace:    in the loss, "exact" or "hutchinson"; `log_prob` without noise is always exact
    steps:    of the Runge-Kutta method from one end to the other, four evaluations of the velocity each. The flow is
              what these steps make of the field, to 4th order; `precise` follows the field itself.
    """

    def __init__(self, velocity: Callable, features: int, trace: str = "exact", steps: int = 8):
        if trace not in ("exact", "hutchinson"):
            raise InputError(f'CNF: trace must be "exact" or "hutchinson", not {trace!r}.')
        self.velocity, self.trace, self.steps, self.shape = velocity, trace, steps, (features,)
        self.tolerance: float | None = None
        self.evaluations = 0  # of the velocity, so far

    # -- the flow, both ways -------------------------------------------------------------------------------------

    def forward(self, x: Any, noise: np.ndarray | None = None) -> tuple[Any, Any]:
        """z(0), and log |det dz(0)/dx| = int_1^0 tr(df/dz) dt: both integrated together, backwards from x = z(1).

        noise: e (N, features) for Hutchinson's estimate of the trace; without it the trace is exact
        """
        features = x.shape[-1]
        units = np.eye(features, dtype=x.dtype)
        probes = np.broadcast_to(units[:, None], (features, *x.shape)) if noise is None else noise[None]

        def field(t: float, state: Any) -> Any:
            f, trace = self._velocity_and_trace(state[:, :features], t, probes)
            return ops.concatenate([f, trace[:, None]], axis=-1)

        start = ops.concatenate([x, np.zeros((len(x), 1), x.dtype)], axis=-1)
        end = self._solved(field, start, 1.0, 0.0)
        return end[:, :features], end[:, features]

    def inverse(self, z: Any) -> Any:
        return self._solved(self._counted, z, 0.0, 1.0)

    def _counted(self, t: float, z: Any) -> Any:
        self.evaluations += 1
        return self.velocity(z, t)

    def _velocity_and_trace(self, z: Any, t: float, probes: np.ndarray) -> tuple[Any, Any]:
        """f(z, t) (N, features), and sum_e e^T (df/dz) e over the probes e (N, features), (N,).

        e^T (df/dz) is one backward pass. Where training will differentiate the trace itself, it is recorded.
        """
        f = lambda z: self._counted(t, z)
        if mode.recording:
            z = z if isinstance(z, Tensor) and z.node is not None else tensor(z, requires_grad=True)
            value = f(z)
            pull = lambda e: grad(value, z, e, create_graph=True)
        else:
            value, pullback = vjp(f, z)
            pull = lambda e: pullback(e)[0]
        return value, sum(ops.sum(pull(e) * e, axis=-1) for e in probes)

    def _solved(self, field: Callable, y: Any, t0: float, t1: float) -> Any:
        if self.tolerance is None:
            return rk4(field, y, t0, t1, self.steps)
        return dormand_prince(field, y, t0, t1, self.tolerance, self.tolerance).y

    @contextlib.contextmanager
    def precise(self, tolerance: float = 1e-5) -> Iterator[None]:
        """Within this context the field is followed to within `tolerance`, by Dormand and Prince's method."""
        before, self.tolerance = self.tolerance, tolerance
        try:
            yield
        finally:
            self.tolerance = before

    # -- training and looking ------------------------------------------------------------------------------------

    def log_prob(self, x: Any, noise: np.ndarray | None = None) -> Any:
        """log p(x) in nats, (N,); an unbiased estimate of it, if `noise` (see `rademacher`) is given."""
        z, log_det = self(x, noise)
        return log_det + standard_normal(z)

    def loss(self, x: Any, rng: Generator | None = None) -> Tensor:
        """-log p(x), averaged over examples; the noise of Hutchinson's estimate comes from `rng`."""
        if self.trace == "exact":
            return -ops.mean(self.log_prob(x))
        if rng is None:
            raise InputError("CNF: Hutchinson's trace needs noise: give the loss a generator, loss(x, rng).")
        return -ops.mean(self.log_prob(x, rademacher(x.shape, rng).astype(x.dtype)))

    def unfolding(self, z: np.ndarray, frames: int = 32) -> Iterator[np.ndarray]:
        """The way from noise to data: z(t) at t = 0, 1/frames, ..., 1, each by one Runge-Kutta step from the last."""
        yield z
        with no_grad():
            for i in range(frames):
                z = rk4(self._counted, z, i / frames, (i + 1) / frames, 1).numpy()
                yield z


def rademacher(shape: Sequence[int], rng: Generator) -> np.ndarray:
    """-1 or 1, equally likely: of all noise with covariance I the one for which e^T A e varies least."""
    return np.float32(2) * rng.integers(2, tuple(shape)).astype(np.float32) - 1
