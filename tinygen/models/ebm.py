"""Energy-based models: a network says how unlikely each point is, and chains of noisy descent draw from it.

Any function E of x makes a density, without one thought about determinants or masks:

    p(x) = exp(-E(x)) / Z,    Z = int exp(-E(x)) dx

Nobody knows Z. But the gradient of the likelihood does not need it, only samples of the model (LeCun et al. 2006):

    grad -log p(x) = grad E(x) - E_{x' ~ p}[grad E(x')]

So training lowers the energy of data and raises that of what the model draws, until the two cannot be told apart.
Langevin dynamics draws, with gradients in x: downhill, with as much noise as the step is long (Welling & Teh 2011):

    x <- x - e^2 / 2 grad E(x) + e xi,    xi ~ N(0, I)

Chains take long to forget where they began, so they are kept from one training step to the next, in a buffer, since
the model changes little (persistent chains: Tieleman 2008; a replay buffer: Du & Mordatch 2019). Images are mostly
drawn with less noise and few steps. That makes good pictures, but an energy that is no density (Nijkamp et al. 2020).
Here noise and step fit each other, and a proposal is accepted or refused as Metropolis and Hastings ask, which makes p
exactly what long chains draw; and then the energy is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad, vjp
from tinygen.errors import InputError
from tinygen.nn import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class EBM(Module):
    """The density exp(-E(x)) / Z of points (features,), with E(x) = f(x) + |x|^2 / (2 s^2).

    net:      f, a Module (N, features) -> (N, 1); a smooth activation gives Langevin dynamics smooth forces
    features: of a point
    spread:   s, several times that of the data. A network by itself may fall for ever somewhere far out, and Z would be
              infinite. With the quadratic term f only says where the density differs from N(0, s^2 I) (Xie et al. 2016)
    weight:   alpha, of the energies' squares in the loss (Du & Mordatch 2019, sec. 3.3), which holds on to their level:
              the likelihood does not know it, as a constant in E cancels in Z
    """

    def __init__(self, net: Callable, features: int, spread: float = 4.0, weight: float = 1e-3):
        if not (spread > 0 and weight >= 0):
            raise InputError(f"EBM: spread must be positive and weight at least 0, not {spread} and {weight}.")
        self.net, self.features, self.spread, self.weight = net, features, spread, weight

    def energy(self, x: Any) -> Any:
        """E(x), (N,), from x (N, features)."""
        return self.net(x)[..., 0] + ops.sum(ops.square(x), axis=-1) / (2 * self.spread**2)

    def loss(self, data: Any, drawn: Any) -> Tensor:
        """What training lowers, with the gradient of -log p(data) where `drawn` are samples of the model:

        mean E(data) - mean E(drawn) + alpha mean(E(data)^2 + E(drawn)^2)

        Its value is not the likelihood, and goes to 0 as the two become alike. data: (N, features), drawn: any (M, ...)
        """
        real, fake = self.energy(data), self.energy(drawn)
        square = ops.mean(ops.square(real)) + ops.mean(ops.square(fake))
        return ops.mean(real) - ops.mean(fake) + self.weight * square

    # -- drawing -------------------------------------------------------------------------------------------------

    def walk(self, x: np.ndarray, step: float, rng: Generator, adjusted: bool = True) -> Iterator[np.ndarray]:
        """Chains of Langevin dynamics from x (N, features), for ever: their places after each step.

        step:     e, the noise of a step along each axis: somewhat less than the width of what is to be resolved
        adjusted: whether a proposal y may be refused. It is accepted with probability

                      min(1, exp(E(x) - E(y)) q(x | y) / q(y | x)),    q(y | x) = N(y; x - e^2/2 grad E(x), e^2 I)

                  so that p stays as it is at any step length (Roberts & Tweedie 1996). Without it the chain draws from
                  something else, the further from p the longer its steps.
        """
        if not step > 0:
            raise InputError(f"EBM: the step of Langevin dynamics must be positive, not {step}.")
        drift = np.float32(step**2 / 2)
        x = np.asarray(x, np.float32)
        energy, slope = self._energy_and_slope(x)
        while True:
            noise = np.float32(step) * rng.normal(x.shape)
            y = x - drift * slope + noise
            new_energy, new_slope = self._energy_and_slope(y)
            if adjusted:
                back = x - y + drift * new_slope  # the noise that would lead from y to x
                odds = energy - new_energy + np.sum(noise**2 - back**2, axis=-1) / (2 * step**2)
                refused = np.log1p(-rng.uniform((len(x),))) > odds
                y[refused], new_energy[refused], new_slope[refused] = x[refused], energy[refused], slope[refused]
            x, energy, slope = y, new_energy, new_slope
            yield x

    def sample(self, n: int, rng: Generator, steps: int = 1000, step: float = 0.2) -> np.ndarray:
        """n points after `steps` steps of Langevin dynamics from N(0, s^2 I), float32 (n, features)."""
        start = np.float32(self.spread) * rng.normal((n, self.features))
        return after(steps, self.walk(start, step, rng))

    def _energy_and_slope(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, pull = vjp(self.energy, x)
        return energy.numpy(), pull(np.ones(len(x), x.dtype))[0].numpy()

    # -- measuring -----------------------------------------------------------------------------------------------

    def log_z(self, half_width: float = 12.0, cells: int = 400) -> float:
        """log Z in two dimensions, by the midpoint rule on cells x cells squares of [-half_width, half_width]^2."""
        if self.features != 2:
            raise InputError(f"EBM.log_z: integrates over a grid in 2 dimensions, not in {self.features}.")
        side = (2 * (np.arange(cells) + 0.5) / cells - 1) * half_width
        total = -np.inf
        with no_grad():
            for y in side:
                row = np.stack([side, np.full(cells, y)], axis=-1).astype(np.float32)
                total = np.logaddexp(total, np.logaddexp.reduce(-self.energy(row).numpy().astype(np.float64)))
        return float(total + 2 * np.log(2 * half_width / cells))


class ReplayBuffer:
    """Chains that go on from training step to training step (Du & Mordatch 2019, sec. 3.2); part of a training's state.

    places:  where the chains are, (M, features)
    restart: share of those drawn that begin anew, at places drawn by `fresh(n, rng)`: a chain in a hole that the energy
             has since lost would else stay there. Fresh chains are not yet samples of the model, so let it be small.
    """

    def __init__(self, fresh: Callable[[int, Generator], np.ndarray], size: int, restart: float, rng: Generator):
        if size < 1 or not 0 <= restart <= 1:
            raise InputError(f"ReplayBuffer: size must be at least 1 and restart a share, not {size} and {restart}.")
        self.fresh, self.restart, self.places = fresh, restart, fresh(size, rng)

    def advanced(self, model: EBM, n: int, steps: int, step: float, rng: Generator) -> np.ndarray:
        """n of the chains, (n, features), after `steps` more steps under the model as it is now."""
        chosen = rng.permutation(len(self.places))[:n]
        x = self.places[chosen]
        anew = rng.uniform((len(x),)) < self.restart
        x[anew] = self.fresh(int(anew.sum()), rng)
        self.places[chosen] = after(steps, model.walk(x, step, rng))
        return self.places[chosen]

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"places": self.places.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.places = np.array(state["places"], np.float32)


def after(steps: int, walk: Iterator[np.ndarray]) -> np.ndarray:
    """Where a walk is after so many steps."""
    if steps < 1:
        raise InputError(f"EBM: a walk takes at least 1 step, not {steps}.")
    for _ in range(steps):
        x = next(walk)
    return x
