"""A gradient penalty, a loss that is made of a derivative: its own gradient differentiates every vjp on the way."""

import numpy as np
import pytest

import tinygen
from tinygen import ops

H = 1e-5


def penalty(x, w1, w2, activation):
    """mean (|d critic(x) / dx| - 1)^2 for a critic of two convolutions (Gulrajani et al. 2017, eq. 3)."""
    x = tinygen.tensor(x, requires_grad=True)
    hidden = activation(ops.conv2d(x, w1, padding=1))
    score = ops.conv2d(hidden, w2, stride=2).sum()
    slope = tinygen.grad(score, x, create_graph=True)
    return ops.square(ops.norm(slope, axis=(1, 2, 3)) - 1).mean()


@pytest.mark.parametrize("activation", [ops.tanh, lambda x: ops.leaky_relu(x, 0.2)], ids=["tanh", "leaky_relu"])
def test_the_gradient_of_a_convolutional_critics_gradient_penalty_agrees_with_finite_differences(activation):
    rng = np.random.default_rng(0)
    x, *weights = [0.5 * rng.standard_normal(shape) for shape in [(3, 6, 6, 2), (3, 3, 2, 4), (2, 2, 4, 1)]]
    leaves = [tinygen.tensor(w, requires_grad=True) for w in weights]
    penalty(x, *leaves, activation).backward()
    for leaf, w in zip(leaves, weights, strict=True):
        numeric = np.zeros_like(w)
        for place in np.ndindex(w.shape):
            here = w[place]
            for sign in (1, -1):
                w[place] = here + sign * H
                numeric[place] += sign * penalty(x, *map(tinygen.tensor, weights), activation).item() / (2 * H)
            w[place] = here
        assert np.abs(numeric).max() > 0.1
        np.testing.assert_allclose(leaf.grad, numeric, rtol=1e-6, atol=1e-8)
