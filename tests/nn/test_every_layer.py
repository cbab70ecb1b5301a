"""What holds for every layer: it is saved and loaded, described, copied, made alike by one seed, float32 throughout."""

import copy

import numpy as np
import pytest

import tinygen
from tinygen import nn
from tinygen.random import Generator

TOKENS = np.array([[0, 3, 1], [2, 2, 4]])
IMAGES = (2, 5, 6, 4)
LAYERS = {
    "Linear": (lambda rng: nn.Linear(4, 3, rng=rng), [(5, 4)]),
    "MLP": (lambda rng: nn.MLP([4, 5, 3], rng=rng), [(5, 4)]),
    "Conv1d": (lambda rng: nn.Conv1d(4, 6, 3, rng=rng), [(2, 5, 4)]),
    "Conv2d": (lambda rng: nn.Conv2d(4, 6, 3, groups=2, rng=rng), [IMAGES]),
    "ConvTranspose2d": (lambda rng: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, rng=rng), [IMAGES]),
    "LayerNorm": (lambda rng: nn.LayerNorm(4), [IMAGES]),
    "RMSNorm": (lambda rng: nn.RMSNorm(4), [IMAGES]),
    "GroupNorm": (lambda rng: nn.GroupNorm(2, 4), [IMAGES]),
    "GroupNormSiLU": (lambda rng: nn.GroupNormSiLU(2, 4), [IMAGES, (2, 4), (1, 4)]),
    "BatchNorm": (lambda rng: nn.BatchNorm(4), [IMAGES]),
    "Dropout": (lambda rng: nn.Dropout(0.5, rng=rng), [IMAGES]),
    "Embedding": (lambda rng: nn.Embedding(5, 3, rng=rng), [TOKENS]),
    "TimeEmbedding": (lambda rng: nn.TimeEmbedding(4, 6, rng=rng), [(5,)]),
    "FourierFeatures": (lambda rng: nn.FourierFeatures(3, 8, rng=rng), [(5, 3)]),
    "MultiHeadAttention": (lambda rng: nn.MultiHeadAttention(6, 2, context=4, rng=rng), [(2, 3, 6), (2, 5, 4)]),
    "TransformerBlock": (lambda rng: nn.TransformerBlock(6, 2, causal=True, dropout=0.3, rng=rng), [(2, 3, 6)]),
    "GPT": (lambda rng: nn.GPT(5, 4, width=6, heads=2, layers=2, dropout=0.3, rng=rng), [TOKENS]),
    "ResidualBlock": (lambda rng: nn.ResidualBlock(4, condition=3, rng=rng), [(5, 4), (5, 3)]),
    "ResidualMLP": (lambda rng: nn.ResidualMLP(4, 3, width=8, blocks=2, time=4, rng=rng), [(5, 4), (5,)]),
    "ConvResidualBlock": (lambda rng: nn.ConvResidualBlock(4, 6, condition=3, rng=rng), [IMAGES, (2, 3)]),
    "ImageAttention": (lambda rng: nn.ImageAttention(4, heads=2, rng=rng), [IMAGES]),
    "UNet": (lambda rng: nn.UNet(4, width=4, multipliers=(1, 2), dropout=0.2, rng=rng), [IMAGES, (2,)]),
    "SpectralNorm": (lambda rng: nn.SpectralNorm(nn.Conv2d(4, 3, 3, rng=rng), rng=rng), [IMAGES]),
    "WeightNorm": (lambda rng: nn.WeightNorm(nn.Linear(4, 3, rng=rng)), [IMAGES]),
}
every_layer = pytest.mark.parametrize("make, shapes", LAYERS.values(), ids=LAYERS.keys())


def drawn(shapes, dtype=np.float32):
    return [s if isinstance(s, np.ndarray) else Generator(i).normal(s, dtype=dtype) for i, s in enumerate(shapes)]


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def randomised(layer, seed):
    for i, p in enumerate(layer.parameters()):
        p.data = Generator(seed + i).normal(p.shape)
    return layer


def test_every_layer_that_is_exported_is_here():
    layers = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    layers = {name for name in layers if issubclass(getattr(nn, name), nn.Module)}
    assert layers - {"Module", "Sequential"} == set(LAYERS)


@every_layer
def test_a_loaded_state_gives_the_same_results_in_training_and_in_evaluation(make, shapes, tmp_path):
    layer, other, inputs = randomised(make(Generator(0)), 7), make(Generator(1)), drawn(shapes)
    layer(*inputs)  # moves running statistics, counters and power iterations
    np.savez(tmp_path / "layer.npz", **layer.state_dict())
    with np.load(tmp_path / "layer.npz") as state:
        other.load_state_dict(state)
    for _ in range(2):
        same(other(*inputs), layer(*inputs))
    same(other.eval()(*inputs), layer.eval()(*inputs))
    for name, value in layer.state_dict().items():
        same(other.state_dict()[name], value)


@every_layer
def test_evaluation_is_a_pure_function_and_training_can_go_on(make, shapes):
    layer, inputs = randomised(make(Generator(0)), 7).eval(), drawn(shapes)
    before = layer.state_dict()
    same(layer(*inputs), layer(*inputs))
    assert all(np.array_equal(before[name], value) for name, value in layer.state_dict().items())
    assert all(module.training for _, module in layer.train().named_modules())


@every_layer
def test_float32_stays_float32_and_float64_float64(make, shapes):
    for dtype in (np.float32, np.float64):
        layer = make(Generator(0)).to(dtype=dtype)
        y = layer(*[tinygen.tensor(x) for x in drawn(shapes, dtype)])
        y.sum().backward() if y.requires_grad else None
        assert y.dtype == dtype and all(p.grad.dtype == dtype for p in layer.parameters())


@every_layer
def test_repr_names_the_layer_its_shapes_and_its_number_of_parameters(make, shapes):
    layer = make(Generator(0))
    text = repr(layer)
    assert text.startswith(type(layer).__name__) and "  " in text
    assert f" {sum(p.size for p in layer.parameters()):,} parameters" in text.splitlines()[0]
    for name, part in [*layer.named_parameters(), *layer.named_buffers()]:
        assert f"{name.rpartition('.')[2]} {part.shape}" in text


@every_layer
def test_a_copy_is_independent_and_a_seed_makes_one_layer(make, shapes):
    layer, inputs = make(Generator(3)), drawn(shapes)
    layer(*inputs)
    twin = copy.deepcopy(layer)
    same(twin(*inputs), layer(*inputs))
    for p in twin.parameters():
        p.data = p.numpy() + 1
    again = make(Generator(3)).state_dict()
    assert all(np.array_equal(again[name], p.numpy()) for name, p in layer.named_parameters())
    assert set(again) == set(layer.state_dict())
