"""Autoregressive models of binary vectors: each value drawn given those before it, so that log p(x) is exact.

Put the D values in some order o. The chain rule says of any distribution at all that it is a product of one factor for
each value, so a model only has to say how likely each is to be 1, given those before it in the order:

    p(x|y) = prod_i p(x_{o_i} | x_{o_1}, ..., x_{o_{i-1}}, y)                     y: a class, if there are any

Three ways to compute all D conditionals of an image at once, each asking more of the values before than the last:

    FVSBN   a logistic regression each                                            Neal 1992; Frey et al. 1996
    NADE    a hidden layer each, brought up to date from value to value           Larochelle & Murray 2011
    MADE    a network with masks, which cut every way from a value to itself      Germain et al. 2015
            and to those before it

All three compute log p(x) in one call and draw a sample in one sweep through the order. The order is the modeller's
choice: rows from the top for images, usually, though nothing in the formula prefers it, and MADE can learn several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.distributions import Categorical
from tinygen.errors import InputError
from tinygen.nn import Embedding, Linear, Module, initialise
from tinygen.random import Generator
from tinygen.tensor import Parameter, Tensor


class Autoregressive(Module):
    """What the three share: the likelihood, the loss, and the sweep that draws. A subclass gives the conditionals.

    size:    D, the number of values
    classes: how many there are; with any, every call needs labels, integers (N,)
    order:   the values in the order in which they are drawn, a permutation of 0 ... D - 1; by default that order itself

    Values are floats 0 and 1, (N, D). Each subclass has a bias `b`, (D,): learning is quicker, above all that of the
    first values, if it begins at the log-odds of the data's means (`tinygen.models.rbm.log_odds`).
    """

    def __init__(self, size: int, classes: int = 0, order: ArrayLike | None = None):
        self.size, self.classes = size, classes
        self.order = np.arange(size) if order is None else np.asarray(order)
        if size < 1 or not np.array_equal(np.sort(self.order), np.arange(size)):
            raise InputError(f"{type(self).__name__}: order must hold each of 0 ... {size - 1} once.")

    def logits(self, x: Any, labels: Any = None) -> Tensor:
        """Log-odds of each value given those before it, (N, D). Nothing of entry i depends on x_i or what follows it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no conditionals; write logits().")

    def log_prob(self, x: Any, labels: Any = None) -> Tensor:
        """log p(x|y) in nats, (N,): exact."""
        return log_bernoulli(self.logits(x, self._checked(labels)), x)

    def loss(self, x: Any, rng: Generator | None = None, labels: Any = None) -> Tensor:
        """What training lowers: -log p(x|y), averaged over examples."""
        return -ops.mean(self.log_prob(x, labels))

    def filling(self, x: np.ndarray, rng: Generator, labels: Any = None, start: int = 0, k: int = 0) -> Iterator[int]:
        """Draws into x (N, D) in place, value by value, from place `start` of the order on; what stands before that
        place stays, and is taken as given. Yields the index of each value when it has been drawn. k: see `MADE`."""
        order, labels = self.order_of(k), self._checked(labels)
        x[:, order[start:]] = 0
        with no_grad():
            for place, logit in enumerate(self._one_by_one(x, labels, k)):
                if place >= start:
                    x[:, order[place]] = rng.uniform(len(x)) < ops.sigmoid(logit)
                    yield order[place]

    def order_of(self, k: int) -> np.ndarray:
        """The order that component k of a mixture draws in; only MADE has more than one."""
        return self.order

    def sample(
        self, n: int, rng: Generator, labels: Any = None, given: np.ndarray | None = None, start: int = 0
    ) -> np.ndarray:
        """n draws, float32 (n, D); of the rows of `given` (n, D), if there are any, values before `start` are kept."""
        x = np.zeros((n, self.size), np.float32) if given is None else np.array(given, np.float32)
        for _ in self.filling(x, rng, labels, start):
            pass
        return x

    def _one_by_one(self, x: np.ndarray, labels: Any, k: int) -> Iterator[np.ndarray]:
        """The log-odds of each value in order, (N,), from an x into which the values before it have been written."""
        raise NotImplementedError(f"{type(self).__name__} cannot be drawn from; write _one_by_one().")

    def _checked(self, labels: Any) -> Any:
        if (labels is None) != (self.classes == 0):
            needs = f"labels, of {self.classes} classes" if self.classes else "no labels: it was made without classes"
            raise InputError(f"{type(self).__name__}: this one needs {needs}.")
        return labels


def log_bernoulli(logits: Any, x: Any) -> Any:
    """log of prod_i p(x_i) under these log-odds, summed over the last axis."""
    return -ops.sum(ops.binary_cross_entropy_with_logits(logits, x), axis=-1)


class FVSBN(Autoregressive):
    """The fully visible sigmoid belief network: a logistic regression of each value on those before it.

        p(x_i = 1 | x_<i, y) = s(b_i + sum_{j < i} x_j W_ji + C_yi)

    W is strictly triangular in the order: entries that would look ahead are zeros, and learn nothing.
    """

    def __init__(self, size: int, classes: int = 0, order: ArrayLike | None = None, *, rng: Generator):
        super().__init__(size, classes, order)
        self.W, self.b = Parameter(initialise.zeros((size, size))), Parameter(initialise.zeros((size,)))
        self.C = Embedding(classes, size, rng=rng, weight_init=initialise.zeros) if classes else None
        place = np.argsort(self.order)
        self.mask = place[:, None] < place

    def logits(self, x: Any, labels: Any = None) -> Tensor:
        out = x @ (self.W * self.mask.astype(self.W.dtype)) + self.b
        return out if labels is None else out + self.C(labels)

    def _one_by_one(self, x: np.ndarray, labels: Any, k: int) -> Iterator[np.ndarray]:
        W = self.W.numpy() * self.mask
        b = np.zeros_like(x) + self.b.numpy() + (0 if labels is None else self.C(labels).numpy())
        for i in self.order:
            yield b[:, i] + x @ W[:, i]


class NADE(Autoregressive):
    """The neural autoregressive distribution estimator: a hidden layer for each value, of those before it.

        a_1 = c + C_y,    a_{i+1} = a_i + x_i W_i                 what is known before the first value, and after each
        p(x_i = 1 | x_<i, y) = s(b_i + B_yi + V_i . s(a_i))

    The layers share their weights: that of value i + 1 is that of value i with one row added, so that all D of them
    cost O(D H) together. Here i counts places in the order: row i of W and of V belongs to the value that stands there.
    """

    def __init__(
        self, size: int, hidden: int = 500, classes: int = 0, order: ArrayLike | None = None, *, rng: Generator
    ):
        super().__init__(size, classes, order)
        small = initialise.normal(0.05)
        self.W, self.c = Parameter(small((size, hidden), rng)), Parameter(initialise.zeros((hidden,)))
        self.V, self.b = Parameter(small((size, hidden), rng)), Parameter(initialise.zeros((size,)))
        self.C = Embedding(classes, hidden, rng=rng, weight_init=initialise.zeros) if classes else None
        self.B = Embedding(classes, size, rng=rng, weight_init=initialise.zeros) if classes else None

    def logits(self, x: Any, labels: Any = None) -> Tensor:
        in_order = ops.nade(x[:, self.order], self.W, self._first(len(x), labels), self.V)
        out = in_order[:, np.argsort(self.order)] + self.b
        return out if labels is None else out + self.B(labels)

    def _first(self, n: int, labels: Any) -> Tensor:
        """a_1, (N, H)."""
        a = ops.broadcast_to(self.c, (n, *self.c.shape))
        return a if labels is None else a + self.C(labels)

    def _one_by_one(self, x: np.ndarray, labels: Any, k: int) -> Iterator[np.ndarray]:
        W, V, a = self.W.numpy(), self.V.numpy(), self._first(len(x), labels).numpy().copy()
        b = np.zeros_like(x) + self.b.numpy() + (0 if labels is None else self.B(labels).numpy())
        for place, i in enumerate(self.order):
            yield b[:, i] + ops.sigmoid(a) @ V[place]
            a += x[:, i : i + 1] * W[place]


class MADE(Autoregressive):
    """The masked autoencoder for distribution estimation: an ordinary network, of which masks keep some connections.

        h = relu(c + x (W o M^W) + C_y)
        p(x_i = 1 | x_<i, y) = s(b + h (V o M^V) + x (A o M^A) + B_y)_i

    Each hidden unit is given a number m at random: it may know of the first m values in the order. A connection is kept
    where that stays true, and to the output at place d where m < d. `hidden` may have several layers.

    masks:  how many draws of these numbers there are. Each training step takes one of them; the model is the mixture of
            all, p = 1/K sum_k p_k, which is exact too.
    orders: whether each draw has an order of its own, at random, in place of `order`. A mixture then knows about each
            value from many sides.
    """

    def __init__(
        self,
        size: int,
        hidden: Sequence[int] = (500,),
        classes: int = 0,
        order: ArrayLike | None = None,
        masks: int = 1,
        orders: bool = False,
        *,
        rng: Generator,
    ):
        super().__init__(size, classes, order)
        if masks < 1 or not hidden:
            raise InputError(f"MADE: needs a hidden layer and a mask at least, not {list(hidden)} and {masks}.")
        self.masks, self.orders, self._seed = masks, orders, rng.fork().state_dict()["seed"]
        sizes = [size, *hidden, size]
        self.layers = [
            Linear(a, b, rng=rng, weight_init=initialise.glorot_normal) for a, b in zip(sizes, sizes[1:], strict=False)
        ]
        self.A = Parameter(initialise.zeros((size, size)))
        wide = lambda width: Embedding(classes, width, rng=rng, weight_init=initialise.zeros) if classes else None
        self.C, self.B = wide(hidden[0]), wide(size)
        self._drawn: tuple = (None, None)

    @property
    def b(self) -> Parameter:
        """The bias of the outputs, as the others call it."""
        return self.layers[-1].bias

    # -- masks -----------------------------------------------------------------------------------------------------

    def order_of(self, k: int) -> np.ndarray:
        return self._rng(k).permutation(self.size) if self.orders else self.order

    def connections(self, k: int) -> list[np.ndarray]:
        """M^W of each layer, M^V and M^A for draw k: 1 where a connection is kept, of the dtype of the weights."""
        if self._drawn[0] != k:
            place = np.argsort(self.order_of(k)) + 1
            knows, masks, rng = place, [], self._rng(k).fork()
            for layer in self.layers[:-1]:
                least = min(int(knows.min()), self.size - 1)  # with fewer, a unit would know nothing at all
                m = least + rng.integers(max(self.size - least, 1), layer.weight.shape[1])
                masks.append(knows[:, None] <= m)
                knows = m
            masks += [knows[:, None] < place, place[:, None] < place]
            self._drawn = k, [mask.astype(self.A.dtype) for mask in masks]
        return self._drawn[1]

    def _rng(self, k: int) -> Generator:
        """The generator of draw k, always the same."""
        rng = Generator(self._seed)
        rng.load_state_dict({"seed": self._seed, "counter": 2 * k})
        return rng

    # -- the density -----------------------------------------------------------------------------------------------

    def logits(self, x: Any, labels: Any = None, k: int = 0) -> Tensor:
        *inner, last, direct = self.connections(k)
        h = x
        for i, (layer, mask) in enumerate(zip(self.layers, inner, strict=False)):
            h = h @ (layer.weight * mask) + layer.bias
            h = ops.relu(h if labels is None or i else h + self.C(labels))
        out = h @ (self.layers[-1].weight * last) + x @ (self.A * direct) + self.layers[-1].bias
        return out if labels is None else out + self.B(labels)

    def log_prob(self, x: Any, labels: Any = None) -> Tensor:
        """log 1/K sum_k p_k(x|y) in nats, (N,): exact."""
        self._checked(labels)
        each = [log_bernoulli(self.logits(x, labels, k), x) for k in range(self.masks)]
        return ops.logsumexp(ops.stack(each), axis=0) - math.log(self.masks)

    def loss(self, x: Any, rng: Generator, labels: Any = None) -> Tensor:
        """-log p_k(x|y) for one of the K draws, averaged over examples: on the average over k no less than that of
        their mixture, as the logarithm is concave."""
        self._checked(labels)
        k = int(rng.integers(self.masks)) if self.masks > 1 else 0
        return -ops.mean(log_bernoulli(self.logits(x, labels, k), x))

    # -- sampling ----------------------------------------------------------------------------------------------------

    def sample(
        self, n: int, rng: Generator, labels: Any = None, given: np.ndarray | None = None, start: int = 0
    ) -> np.ndarray:
        """As for the others. Each draw is one of the K components', which makes all of its values; what is given makes
        a component the likelier, the likelier it holds that: p(k|given) is proportional to p_k(given)."""
        if self.orders and start:
            raise InputError("MADE: its components have orders of their own, so no values come first for all of them.")
        x = np.zeros((n, self.size), np.float32) if given is None else np.array(given, np.float32)
        components = self._components(x, rng, labels, start)
        for k in np.unique(components):
            own = np.flatnonzero(components == k)
            drawn = x[own]
            for _ in self.filling(drawn, rng, None if labels is None else np.asarray(labels)[own], start, int(k)):
                pass
            x[own] = drawn
        return x

    def _components(self, x: np.ndarray, rng: Generator, labels: Any, start: int) -> np.ndarray:
        """The component that each row is drawn from, given its values before place `start`."""
        if not start:
            return rng.integers(self.masks, len(x))
        known = self.order[:start]
        with no_grad():
            logits = [self.logits(x, labels, k).numpy() for k in range(self.masks)]
        log_p = np.stack([log_bernoulli(a[:, known], x[:, known]) for a in logits], axis=1)
        return Categorical(log_p).sample(rng)

    def _one_by_one(self, x: np.ndarray, labels: Any, k: int) -> Iterator[np.ndarray]:
        """As in NADE, what a value adds to the first layer is added when it has been drawn."""
        masks = self.connections(k)
        W, *inner, V = [layer.weight.numpy() * mask for layer, mask in zip(self.layers, masks, strict=False)]
        c, *biases, b = [layer.bias.numpy() for layer in self.layers]
        A = self.A.numpy() * masks[-1]
        a = np.zeros((len(x), len(c)), x.dtype) + c + (0 if labels is None else self.C(labels).numpy())
        b = np.zeros_like(x) + b + (0 if labels is None else self.B(labels).numpy())
        for i in self.order_of(k):
            h = np.maximum(a, 0)
            for U, bias in zip(inner, biases, strict=True):
                h = np.maximum(h @ U + bias, 0)
            yield b[:, i] + h @ V[:, i] + x @ A[:, i]
            a += x[:, i : i + 1] * W[i]
