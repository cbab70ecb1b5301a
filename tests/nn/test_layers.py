"""Layers against their formulas, and networks that learn."""

import math

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.errors import InputError
from tinygen.nn import (
    MLP,
    ConvResidualBlock,
    Embedding,
    FourierFeatures,
    Linear,
    Parameter,
    ResidualBlock,
    ResidualMLP,
    Sequential,
    TimeEmbedding,
    initialise,
    sinusoidal,
)
from tinygen.optim import Adam
from tinygen.random import Generator


def silu(x):
    return x / (1 + np.exp(-x))


def randomised(module, seed=0):
    """The module in float64 with every parameter drawn anew: zeros would hide mistakes."""
    module.to(dtype=np.float64)
    for i, p in enumerate(module.parameters()):
        p.data = Generator(seed + i).normal(p.shape, dtype=np.float64)
    return module


def test_linear_is_x_w_plus_b_over_the_last_axis():
    layer = randomised(Linear(3, 4, rng=Generator(0)))
    x = Generator(1).normal((2, 5, 3), dtype=np.float64)
    y = layer(x)
    assert isinstance(y, tinygen.Tensor)
    np.testing.assert_allclose(y.numpy(), x @ layer.weight.numpy() + layer.bias.numpy())
    assert Linear(3, 4, bias=False, rng=Generator(0)).bias is None


def test_mlp_puts_its_activation_between_layers_and_sequential_says_the_same():
    mlp = randomised(MLP([3, 5, 4, 2], rng=Generator(0)))
    a, _, b, _, c = mlp
    x = Generator(1).normal((7, 3), dtype=np.float64)
    h = silu(x @ a.weight.numpy() + a.bias.numpy())
    h = silu(h @ b.weight.numpy() + b.bias.numpy())
    np.testing.assert_allclose(mlp(x).numpy(), h @ c.weight.numpy() + c.bias.numpy())
    row = Sequential(a, ops.silu, b, ops.silu, c)
    np.testing.assert_array_equal(row(x).numpy(), mlp(x).numpy())
    assert len(row) == 5 and row[0] is a and list(row)[-1] is c


def test_what_a_subclass_adds_to_sequential_is_found_too():
    class Scaled(Sequential):
        def __init__(self, rng):
            super().__init__(Linear(2, 2, rng=rng), ops.silu)
            self.scale = Parameter(np.ones(2))

    assert list(Scaled(Generator(0)).state_dict()) == ["0.weight", "0.bias", "scale"]


def test_a_network_equals_pytorch_forward_and_backward_in_float64():
    torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch, which is not installed")
    mlp = randomised(MLP([3, 5, 4], rng=Generator(0)))
    table = randomised(Embedding(6, 3, rng=Generator(0)))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.SiLU(), torch.nn.Linear(5, 4)).double()
    rows = torch.nn.Embedding(6, 3).double()
    with torch.no_grad():
        rows.weight.copy_(torch.tensor(table.weight.numpy()))
        for ours, other in zip((mlp[0], mlp[2]), (theirs[0], theirs[2]), strict=True):
            other.weight.copy_(torch.tensor(ours.weight.numpy().T.copy()))
            other.bias.copy_(torch.tensor(ours.bias.numpy()))
    indices = np.array([[0, 5], [5, 2]])
    out, expected = mlp(table(indices)), theirs(rows(torch.tensor(indices)))
    ops.square(out).sum().backward()
    (expected**2).sum().backward()
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    same(out.numpy(), expected.detach().numpy())
    same(table.weight.grad, rows.weight.grad.numpy())
    same(mlp[0].weight.grad, theirs[0].weight.grad.numpy().T)
    same(mlp[2].bias.grad, theirs[2].bias.grad.numpy())


def test_embedding_looks_up_rows_and_sums_the_gradients_of_repeated_ones():
    table = Embedding(5, 3, rng=Generator(0))
    y = table(np.array([[1, 1], [4, 0]]))
    np.testing.assert_array_equal(y.numpy(), table.weight.numpy()[[[1, 1], [4, 0]]])
    y.sum().backward()
    np.testing.assert_array_equal(table.weight.grad[:, 0], [1, 2, 0, 0, 1])
    with pytest.raises((InputError, IndexError), match="Embedding"):
        table(np.array([5]))


def test_sinusoidal_is_sines_then_cosines_of_falling_frequencies():
    t = np.array([[0, 1, 999]])
    y = sinusoidal(t, 6)
    assert y.shape == (1, 3, 6) and y.dtype == np.float32
    frequencies = [1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    for k in range(3):
        angles = t[0, k] * np.array(frequencies)
        np.testing.assert_allclose(y[0, k], [*np.sin(angles), *np.cos(angles)], atol=1e-4)
    np.testing.assert_allclose(sinusoidal(tinygen.tensor([0.0, 1.0, 999.0]), 6).numpy(), y[0], atol=1e-6)
    assert sinusoidal(np.float64([1.5]), 4).dtype == np.float64 and sinusoidal(3, 4).shape == (4,)
    with pytest.raises(InputError, match="even"):
        sinusoidal(t, 5)


def test_a_time_embedding_takes_times_of_any_type_and_answers_in_that_of_its_weights():
    layer = randomised(TimeEmbedding(4, 3, rng=Generator(0)))
    expected = layer[2](silu(layer[0](sinusoidal(np.array([3.0, 500.0]), 4)).numpy())).numpy()
    for t in (np.array([3, 500]), np.float32([3, 500]), np.float64([3, 500]), tinygen.tensor([3.0, 500.0])):
        y = layer(t)
        assert y.dtype == np.float64
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-3)
    with pytest.raises(InputError, match="even"):
        TimeEmbedding(3, 3, rng=Generator(0))


def test_fourier_features_are_waves_whose_inner_product_depends_on_the_difference_alone():
    layer = FourierFeatures(2, 4000, scale=0.5, rng=Generator(0)).to(dtype=np.float64)
    x, step = Generator(1).normal((2, 5, 2), dtype=np.float64)
    a, b, c, d = (layer(v).numpy() for v in (x, x + step, 3 * x, 3 * x + step))
    np.testing.assert_allclose((a * b).sum(-1), (c * d).sum(-1), atol=1e-9)
    np.testing.assert_allclose((a * a).sum(-1), 2000)
    # Bochner: the mean of cos(2 pi f . step) over f ~ N(0, .5^2) is exp(-2 pi^2 .5^2 |step|^2)
    np.testing.assert_allclose((a * b).mean(-1) * 2, np.exp(-0.5 * (np.pi * step) ** 2).prod(-1), atol=0.08)
    assert not layer.parameters() and layer.frequencies.shape == (2, 2000)


def test_time_conditions_and_vectors_that_are_missing_or_not_asked_for_are_refused():
    rng, x = Generator(0), np.ones((2, 4), np.float32)
    images = np.ones((2, 3, 3, 4), np.float32)
    for call, message in (
        (lambda: ResidualMLP(4, 3, rng=rng)(x), "ResidualMLP was made for a time, but none was given"),
        (lambda: ResidualMLP(4, 3, time=0, rng=rng)(x, np.arange(2)), "ResidualMLP was made without a time"),
        (lambda: ResidualBlock(4, condition=4, rng=rng)(x), "ResidualBlock was made for a condition"),
        (lambda: ResidualBlock(4, rng=rng)(x, x), "ResidualBlock was made without a condition"),
        (lambda: ConvResidualBlock(4, 4, rng=rng)(images, x), "ConvResidualBlock was made without a condition"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_residual_block_adds_its_branch_to_what_it_was_given():
    block = randomised(ResidualBlock(4, condition=3, rng=Generator(0)))
    h, c = Generator(1).normal((6, 4), dtype=np.float64), Generator(2).normal((6, 3), dtype=np.float64)
    w1, b1, wc, w2, b2 = (p.numpy() for p in block.parameters())
    np.testing.assert_allclose(block(h, c).numpy(), h + silu(silu(h) @ w1 + b1 + c @ wc) @ w2 + b2)


def test_a_residual_network_begins_at_zero_with_blocks_that_change_nothing():
    net = ResidualMLP(2, 3, width=8, blocks=2, time=4, rng=Generator(0))
    x, t = Generator(1).normal((5, 2)), np.arange(5)
    assert net(x, t).shape == (5, 3) and not net(x, t).numpy().any()
    h = Generator(2).normal((5, 8))
    np.testing.assert_array_equal(net.blocks[0](h, h).numpy(), h)
    assert ResidualMLP(2, 3, width=8, time=0, rng=Generator(0))(x).shape == (5, 3)


def test_a_residual_network_is_differentiable_in_points_and_time():
    net = randomised(ResidualMLP(2, 1, width=4, blocks=2, time=4, rng=Generator(0)))
    tinygen.gradcheck(lambda x, t: net(x, t), Generator(1).normal((3, 2), dtype=np.float64), np.array([0.3, 1.0, 2.5]))


def test_a_residual_network_learns_a_rotation_that_depends_on_time():
    rng = Generator(0)
    net = ResidualMLP(2, 2, width=32, blocks=2, time=16, rng=rng)
    adam = Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(200):
        x, t = rng.normal((128, 2)), rng.uniform((128,))
        c, s = np.cos(3 * t)[:, None], np.sin(3 * t)[:, None]
        target = x * c + x[:, ::-1] * np.float32([-1, 1]) * s
        loss = ops.square(net(x, 1000 * t) - target).mean()
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.8 and np.mean(losses[-20:]) < 0.05


# -- first values ------------------------------------------------------------------------------------------------------


def test_fans_count_what_is_summed_over_in_dense_and_convolution_weights():
    assert initialise.fans((20, 30)) == (20, 30)
    assert initialise.fans((3, 5, 20, 30)) == (300, 450)
    with pytest.raises(InputError):
        initialise.fans((3,))


@pytest.mark.parametrize(
    "initial, variance",
    [
        (initialise.common_uniform, 1 / (3 * 300)),
        (initialise.lecun_normal, 1 / 300),
        (initialise.glorot_uniform, 2 / (300 + 450)),
        (initialise.glorot_normal, 2 / (300 + 450)),
        (initialise.he_normal, 2 / 300),
        (initialise.he_uniform, 2 / 300),
        (initialise.normal(0.02), 0.02**2),
        (initialise.standard_normal, 1),
        (initialise.orthogonal, 1 / 300),
        (initialise.zeros, 0),
    ],
)
def test_each_initialiser_has_the_variance_it_states(initial, variance):
    w = initial((3, 5, 20, 30), Generator(0))
    assert w.shape == (3, 5, 20, 30) and w.dtype == np.float32
    assert abs(w.mean()) <= 4 * math.sqrt(variance / w.size)
    assert w.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (2, 2, 3, 5)])
def test_orthogonal_weights_have_orthonormal_rows_or_columns(shape):
    w = initialise.orthogonal(shape, Generator(0)).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, np.eye(min(w.shape)), atol=1e-6)


def test_orthogonal_weights_have_no_preferred_direction():
    draws = np.stack([initialise.orthogonal((3, 3), Generator(seed)) for seed in range(2000)])
    np.testing.assert_allclose(draws.mean(0), 0, atol=4 / np.sqrt(3 * 2000))
    assert abs(np.sign(np.linalg.det(draws)).mean()) < 4 / np.sqrt(2000)


def test_the_last_layer_of_a_perceptron_may_begin_as_zeros():
    mlp = MLP([3, 4, 2], rng=Generator(0), last_init=initialise.zeros)
    assert mlp[0].weight.numpy().any() and not mlp(np.ones((1, 3), np.float32)).numpy().any()


def test_the_same_seed_gives_the_same_network():
    first, second, other = (MLP([3, 4, 2], rng=Generator(seed)).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["0.weight"], other["0.weight"])


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: Linear(0, 3, rng=rng),
        lambda rng: MLP([3], rng=rng),
        lambda rng: Embedding(3, 0, rng=rng),
    ],
)
def test_layers_without_features_are_refused(make):
    with pytest.raises(InputError):
        make(Generator(0))
