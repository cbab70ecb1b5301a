"""Forward and gradients against PyTorch, in float64."""

import numpy as np
import pytest

import tinygen
from tinygen import ops
from tinygen.autograd import grad

torch = pytest.importorskip("torch", reason="PyTorch, which these ops are compared with, is not installed")
F = torch.nn.functional
RNG = np.random.default_rng(0)
X, GAIN, BIAS = RNG.normal(size=(3, 5, 2, 4)), RNG.normal(size=4), RNG.normal(size=4)
LOGITS, LABELS = RNG.normal(size=(6, 5)), RNG.integers(0, 5, 6)
Q, K, V = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 5, 6))
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)


def first(x):
    """PyTorch has its features at axis 1."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


PAIRS = {
    "softmax": (lambda x: ops.softmax(x, 1), lambda x: torch.softmax(x, 1), [X]),
    "log_softmax": (ops.log_softmax, lambda x: torch.log_softmax(x, -1), [X]),
    "cross_entropy": (
        lambda x: ops.cross_entropy(x, LABELS),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), reduction="none"),
        [LOGITS],
    ),
    "binary_cross_entropy": (
        ops.binary_cross_entropy_with_logits,
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
        [LOGITS, RNG.random((6, 5))],
    ),
    "gelu": (ops.gelu, F.gelu, [X]),
    "gelu tanh": (lambda x: ops.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), [X]),
    "layer_norm": (ops.layer_norm, lambda x, a, b: F.layer_norm(x, (4,), a, b), [X, GAIN, BIAS]),
    "rms_norm": (ops.rms_norm, lambda x, a: F.rms_norm(x, (4,), a, eps=1e-5), [X, GAIN]),
    "group_norm": (
        lambda *a: ops.group_norm(*a, groups=2),
        lambda x, a, b: last(F.group_norm(first(x), 2, a, b)),
        [X, GAIN, BIAS],
    ),
    "batch_norm": (
        lambda *a: ops.batch_norm(*a)[0],
        lambda x, a, b: last(F.batch_norm(first(x), None, None, a, b, training=True)),
        [X, GAIN, BIAS],
    ),
    "batch_norm_inference": (
        lambda x, a, b: ops.batch_norm_inference(x, BIAS, GAIN**2, a, b),
        lambda x, a, b: last(F.batch_norm(first(x), torch.tensor(BIAS), torch.tensor(GAIN**2), a, b)),
        [X, GAIN, BIAS],
    ),
    "attention": (ops.scaled_dot_product_attention, F.scaled_dot_product_attention, [Q, K, V]),
    "attention, causal": (
        lambda *a: ops.scaled_dot_product_attention(*a, causal=True),
        lambda *a: F.scaled_dot_product_attention(*a, is_causal=True),
        [K, K + 1, V],
    ),
    "attention, boolean mask": (
        lambda *a: ops.scaled_dot_product_attention(*a, MASK),
        lambda *a: F.scaled_dot_product_attention(*a, torch.tensor(MASK)),
        [Q, K, V],
    ),
    "attention, float mask": (
        ops.scaled_dot_product_attention,
        F.scaled_dot_product_attention,
        [Q, K, V, RNG.normal(size=(3, 5))],
    ),
    "embedding": (
        lambda w: ops.embedding(w, LABELS),
        lambda w: F.embedding(torch.tensor(LABELS), w),
        [RNG.normal(size=(5, 3))],
    ),
}


@pytest.mark.parametrize("ours, theirs, operands", PAIRS.values(), ids=PAIRS.keys())
def test_value_gradient_and_second_derivative_are_pytorchs(ours, theirs, operands):
    xs = [tinygen.tensor(x, requires_grad=True) for x in operands]
    ts = [torch.tensor(x, requires_grad=True) for x in operands]
    y, t = ours(*xs), theirs(*ts)
    weight = np.cos(np.arange(y.size)).reshape(y.shape)
    gs = grad(y, xs, weight, create_graph=True)
    gts = torch.autograd.grad(t, ts, torch.tensor(weight), create_graph=True)
    hs = grad(sum((g * g * x).sum() for g, x in zip(gs, xs, strict=True)), xs)
    hts = torch.autograd.grad(sum((g * g * x).sum() for g, x in zip(gts, ts, strict=True)), ts)
    near = lambda a, b: np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-9)
    near(y, t)
    for ours_, theirs_ in zip(gs, gts, strict=True):
        near(ours_, theirs_)
    for h, ht in zip(hs, hts, strict=True):
        near(h, ht)


def test_batch_statistics_are_pytorchs_up_to_its_unbiased_variance():
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    F.batch_norm(first(torch.tensor(X)), mean, var, training=True, momentum=1.0)
    _, mu, biased = ops.batch_norm(X)
    n = X.size // 4
    np.testing.assert_allclose(mu, mean.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(biased * n / (n - 1), var.numpy(), rtol=1e-9)
