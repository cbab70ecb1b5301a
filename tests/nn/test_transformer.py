"""GPT: causal, the same with its cache, drawn from what it says, and able to learn."""

import numpy as np
import pytest

from tinygen import no_grad, ops
from tinygen.errors import InputError
from tinygen.nn import GPT, TransformerBlock
from tinygen.optim import Adam
from tinygen.random import Generator


def randomised(model, scale=0.3):
    model.to(dtype=np.float64)
    for i, p in enumerate(model.parameters()):
        p.data = Generator(i).normal(p.shape, dtype=np.float64) * scale
    return model


def gpt(**how):
    return randomised(GPT(5, 8, width=8, heads=2, layers=2, **how, rng=Generator(0)))


TOKENS = Generator(1).integers(5, (3, 8))


def test_a_block_begins_as_the_identity():
    x = Generator(0).normal((2, 3, 8))
    np.testing.assert_array_equal(TransformerBlock(8, 2, rng=Generator(1))(x).numpy(), x)


def test_at_first_all_tokens_are_equally_likely():
    model = GPT(5, 8, width=8, heads=2, layers=2, rng=Generator(0))
    loss = ops.cross_entropy(model(TOKENS[:, :-1]), TOKENS[:, 1:]).mean()
    assert loss.item() == pytest.approx(np.log(5), rel=1e-6)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_logits_do_not_depend_on_later_tokens(position):
    changed = TOKENS.copy()
    changed[:, position + 1 :] = (changed[:, position + 1 :] + 1) % 5
    a, b = gpt()(TOKENS).numpy(), gpt()(changed).numpy()
    np.testing.assert_allclose(a[:, : position + 1], b[:, : position + 1], atol=1e-13)
    assert (a[:, position + 1 :] != b[:, position + 1 :]).all()


@pytest.mark.parametrize("pieces", [[1] * 8, [8], [3, 1, 4]])
@pytest.mark.parametrize("context", [None, 6])
def test_with_its_cache_pieces_give_what_the_whole_gives(pieces, context):
    model = gpt(context=context)
    about = None if context is None else Generator(2).normal((3, 4, context), dtype=np.float64)
    cache = model.new_cache()
    with no_grad():
        parts = [model(part, about, cache).numpy() for part in np.split(TOKENS, np.cumsum(pieces)[:-1], axis=1)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), model(TOKENS, about).numpy(), atol=1e-12)


def test_samples_are_those_of_the_model_without_a_cache():
    model, start = gpt(), np.zeros((50, 1), int)
    drawn = model.sample(start, 8, Generator(3), temperature=0.7)
    assert drawn.shape == (50, 9) and not drawn[:, 0].any()
    rng, tokens = Generator(3), start
    for _ in range(8):
        cdf = np.cumsum(ops.softmax(model(tokens).numpy()[:, -1] / 0.7), axis=1)
        u = rng.uniform((50, 1), dtype=np.float64)
        tokens = np.concatenate([tokens, [[np.searchsorted(c, v)] for c, v in zip(cdf, u[:, 0], strict=True)]], axis=1)
    np.testing.assert_array_equal(drawn, tokens)


def test_samples_have_the_frequencies_that_the_model_states():
    model, n = gpt(), 20_000
    drawn = model.sample(np.full((n, 1), 2), 1, Generator(4))[:, 1]
    p = ops.softmax(model(np.array([[2]])).numpy()[0, 0])
    counts = np.bincount(drawn, minlength=5)
    assert (np.abs(counts - n * p) < 4 * np.sqrt(n * p * (1 - p)) + 1).all()


def test_probabilities_of_all_sequences_sum_to_one():
    model = gpt()
    after = np.stack(np.meshgrid(*[np.arange(5)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    tokens = np.concatenate([np.zeros((625, 1), int), after], axis=1)
    log_p = -ops.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).sum(axis=1).numpy()
    assert np.exp(log_p).sum() == pytest.approx(1, rel=1e-12)


def test_a_small_gpt_learns_to_count_with_a_memory_of_two():
    rng = Generator(0)
    model = GPT(7, 12, width=32, heads=2, layers=2, rng=rng)
    adam = Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        tokens = np.empty((32, 13), int)
        tokens[:, :2] = rng.integers(7, (32, 2))
        for i in range(2, 13):
            tokens[:, i] = (tokens[:, i - 1] + tokens[:, i - 2]) % 7
        loss = ops.cross_entropy(model(tokens[:, :-1])[:, 1:], tokens[:, 2:]).mean()
        loss.backward()
        adam.step()
        adam.zero_grad()
    assert loss.item() < 0.1
    drawn = model.sample(np.array([[1, 1]]), 10, rng, temperature=0.1)[0]
    assert list(drawn) == [1, 1, 2, 3, 5, 1, 6, 0, 6, 6, 5, 4]  # Fibonacci's numbers modulo 7


def test_bad_tokens_lengths_and_temperatures_are_explained():
    model = gpt()
    with pytest.raises(InputError, match="9 tokens are more than the 8"):
        model(np.zeros((1, 9), int))
    with pytest.raises(InputError, match="indices run from"):
        model(np.array([[5]]))
    with pytest.raises(InputError, match=r'TransformerBlock was made for a context.*"blocks.0"'):
        gpt(context=3)(TOKENS)
    for args in ((np.zeros((1, 0), int), 2), (TOKENS, 2), (TOKENS[0], 1)):
        with pytest.raises(InputError, match="sample"):
            model.sample(*args, Generator(0))
    with pytest.raises(InputError, match="temperature"):
        model.sample(TOKENS, 1, Generator(0), temperature=0.0)
