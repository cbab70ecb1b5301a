"""Attention against its formula written out, its masks, and what a query that sees nothing gets."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import detect_anomaly, grad
from tinygen.errors import DtypeError, ShapeError

RNG = np.random.default_rng(0)
attend = ops.scaled_dot_product_attention


def qkv(queries=3, keys=5, batch=(2,)):
    return RNG.normal(size=(*batch, queries, 4)), RNG.normal(size=(*batch, keys, 4)), RNG.normal(size=(*batch, keys, 6))


def by_hand(q, k, v, allowed):
    """Query by query: exp of the scores over the keys it may see, normalised, times their values."""
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for place in np.ndindex(out.shape[:-1]):
        *n, i = place
        seen = [j for j in range(k.shape[-2]) if allowed[i, j]]
        e = np.array([np.exp(q[place] @ k[(*n, j)] / np.sqrt(q.shape[-1])) for j in seen])
        out[place] = sum(w * v[(*n, j)] for w, j in zip(e / e.sum(), seen, strict=True)) if seen else 0
    return out


def test_attention_is_its_formula_under_any_mask():
    q, k, v = qkv()
    for mask in (np.ones((3, 5), bool), RNG.random((3, 5)) < 0.5, np.zeros((3, 5), bool)):
        np.testing.assert_allclose(attend(q, k, v, mask), by_hand(q, k, v, mask))
    np.testing.assert_allclose(attend(q, k, v), by_hand(q, k, v, np.ones((3, 5), bool)))


@pytest.mark.parametrize("queries, keys", [(4, 4), (2, 5), (5, 2), (1, 4)])
def test_a_causal_mask_is_aligned_to_the_end(queries, keys):
    q, k, v = qkv(queries, keys)
    seen = np.array([[j <= i + keys - queries for j in range(keys)] for i in range(queries)])
    np.testing.assert_allclose(attend(q, k, v, causal=True), by_hand(q, k, v, seen))
    other = RNG.random((queries, keys)) < 0.7
    np.testing.assert_allclose(attend(q, k, v, other, causal=True), by_hand(q, k, v, seen & other))


def test_answering_the_last_query_alone_gives_its_row_of_the_whole():
    q, k, v = qkv(5, 5)
    np.testing.assert_allclose(attend(q[:, -1:], k, v, causal=True), attend(q, k, v, causal=True)[:, -1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["boolean", "minus infinity"])
def test_a_query_that_sees_nothing_gets_zeros_and_gives_no_gradient(dtype, kind):
    q, k, v = (tinygen.tensor(x.astype(dtype), requires_grad=True) for x in qkv())
    mask = np.ones((3, 5), bool)
    mask[1] = False
    if kind == "minus infinity":
        mask = np.where(mask, 0, -np.inf).astype(dtype)
    y = attend(q, k, v, mask)
    assert not y.numpy()[:, 1].any() and y.numpy()[:, [0, 2]].all()
    grads = grad((y * y).sum(), [q, k, v], create_graph=True)
    assert not grads[0].numpy()[:, 1].any()
    second = grad(sum((g * g).sum() for g in grads), [q, k, v])
    assert all(np.isfinite(g.numpy()).all() for g in (*grads, *second))


def test_masks_are_no_anomaly_and_large_scores_no_nan():
    q, k, v = (tinygen.tensor(np.float32(x), requires_grad=True) for x in qkv(4, 4))
    with detect_anomaly():
        y = attend(1e4 * q, k, v, RNG.random((4, 4)) < 0.3, causal=True)
        assert all(np.isfinite(g.numpy()).all() for g in grad(y.sum(), [q, k, v]))


def test_a_float_mask_is_added_to_the_scores_and_learns():
    q, k, v = qkv()
    bias = tinygen.tensor(RNG.normal(size=(3, 5)), requires_grad=True)
    scores = q @ k.swapaxes(-1, -2) / 2 + bias.numpy()
    np.testing.assert_allclose(attend(q, k, v, bias).numpy(), ops.softmax(scores) @ v)
    assert grad(attend(q, k, v, bias).sum(), bias).shape == (3, 5)


def test_scale_replaces_one_over_the_root_of_the_features():
    q, k, v = qkv()
    np.testing.assert_allclose(attend(q, k, v, scale=0.5), attend(q, k, v))
    np.testing.assert_allclose(attend(q, k, v, scale=0.0), np.repeat(v.mean(1, keepdims=True), 3, 1))


def test_leading_axes_broadcast_and_no_keys_give_zeros():
    q, k, v = qkv(batch=(2,))
    heads = attend(q[:, None], k[:, None] * np.ones((1, 3, 1, 1)), v[:, None])
    assert heads.shape == (2, 3, 3, 6)
    np.testing.assert_allclose(heads[:, 1], attend(q, k, v))
    np.testing.assert_array_equal(attend(q, k[:, :0], v[:, :0]), np.zeros((2, 3, 6)))


def test_operands_that_do_not_fit_say_so():
    q, k, v = qkv()
    with pytest.raises(ShapeError, match="queries of 3 features cannot be compared with keys of 4"):
        attend(q[..., :3], k, v)
    with pytest.raises(ShapeError, match="there are 5 keys but 4 values"):
        attend(q, k, v[:, :4])
    with pytest.raises(ShapeError, match="at least two axes"):
        attend(q[0, 0], k, v)
    with pytest.raises(DtypeError, match="mask must be boolean .* or float .* not int64"):
        attend(q, k, v, np.ones((3, 5), int))
