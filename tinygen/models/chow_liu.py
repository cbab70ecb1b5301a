"""Chow-Liu trees: the best network of pixels in which every pixel depends on one other.

    p(x) = prod_i p(x_i | x_pa(i)),    pa(i) the parent of pixel i; the root has none

Of all distributions that a tree can make, which is nearest to the data? Chow & Liu (1968) found that the question comes
apart. Whatever the tree, its tables should be those of the data. Then its divergence from them is a constant less the
mutual information along its edges,

    KL(data || tree) = sum_i H(x_i) - H(x) - sum_i I(x_i; x_pa(i))

so that the best tree is the spanning tree of greatest total mutual information, and a greedy algorithm finds that one.
There is nothing to train: one matrix product, one tree, one table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinygen.models.naive_bayes import as_bits, as_images, checked
from tinygen.nn import Buffer, Module
from tinygen.random import Generator

__all__ = ["ChowLiuTree", "maximum_spanning_tree", "mutual_information"]

NO_PARENT = -1
BLOCK = 8192  # images counted at a time, in float64


class ChowLiuTree(Module):
    """The tree of greatest likelihood over D bits.

    dimensions: D
    smoothing:  how many imaginary images of pure noise are added to the data: each pair of pixels is then off-off,
                off-on, on-off and on-on in a quarter of them

    Fitted, it holds `parent` (D,), -1 for the root; `order` (D,), in which parents come before their children; `table`
    (D, 2), p(x_i = 1 | x_pa(i) = 0) and (... = 1); and `information` (D,), I(x_i; x_pa(i)) in nats. Before that all
    pixels hang on the first and are coins.
    """

    def __init__(self, dimensions: int, smoothing: float = 0.3):
        self.dimensions, self.smoothing = checked(dimensions, smoothing, type(self).__name__)
        self.parent = Buffer(np.where(np.arange(dimensions) == 0, NO_PARENT, 0))
        self.order = Buffer(np.arange(dimensions))
        self.table = Buffer(np.full((dimensions, 2), 0.5))
        self.information = Buffer(np.zeros(dimensions))

    def fit(self, x: ArrayLike) -> ChowLiuTree:
        """Counts pairs in x (N, D), bits or intensities, and builds the tree on them."""
        single, pair = frequencies(as_images(x, self.dimensions), self.smoothing)
        information = mutual_information(single, pair)
        parent, order = maximum_spanning_tree(information)
        child, above = np.arange(self.dimensions), np.where(parent == NO_PARENT, 0, parent)
        both = pair[child, above]  # p(x_i = 1, x_pa(i) = 1)
        table = np.stack([(single - both) / (1 - single[above]), both / single[above]], axis=1)
        table[parent == NO_PARENT] = single[parent == NO_PARENT, None]
        self.parent.data, self.order.data, self.table.data = parent, order, table
        self.information.data = np.where(parent == NO_PARENT, 0.0, information[child, above])
        return self

    def log_prob(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats, (N,), of bits x (N, D)."""
        x = as_bits(x, self.dimensions)
        p = np.where(self._above(x) == 1, self.table.data[:, 1], self.table.data[:, 0])
        return np.log(np.where(x == 1, p, 1 - p)).sum(axis=1)

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n images, float32 0 and 1, (n, D): the root first, then each pixel given its parent."""
        u, x = rng.uniform((n, self.dimensions)), np.zeros((n, self.dimensions), np.float32)
        parent, table = self.parent.data, self.table.data
        for i in self.order.data:
            x[:, i] = u[:, i] < table[i, x[:, parent[i]].astype(int)]  # the root's two entries are the same
        return x

    def _above(self, x: np.ndarray) -> np.ndarray:
        """The parents' values; for the root any will do."""
        return x[:, np.maximum(self.parent.data, 0)]


def frequencies(x: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """p(x_i = 1), (D,), and p(x_i = 1, x_j = 1), (D, D), of images x (N, D) and so many imaginary ones."""
    n = len(x) + smoothing
    single = (x.sum(axis=0, dtype=np.float64) + smoothing / 2) / n
    blocks = (x[i : i + BLOCK].astype(np.float64) for i in range(0, len(x), BLOCK))
    pair = sum((block.T @ block for block in blocks), np.full((x.shape[1],) * 2, smoothing / 4)) / n
    return single, pair


def mutual_information(single: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """I(x_i; x_j) = sum_ab p(a, b) log p(a, b) / (p(a) p(b)) in nats, (D, D), from `frequencies`; the diagonal is 0."""
    one, zero = single, 1 - single
    cells = [
        (pair, one[:, None] * one),
        (one[:, None] - pair, one[:, None] * zero),
        (one - pair, zero[:, None] * one),
        (1 - one[:, None] - one + pair, zero[:, None] * zero),
    ]
    tiny = np.finfo(np.float64).tiny  # p log p is 0 at 0, where rounding may even leave -1e-17
    information = sum(p * np.log(np.maximum(p, tiny) / independent) for p, independent in cells)
    np.fill_diagonal(information, 0.0)
    return np.maximum(information, 0.0)


def maximum_spanning_tree(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tree over D nodes whose edges weigh most in all, by Prim's (1957) algorithm, in D^2 steps.

    weights: (D, D), symmetric. Returns the parent of each node, (D,) with -1 for the root, and the order in which they
    joined, (D,). The root is the node whose edges weigh most together. From there the tree grows by the heaviest edge
    that leads out of it; `best` remembers for each node outside which that is.
    """
    root = int(weights.sum(axis=1).argmax())
    parent, order = np.full(len(weights), NO_PARENT), [root]
    best, joined_to = weights[root].copy(), np.full(len(weights), root)
    best[root] = -np.inf  # whoever has joined never joins again
    for _ in range(len(weights) - 1):
        node = int(best.argmax())
        parent[node] = joined_to[node]
        order.append(node)
        best[node] = -np.inf
        nearer = (weights[node] > best) & np.isfinite(best)
        best[nearer], joined_to[nearer] = weights[node][nearer], node
    return parent, np.array(order)
