"""Attention beyond one tile of 64 keys and queries, against its definition in float64."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad
from tinygen.dispatch import definitions_only

rng = np.random.default_rng(0)
ALLOWED = rng.random((130, 150)) < 0.7
ALLOWED[70] = False  # a query that may attend to nothing
MASKS = {"none": None, "boolean": ALLOWED, "added": rng.normal(size=(2, 1, 130, 150))}


def run(operands, dtype, causal):
    leaf = lambda x: tinygen.tensor(x.astype(dtype), requires_grad=True)
    leaves = [x if x is None or x.dtype == bool else leaf(x) for x in operands]
    y = ops.scaled_dot_product_attention(*leaves, causal=causal)
    asked = [x for x in leaves if isinstance(x, tinygen.Tensor)]
    weight = np.cos(np.arange(y.size)).reshape(y.shape).astype(dtype)
    return [y.numpy(), *[g.numpy() for g in grad(y, asked, weight)]], y.node.op is ops.scaled_dot_product_attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("queries, keys", [(130, 150), (150, 130), (64, 65), (1, 200)])
def test_tiles_together_are_attention_and_its_gradients(queries, keys, mask, causal):
    shapes = [(2, 3, queries, 8), (3, keys, 8), (2, 1, keys, 5)]  # heads and sequences that share keys and values
    mask = None if mask is None else np.resize(mask, (*mask.shape[:-2], queries, keys))
    operands = [rng.normal(size=shape) for shape in shapes] + [mask]
    found, by_kernel = run(operands, np.float32, causal)
    with definitions_only():
        expected, _ = run(operands, np.float64, causal)
    assert by_kernel
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * max(1, np.abs(b).max()))


def test_large_scores_do_not_overflow_and_masked_keys_weigh_exactly_nothing():
    q, k = np.full((100, 4), 30.0, np.float32), np.full((200, 4), 30.0, np.float32)
    k[:100] = -30
    v = np.where(np.arange(200)[:, None] < 100, np.float32(7), np.float32([2, 1]))
    allowed = np.arange(200) >= 100
    y = ops.scaled_dot_product_attention(q, k, v, np.broadcast_to(allowed, (100, 200)))
    np.testing.assert_array_equal(y, np.broadcast_to(np.float32([2, 1]), (100, 2)))


@pytest.mark.parametrize("keys", [1, 3, 40])
def test_one_query_reads_the_keys_that_fill_the_front_of_a_cache(keys):
    q, *room = (rng.normal(size=(2, 3, n, 8)).astype(np.float32) for n in (1, 40, 40))
    k, v = (x[:, :, :keys] for x in room)
    found, by_kernel = run([q, k.copy(), v.copy(), None], np.float32, True)
    with definitions_only():
        expected, _ = run([q, k, v, None], np.float64, True)
    assert by_kernel
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * max(1, np.abs(b).max()))
    np.testing.assert_array_equal(ops.scaled_dot_product_attention(q, k, v), found[0])
