"""The restricted Boltzmann machine: a landscape of energies over images and hidden causes, and what it takes to use it.

Binary visible units v and hidden units h have an energy, and are the likelier together the lower it is:

    E(v, h) = -b.v - c.h - v W h                p(v, h) = exp(-E(v, h)) / Z

No two units of one kind are connected, so given one kind the other falls apart into independent coin tosses (Smolensky
1986; Hinton 2002), which is what Gibbs sampling goes to and fro between. And the sum over all h can be done:

    F(v) = -log sum_h exp(-E(v, h)) = -b.v - sum_j softplus(c_j + (v W)_j)        p(v) = exp(-F(v)) / Z

What cannot be done is the sum over all v, Z. Learning needs its gradient, which is an average over the model itself:

    -d log p(v) / d theta = dF(v) / d theta - E_{v' ~ p}[dF(v') / d theta]

The difference of two free energies: of data, pulled down, and of what the model makes up, pushed up. Where the v' come
from is the whole difference between contrastive divergence (a few Gibbs steps from the data; Hinton 2002) and
persistent chains that are never begun anew (Tieleman 2008). Measuring needs Z itself: annealed importance sampling
estimates it (Salakhutdinov & Murray 2008), and for a few hidden units it can be summed to the last term.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError, ShapeError
from tinygen.nn import Buffer, Module, initialise
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor

MOST_HIDDEN = 20  # whose states are enumerated: a million


class RBM(Module):
    """size visible binary units and `hidden` hidden ones; with `classes`, a label beside them.

    A label is a unit with as many values as there are classes, one-hot at the end of v (Larochelle & Bengio 2008): the
    model is then a joint one of images and labels, which can be asked for either given the other.

    Visible vectors v are floats, (N, size + classes); `with_labels` makes them.
    """

    def __init__(self, size: int, hidden: int, classes: int = 0, *, rng: Generator):
        if size < 1 or hidden < 1 or classes < 0:
            raise InputError(f"RBM: needs visible and hidden units, not {size} and {hidden}, and {classes} classes.")
        self.size, self.hidden, self.classes = size, hidden, classes
        self.W = Parameter(initialise.normal(0.01)((size + classes, hidden), rng))
        self.b, self.c = Parameter(initialise.zeros((size + classes,))), Parameter(initialise.zeros((hidden,)))
        self.mu, self.lam = Buffer(np.zeros(size + classes, np.float32)), Buffer(np.full(hidden, 0.5, np.float32))

    # -- learning --------------------------------------------------------------------------------------------------

    def free_energy(self, v: Any) -> Tensor:
        """F(v), (N,)."""
        return -(v @ self.b) - ops.sum(ops.softplus(v @ self.W + self.c), axis=-1)

    def loss(self, data: Any, made_up: Any) -> Tensor:
        """F of data less F of what the model made up, each averaged: its gradient is that of -log p, as near as these
        are to draws from the model. The value itself says little. What was made up is a constant here."""
        return ops.mean(self.free_energy(data)) - ops.mean(self.free_energy(made_up))

    def centre_gradients(self, data: np.ndarray, rate: float = 0.01) -> None:
        """Turns the gradients of W, b and c, in `.grad`, into those of the same model with centred units.

            dW' = dW - db lam^T - mu dc^T,    db' = db - dW' lam,    dc' = dc - mu dW'

        That is gradient descent in the parameters of E = -(v - mu).b - (h - lam).c - (v - mu) W (h - lam), in which a
        weight is not also a bias on average, carried over to ours (Melchior, Fischer & Wiskott 2016). mu and lam follow
        the means of v and h on the data at this rate. It learns faster, and no longer cares which colour is called 1.
        """
        means = data.mean(0), hidden_probabilities(data, self.W.numpy(), self.c.numpy()).mean(0)
        for offset, mean in zip((self.mu, self.lam), means, strict=True):
            offset.data = offset.numpy() + np.float32(rate) * (mean - offset.numpy())
        mu, lam, db, dc = self.mu.numpy(), self.lam.numpy(), self.b.grad, self.c.grad
        dW = self.W.grad - np.outer(db, lam) - np.outer(mu, dc)
        self.W.grad, self.b.grad, self.c.grad = dW, db - dW @ lam, dc - mu @ dW

    # -- Gibbs sampling --------------------------------------------------------------------------------------------

    def gibbs(self, v: np.ndarray, steps: int, rng: Generator, labels: ArrayLike | None = None) -> np.ndarray:
        """v after `steps` times h ~ p(h|v), v ~ p(v|h). With `labels` the label units are held at these."""
        for v in self.chain(v, steps, rng, labels):  # noqa: B007, B020 (the last is wanted, v itself if there is none)
            pass
        return v

    def chain(self, v: np.ndarray, steps: int, rng: Generator, labels: ArrayLike | None = None) -> Iterator[np.ndarray]:
        """Every v of such a chain, the first step's first."""
        W, b, c = (p.numpy() for p in (self.W, self.b, self.c))
        for _ in range(steps):
            h = coin_tosses(hidden_probabilities(v, W, c), rng)
            v = self.draw_visible(h @ W.T + b, rng)
            if labels is not None:
                v = self.with_labels(v[:, : self.size], labels)
            yield v

    def draw_visible(self, logits: np.ndarray, rng: Generator) -> np.ndarray:
        """v ~ p(v|h), given the log-odds b + W h: coin tosses for the image, one draw of several for the label."""
        x = coin_tosses(ops.sigmoid(logits[:, : self.size]), rng)
        if not self.classes:
            return x
        u = rng.uniform((len(x), self.classes), low=1e-20)
        label = (logits[:, self.size :] - np.log(-np.log(u))).argmax(1)  # the Gumbel-max trick, see Categorical
        return self.with_labels(x, label)

    def with_labels(self, x: np.ndarray, labels: ArrayLike) -> np.ndarray:
        """The visible vectors of images (N, size) and labels (N,)."""
        return np.concatenate([x[:, : self.size], ops.one_hot(np.asarray(labels), self.classes)], axis=1)

    def means(self, v: np.ndarray, rng: Generator) -> np.ndarray:
        """p(x = 1|h) for h ~ p(h|v), (N, size): images without the noise of their pixels."""
        W, b, c = (p.numpy() for p in (self.W, self.b, self.c))
        h = coin_tosses(hidden_probabilities(v, W, c), rng)
        return ops.sigmoid((h @ W.T + b)[:, : self.size])

    # -- measuring, in float64 -------------------------------------------------------------------------------------

    def log_prob(self, x: np.ndarray, log_z: float) -> np.ndarray:
        """log p(x) in nats, (N,) float64, for images (N, size), given log Z. With classes, summed over the labels."""
        return np.logaddexp.reduce(-self.free_energies(x), axis=1) - log_z

    def free_energies(self, x: np.ndarray) -> np.ndarray:
        """F(x, y) of images (N, size) with each label, (N, classes), or without, (N, 1); float64.

        Their softmax is p(y|x), exactly: Z cancels (Larochelle & Bengio 2008).
        """
        W, b, c = (p.numpy().astype(np.float64) for p in (self.W, self.b, self.c))
        x = np.asarray(x, np.float64)[:, : self.size]
        a, energy = x @ W[: self.size] + c, -(x @ b[: self.size])
        if not self.classes:
            return (energy - softplus_sum(a))[:, None]
        each = [-b[y] - softplus_sum(a + W[y]) for y in range(self.size, self.size + self.classes)]
        return energy[:, None] + np.stack(each, axis=1)


def hidden_probabilities(v: np.ndarray, W: np.ndarray, c: np.ndarray) -> np.ndarray:
    """p(h_j = 1|v) = s(c_j + (v W)_j), (N, hidden)."""
    return ops.sigmoid(v @ W + c)


def coin_tosses(p: np.ndarray, rng: Generator) -> np.ndarray:
    """1 with probability p, else 0, float32."""
    return (rng.uniform(p.shape) < p).astype(np.float32)


def softplus_sum(a: np.ndarray) -> np.ndarray:
    """sum_j log(1 + e^a_j) over the last axis."""
    return np.logaddexp(0, a).sum(-1)


def log_odds(v: np.ndarray) -> np.ndarray:
    """log p/(1-p) of each unit's mean p over the rows of v, (D,), as if one more had been on and one more off.

    Where the visible biases should begin, so that W need not learn how bright each pixel is (Hinton 2010, sec. 8).
    """
    on = v.sum(0, dtype=np.float64) + 1
    return (np.log(on) - np.log(len(v) + 2 - on)).astype(np.float32)


class Chains:
    """Persistent chains: Gibbs sampling that goes on from training step to training step (Tieleman 2008).

    The model changes so little in a step that its chains stay near it, and wander far from the data. They are `v`,
    (n, D); give the object to `tinygen.training.train` in `state`, for a run that is to be taken up again.
    """

    def __init__(self, v: np.ndarray):
        self.v = np.array(v, np.float32)

    def step(self, model: RBM, steps: int, rng: Generator) -> np.ndarray:
        """The chains, so many Gibbs steps later."""
        self.v = model.gibbs(self.v, steps, rng)
        return self.v

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"v": self.v.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        v = np.asarray(state.get("v"))
        if v.shape != self.v.shape:
            raise InputError(f"Chains: the state holds chains of shape {v.shape}, where {self.v.shape} is needed.")
        self.v = v.astype(np.float32)


# -- the partition function --------------------------------------------------------------------------------------------


def exact_log_z(model: RBM) -> float:
    """log Z, summed over all states of the hidden units: Z = sum_h e^(c.h) prod_i (1 + e^(b_i + (W h)_i))."""
    return float(np.logaddexp.reduce(_log_hidden(model)))


def exact_samples(model: RBM, n: int, rng: Generator) -> np.ndarray:
    """n draws of v that owe nothing to a chain: h by its exact probability among all states, then v ~ p(v|h)."""
    log_p = _log_hidden(model)
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    h = _states(rng.choice(len(p), n, p / p.sum()), model.hidden).astype(np.float32)
    return model.draw_visible(h @ model.W.numpy().T + model.b.numpy(), rng)


def _log_hidden(model: RBM, chunk: int = 4096) -> np.ndarray:
    """log sum_v e^(-E(v, h)) of all 2^hidden states h, float64."""
    if model.hidden > MOST_HIDDEN:
        raise InputError(f"RBM: {model.hidden} hidden units have too many states to sum; AIS is for these.")
    W, b, c = (p.numpy().astype(np.float64) for p in (model.W, model.b, model.c))
    found = []
    for first in range(0, 2**model.hidden, chunk):
        h = _states(np.arange(first, min(first + chunk, 2**model.hidden)), model.hidden)
        found.append(h @ c + _log_visible(model, h @ W.T + b))
    return np.concatenate(found)


def _states(numbers: np.ndarray, bits: int) -> np.ndarray:
    return (numbers[:, None] >> np.arange(bits) & 1).astype(np.float64)


def _log_visible(model: RBM, logits: np.ndarray) -> np.ndarray:
    """log of the sum over all v of e^(v . logits)."""
    labels = np.logaddexp.reduce(logits[..., model.size :], axis=-1) if model.classes else 0.0
    return softplus_sum(logits[..., : model.size]) + labels


@dataclass(frozen=True)
class Estimate:
    """What annealing found: log Z, and the standard error of it that the spread of its log-weights suggests.

    Its worth stands and falls with the weights: `effective` of them count, of as many as there were chains.
    """

    log_z: float
    error: float
    effective: float


def temperatures(n: int) -> np.ndarray:
    """n + 1 inverse temperatures from 0 to 1, the denser the later: 1/29, 8/29 and 20/29 of them up to .5, .9 and 1, as
    in Salakhutdinov & Murray (2008), who took 14,500."""
    return np.interp(np.arange(n + 1), [0, n / 29, 9 * n / 29, n], [0.0, 0.5, 0.9, 1.0])


def annealed_log_z(model: RBM, base: np.ndarray, betas: np.ndarray, chains: int, rng: Generator) -> Estimate:
    """log Z by annealed importance sampling (Neal 2001; of RBMs, Salakhutdinov & Murray 2008).

    Between coins tossed with log-odds `base` (D,), whose Z_0 is known, and the model lie the distributions

        p*_beta(v) = e^((1 - beta) base.v + beta b.v) prod_j (1 + e^(beta a_j)),    a = c + v W

    A chain starts from the coins and is moved by one Gibbs step at each beta in turn. Its weight, the product over the
    way of p*_beta'(v) / p*_beta(v), has mean Z / Z_0: on average its logarithm is too small, never too large.
    """
    v = model.draw_visible(np.broadcast_to(base, (chains, len(base))), rng)
    return _estimate(model, base, _log_weights(model, base, v, betas, rng), +1)


def reverse_log_z(model: RBM, base: np.ndarray, betas: np.ndarray, v: np.ndarray, rng: Generator) -> Estimate:
    """log Z by annealing the other way, from draws v of the model to the coins: on average too large, never too small.

    So with exact draws the truth lies between the two (Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal
    likelihood using bidirectional Monte Carlo"). Draws of a long chain are not exact.
    """
    return _estimate(model, base, _log_weights(model, base, v, betas[::-1], rng), -1)


def _log_weights(model: RBM, base: np.ndarray, v: np.ndarray, betas: np.ndarray, rng: Generator) -> np.ndarray:
    """The log-weight of each chain from v on, (N,): float64, of hidden inputs a in float32."""
    W, b, c = (p.numpy() for p in (model.W, model.b, model.c))
    if base.shape != b.shape:
        raise ShapeError(f"RBM: base must have the shape of the visible biases, {b.shape}, not {base.shape}.")
    log_w, tilt = np.zeros(len(v)), (b - base).astype(np.float64)
    for before, beta in pairwise(betas):
        a = v @ W + c
        exact = a.astype(np.float64)
        log_w += (beta - before) * (v @ tilt) + softplus_sum(beta * exact) - softplus_sum(before * exact)
        h = coin_tosses(ops.sigmoid(np.float32(beta) * a), rng)
        v = model.draw_visible(np.float32(1 - beta) * base + np.float32(beta) * (h @ W.T + b), rng)
    return log_w


def _estimate(model: RBM, base: np.ndarray, log_w: np.ndarray, sign: int) -> Estimate:
    """log Z_0 + sign log mean w, Z_0 being 2^hidden times the sum over all v of e^(base.v)."""
    log_mean = np.logaddexp.reduce(log_w) - math.log(len(log_w))
    w = np.exp(log_w - log_mean)
    start = float(_log_visible(model, base.astype(np.float64))) + model.hidden * math.log(2)
    error = w.std(ddof=1) / math.sqrt(len(w)) if len(w) > 1 else math.nan
    return Estimate(start + sign * float(log_mean), float(error), float(w.sum() ** 2 / np.sum(w**2)))


def sample(model: RBM, n: int, steps: int, rng: Generator, labels: ArrayLike | None = None) -> np.ndarray:
    """n images (n, size) of chains that start from coins tossed with the visible biases, `steps` Gibbs steps later."""
    with no_grad():
        v = model.draw_visible(np.broadcast_to(model.b.numpy(), (n, len(model.b))), rng)
        return model.gibbs(v, steps, rng, labels)[:, : model.size]
