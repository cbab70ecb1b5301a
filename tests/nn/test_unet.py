"""The U-Net: shapes, what it depends on, how it begins, and a descent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen
from tinygen import nn, ops
from tinygen.errors import InputError
from tinygen.optim import Adam
from tinygen.random import Generator


def randomised(model, dtype=np.float64):
    model.to(dtype=dtype)
    for i, p in enumerate(model.parameters()):
        p.data = Generator(i).normal(p.shape, dtype=np.float64) / max(1, np.sqrt(p.size / p.shape[-1]))
    return model


def small(**how):
    return randomised(nn.UNet(2, width=4, **{"multipliers": (1, 2), "heads": 2} | how, rng=Generator(0)))


X = Generator(1).normal((3, 6, 8, 2), dtype=np.float64)
T = np.array([0, 10, 900])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 2), st.sampled_from([None, 1, 3]))
def test_every_height_and_width_comes_out_as_it_went_in(height, width, levels, blocks, outputs):
    net = nn.UNet(2, outputs, width=2, multipliers=(1, 2, 2)[:levels], blocks=blocks, heads=1, rng=Generator(0))
    y = net(np.ones((2, height, width, 2), np.float32), np.array([1, 2]))
    assert y.shape == (2, height, width, outputs or 2) and y.dtype == np.float32


def test_by_default_it_takes_digits_of_both_sizes_and_has_the_parameters_it_states():
    net = nn.UNet(rng=Generator(0))
    assert f"{sum(p.size for p in net.parameters()):,} parameters" in " ".join(nn.UNet.__doc__.split())
    for side in (28, 14):
        assert net(np.zeros((2, side, side, 1), np.float32), np.array([7])).shape == (2, side, side, 1)


def test_it_begins_at_zero_and_time_matters_after_a_step():
    net = nn.UNet(2, width=4, multipliers=(1, 2), heads=2, rng=Generator(0))
    x = X.astype(np.float32)
    assert not net(x, T).numpy().any()
    adam = Adam(net.parameters(), lr=1e-2)
    for _ in range(4):  # the last layer moves first, then what it had hidden
        ops.square(net(x, T) - x).mean().backward()
        assert all(p.grad is not None for p in net.parameters())
        adam.step()
        adam.zero_grad()
    assert np.abs(net(x, T).numpy() - net(x, T + 50).numpy()).max() > 1e-5


def test_time_and_condition_matter_and_each_example_has_its_own():
    net, c = small(condition=3), Generator(2).normal((3, 3), dtype=np.float64)
    y = net(X, T, c).numpy()
    for other in (net(X, T + [0, 1, 0], c).numpy(), net(X, T, c + [[0], [1], [0]]).numpy()):
        np.testing.assert_allclose(other[[0, 2]], y[[0, 2]], atol=1e-12)
        assert np.abs(other[1] - y[1]).max() > 1e-3


def test_one_time_serves_all_examples():
    net = small()
    np.testing.assert_allclose(net(X, np.array([5])).numpy(), net(X, np.array([5, 5, 5])).numpy(), atol=1e-12)


def test_examples_do_not_see_each_other():
    net, order = small(attention=(0, 1)), [2, 0, 1]
    np.testing.assert_allclose(net(X[order], T[order]).numpy(), net(X, T).numpy()[order], atol=1e-12)


def test_every_pixel_sees_every_other_through_the_middle():
    net, changed = small(), X.copy()
    changed[:, 0, 0] += 1
    assert (net(X, T).numpy() != net(changed, T).numpy()).any(axis=-1).all()


def test_attention_alone_knows_nothing_of_places():
    layer = randomised(nn.ImageAttention(4, heads=2, rng=Generator(0)))
    x = Generator(3).normal((2, 3, 5, 4), dtype=np.float64)
    np.testing.assert_allclose(layer(x[:, ::-1]).numpy(), layer(x).numpy()[:, ::-1], atol=1e-12)


def test_a_residual_block_commutes_with_a_mirror_if_its_kernels_are_mirrored():
    block = randomised(nn.ConvResidualBlock(4, 4, rng=Generator(0)))
    x = Generator(3).normal((2, 5, 7, 4), dtype=np.float64)
    y = block(x).numpy()
    for conv in (block.conv1, block.conv2):
        conv.weight.data = conv.weight.numpy()[:, ::-1].copy()
    np.testing.assert_allclose(block(x[:, :, ::-1]).numpy(), y[:, :, ::-1], atol=1e-12)


def test_its_gradients_are_those_of_finite_differences():
    net = small(multipliers=(1, 1), attention=(1,))
    tinygen.gradcheck(lambda x: net(x, np.array([3.0])), X[:1, :3, :3])


def test_a_small_unet_learns_to_tell_noise_from_a_disc():
    rng = Generator(0)
    net = nn.UNet(1, width=8, multipliers=(1, 2), rng=rng)
    adam = Adam(net.parameters(), lr=3e-3)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"))
    losses = []
    for _ in range(60):
        centre = rng.uniform((16, 2), 2, 5)
        disc = ((grid - centre[..., None, None]) ** 2).sum(1) < 5
        x0, t, eps = (2.0 * disc[..., None] - 1).astype(np.float32), rng.uniform((16,)), rng.normal((16, 8, 8, 1))
        level = t[:, None, None, None] * np.float32(np.pi / 2)
        loss = ops.square(net(np.cos(level) * x0 + np.sin(level) * eps, 1000 * t) - eps).mean()
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.9 and np.mean(losses[-10:]) < 0.35


def test_what_it_was_not_made_for_is_refused():
    with pytest.raises(InputError, match="UNet was made for a condition"):
        small(condition=3)(X, T)
    with pytest.raises(InputError, match="UNet was made without a condition"):
        small()(X, T, T)
    with pytest.raises(InputError, match=r'no time was given.*TimeEmbedding "time"'):
        small()(X, None)
    with pytest.raises(InputError, match=r'Conv2d "first"'):
        small()(X[..., :1], T)
    for how in ({"multipliers": ()}, {"blocks": 0}, {"attention": (2,)}):
        with pytest.raises(InputError, match="UNet"):
            small(**how)
