"""Multi-head attention: what may depend on what, and the cache."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import no_grad, tensor
from tinygen.errors import GraphError, InputError
from tinygen.nn import KeyValueCache, MultiHeadAttention
from tinygen.random import Generator

RNG = Generator(0)
X = RNG.normal((2, 7, 8), dtype=np.float64)


def attention(**how):
    return MultiHeadAttention(8, 2, **how, rng=Generator(1)).to(dtype=np.float64)


@pytest.mark.parametrize("position", range(7))
def test_causal_attention_does_not_see_later_positions(position):
    changed = X.copy()
    changed[:, position + 1 :] += 1
    layer = attention(causal=True)
    a, b = layer(X).numpy(), layer(changed).numpy()
    np.testing.assert_allclose(a[:, : position + 1], b[:, : position + 1], rtol=0, atol=1e-14)
    assert (a[:, position + 1 :] != b[:, position + 1 :]).any() == (position < 6)


def test_attention_without_an_order_gives_shuffled_answers_to_shuffled_positions():
    order = Generator(2).permutation(7)
    layer = attention()
    np.testing.assert_allclose(layer(X[:, order]).numpy(), layer(X).numpy()[:, order], atol=1e-12)


def test_a_context_in_any_order_is_the_same_context():
    layer, context = attention(context=5), RNG.normal((2, 4, 5), dtype=np.float64)
    np.testing.assert_allclose(layer(X, context[:, ::-1]).numpy(), layer(X, context).numpy(), atol=1e-12)


def test_one_key_that_may_be_seen_is_the_answer():
    layer = attention()
    mask = np.zeros((7, 7), bool)
    mask[:, 3] = True
    value = layer.output(layer.qkv(X[:, 3:4])[..., -8:]).numpy()
    np.testing.assert_allclose(layer(X, mask=mask).numpy(), np.repeat(value, 7, axis=1), atol=1e-12)


def test_a_mask_may_differ_by_example_and_head():
    layer = attention()
    mask = RNG.uniform((2, 1, 7, 7)) > 0.3
    mask |= np.eye(7, dtype=bool)
    each = [layer(X[i : i + 1], mask=mask[i, 0]).numpy() for i in range(2)]
    np.testing.assert_allclose(layer(X, mask=mask).numpy(), np.concatenate(each), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_with_a_cache_any_pieces_of_a_sequence_give_what_the_whole_gives(pieces):
    layer, cache = attention(causal=True), KeyValueCache()
    x = Generator(3).normal((2, sum(pieces), 8), dtype=np.float64)
    with no_grad():
        parts = [layer(part, cache=cache).numpy() for part in np.split(x, np.cumsum(pieces)[:-1], axis=1)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), layer(x).numpy(), atol=1e-12)
    assert len(cache) == sum(pieces)


@pytest.mark.parametrize("room", [0, 5, 20])
def test_the_room_of_a_cache_changes_nothing_but_where_its_memory_lies(room):
    keys, cache = RNG.normal((2, 3, 9, 4)), KeyValueCache(room)
    for part in np.split(keys, [2, 3, 8], axis=2):
        cache.append(tensor(part), tensor(-part))
    for read, expected in zip(cache.read(), (keys, -keys), strict=True):
        np.testing.assert_array_equal(read.numpy(), expected)
        assert read.data.base.shape[2] >= max(room, 9)


def test_what_a_cache_returned_stays_as_it_was():
    layer, cache = attention(causal=True), KeyValueCache()
    with no_grad():
        layer(X, cache=cache)
        keys, _ = cache.read()
        before = keys.numpy().copy()
        layer(X, cache=cache)
    np.testing.assert_array_equal(keys.numpy(), before)
    assert cache.read()[0].shape == (2, 2, 14, 4)


def test_the_cache_of_a_cross_attention_stands_for_its_first_context():
    layer, cache, context = attention(context=5), KeyValueCache(), RNG.normal((2, 4, 5), dtype=np.float64)
    with no_grad():
        for i in range(3):
            one = layer(X[:, i : i + 1], context, cache=cache).numpy()
            np.testing.assert_allclose(one, layer(X, context).numpy()[:, i : i + 1], atol=1e-12)
    assert len(cache) == 4


def test_a_cache_is_refused_where_it_would_give_wrong_answers():
    with pytest.raises(GraphError, match="no_grad"):
        attention(causal=True)(X, cache=KeyValueCache())
    with no_grad():
        with pytest.raises(InputError, match="only causal"):
            attention()(X, cache=KeyValueCache())
        cache, layer = KeyValueCache(), attention(causal=True)
        layer(X, cache=cache)
        with pytest.raises(InputError, match="cache holds"):
            layer(X[:1], cache=cache)
    assert len(cache) == 7
    with pytest.raises(InputError, match="nothing to read"):
        KeyValueCache().read()


def test_a_context_is_given_exactly_where_it_belongs():
    with pytest.raises(InputError, match="needs a context"):
        attention(context=5)(X)
    with pytest.raises(InputError, match="takes no context"):
        attention()(X, X)
    for wrong in ({"heads": 3}, {"heads": 2, "causal": True, "context": 4}):
        with pytest.raises(InputError, match="MultiHeadAttention"):
            MultiHeadAttention(8, **wrong, rng=RNG)
