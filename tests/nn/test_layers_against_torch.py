"""Every layer's value and gradients against PyTorch, in float64, with every parameter drawn at random.

PyTorch is handed our parameters in our layout and turns them around itself, so that its gradients come out in ours.
"""

import math

import numpy as np
import pytest

import tinygen
from tinygen import nn
from tinygen.random import Generator

torch = pytest.importorskip("torch", reason="PyTorch, which these layers are compared with, is not installed")
F = torch.nn.functional
RNG = Generator(0)


def first(x):
    """Features at axis 1, as PyTorch has them."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def kernel(w):
    """(..., C, D) -> (D, C, ...)"""
    return w.movedim((-1, -2), (0, 1))


def near(ours, theirs):
    """Equal to 1e-9 of the largest number there is."""
    theirs = theirs.detach().numpy()
    assert np.shape(ours) == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * max(np.abs(theirs).max(initial=0), 1e-3))


def agree(layer, theirs, *shapes, constants=()):
    """layer(*inputs, *constants) and theirs(parameters, *inputs, *constants): value, gradients of all there is."""
    layer.to(dtype=np.float64)
    for i, p in enumerate(layer.parameters()):
        p.data = Generator(i).normal(p.shape, dtype=np.float64) * 0.5
    inputs = [Generator(100 + i).normal(shape, dtype=np.float64) for i, shape in enumerate(shapes)]
    xs = [tinygen.tensor(x, requires_grad=True) for x in inputs]
    ts = [torch.tensor(x, requires_grad=True) for x in inputs]
    named = dict(layer.named_parameters())
    p = {name: torch.tensor(part.numpy(), requires_grad=True) for name, part in named.items()}
    y, t = layer(*xs, *constants), theirs(p, *ts, *map(torch.tensor, constants))
    near(y.numpy(), t)
    weight = np.cos(np.arange(y.size)).reshape(y.shape)
    y.backward(weight)
    t.backward(torch.tensor(weight))
    for x, other in zip([*xs, *named.values()], [*ts, *p.values()], strict=True):
        near(x.grad, other.grad)


# -- convolutions ------------------------------------------------------------------------------------------------------

HOW = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": 2, "dilation": 2, "groups": 2},
    {"stride": 3, "groups": 2, "bias": False},
]


@pytest.mark.parametrize("how", HOW)
def test_conv1d(how):
    kept = {k: v for k, v in how.items() if k != "bias"}
    layer = nn.Conv1d(4, 6, 3, **how, rng=RNG)
    agree(layer, lambda p, x: last(F.conv1d(first(x), kernel(p["weight"]), p.get("bias"), **kept)), (2, 9, 4))


@pytest.mark.parametrize("how", [*HOW, {"stride": (1, 2), "padding": "valid"}])
def test_conv2d(how):
    kept = {k: v for k, v in how.items() if k != "bias"}
    layer = nn.Conv2d(4, 6, (3, 2), **how, rng=RNG)
    agree(layer, lambda p, x: last(F.conv2d(first(x), kernel(p["weight"]), p.get("bias"), **kept)), (2, 7, 8, 4))


@pytest.mark.parametrize("how", [*HOW, {"stride": 2, "padding": 1, "output_padding": 1}])
def test_conv_transpose2d(how):
    kept = {k: v for k, v in how.items() if k != "bias"}
    layer = nn.ConvTranspose2d(4, 6, (3, 2), **how, rng=RNG)
    theirs = lambda p, x: last(F.conv_transpose2d(first(x), kernel(p["weight"]), p.get("bias"), **kept))
    agree(layer, theirs, (2, 4, 5, 4))


# -- normalisation -----------------------------------------------------------------------------------------------------


def test_layer_norm():
    agree(nn.LayerNorm(5), lambda p, x: F.layer_norm(x, (5,), p["gain"], p["bias"]), (3, 4, 5))
    agree(nn.LayerNorm(5, affine=False), lambda p, x: F.layer_norm(x, (5,)), (3, 4, 5))


def test_rms_norm():
    agree(nn.RMSNorm(5, eps=1e-3), lambda p, x: F.rms_norm(x, (5,), p["gain"], eps=1e-3), (3, 4, 5))


def test_group_norm():
    agree(nn.GroupNorm(2, 6), lambda p, x: last(F.group_norm(first(x), 2, p["gain"], p["bias"])), (3, 4, 5, 6))


def test_group_norm_with_silu():
    norm = lambda p, x: F.group_norm(first(x), 2, p["gain"], p["bias"])
    agree(nn.GroupNormSiLU(2, 6), lambda p, x: last(F.silu(norm(p, x))), (3, 4, 5, 6))
    each = lambda v: v[:, :, None, None]
    theirs = lambda p, x, s, b: last(F.silu(norm(p, x) * (1 + each(s)) + each(b)))
    agree(nn.GroupNormSiLU(2, 6), theirs, (3, 4, 5, 6), (3, 6), (1, 6))


def test_batch_norm_in_training_and_in_evaluation():
    mean, var = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    norm = lambda training: (
        lambda p, x: last(F.batch_norm(first(x), mean.clone(), var.clone(), p["gain"], p["bias"], training))
    )
    agree(nn.BatchNorm(6), norm(True), (3, 4, 5, 6))
    agree(nn.BatchNorm(6).eval(), norm(False), (3, 4, 5, 6))
    agree(nn.BatchNorm(6, affine=False), lambda p, x: F.batch_norm(x, None, None, training=True), (8, 6))


def test_batch_norm_keeps_running_statistics_as_pytorch_does():
    ours, theirs = nn.BatchNorm(4, momentum=0.3).to(dtype=np.float64), torch.nn.BatchNorm2d(4, momentum=0.3).double()
    rng = Generator(1)
    for _ in range(5):
        x = rng.normal((3, 2, 5, 4), dtype=np.float64) * 3 + 1
        ours(x), theirs(first(torch.tensor(x)))
    near(ours.mean.numpy(), theirs.running_mean)
    near(ours.var.numpy(), theirs.running_var)
    near(ours.eval()(x).numpy(), last(theirs.eval()(first(torch.tensor(x)))))


# -- attention ---------------------------------------------------------------------------------------------------------


def projections(p, prefix):
    """The weight and the bias for queries, keys and values, and for the output."""
    get = lambda name: [p[f"{prefix}{name}.{part}"] for part in ("weight", "bias")]
    if f"{prefix}qkv.weight" in p:
        joined = zip(*[part.chunk(3, -1) for part in get("qkv")])
    else:
        joined = [get("query"), *zip(*[part.chunk(2, -1) for part in get("key_value")])]
    return *joined, get("output")


def torch_attention(p, prefix, width, heads):
    """torch.nn.MultiheadAttention with our parameters; its weights stand the other way round."""
    (q, qb), (k, kb), (v, vb), (o, ob) = projections(p, prefix)
    theirs = torch.nn.MultiheadAttention(width, heads, kdim=len(k), vdim=len(v), batch_first=True).double()
    state = {"in_proj_bias": torch.cat([qb, kb, vb]), "out_proj.weight": o.T, "out_proj.bias": ob}
    if len(k) == width:
        state["in_proj_weight"] = torch.cat([q.T, k.T, v.T])
    else:
        state |= {"q_proj_weight": q.T, "k_proj_weight": k.T, "v_proj_weight": v.T}
    return lambda *args, **kwargs: torch.func.functional_call(theirs, state, args, kwargs)[0]


def later(t):
    """True where a query must not look, as PyTorch wants it."""
    return torch.ones(t, t, dtype=bool).triu(1)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention(causal):
    layer = nn.MultiHeadAttention(6, 3, causal=causal, rng=RNG)
    how = {"attn_mask": later(5) if causal else None}
    agree(layer, lambda p, x: torch_attention(p, "", 6, 3)(x, x, x, **how), (2, 5, 6))


def test_cross_attention_with_a_mask():
    layer = nn.MultiHeadAttention(6, 2, context=4, rng=RNG)
    mask = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1]], bool)
    theirs = lambda p, x, c, m: torch_attention(p, "", 6, 2)(x, c, c, attn_mask=~m)
    agree(layer, theirs, (2, 4, 6), (2, 3, 4), constants=(mask,))


def torch_block(p, context):
    """PyTorch's own encoder or decoder layer, with our parameters."""
    make = torch.nn.TransformerEncoderLayer if context is None else torch.nn.TransformerDecoderLayer
    theirs = make(6, 2, 24, 0.0, F.gelu, norm_first=True, batch_first=True).double()
    norms = {"norm1": "norm1", "norm3": "norm2"} if context is None else {f"norm{i}": f"norm{i}" for i in (1, 2, 3)}
    state = {}
    for ours, other in norms.items():
        state |= {f"{other}.weight": p[f"{ours}.gain"], f"{other}.bias": p[f"{ours}.bias"]}
    for i, other in ((0, "linear1"), (2, "linear2")):
        state |= {f"{other}.weight": p[f"mlp.{i}.weight"].T, f"{other}.bias": p[f"mlp.{i}.bias"]}
    for ours, other in {"attention": "self_attn", "cross": "multihead_attn"}.items():
        if f"{ours}.output.weight" not in p:
            continue
        (q, qb), (k, kb), (v, vb), (o, ob) = projections(p, f"{ours}.")
        state |= {
            f"{other}.in_proj_weight": torch.cat([q.T, k.T, v.T]),
            f"{other}.in_proj_bias": torch.cat([qb, kb, vb]),
            f"{other}.out_proj.weight": o.T,
            f"{other}.out_proj.bias": ob,
        }
    return lambda *args, **kwargs: torch.func.functional_call(theirs, state, args, kwargs)


def test_a_transformer_block_is_pytorchs_encoder_layer_with_the_norm_first():
    layer = nn.TransformerBlock(6, 2, causal=True, rng=RNG)
    agree(layer, lambda p, x: torch_block(p, None)(x, src_mask=later(5)), (2, 5, 6))


def test_a_transformer_block_with_a_context_is_pytorchs_decoder_layer():
    layer = nn.TransformerBlock(6, 2, causal=True, context=6, rng=RNG)
    agree(layer, lambda p, x, c: torch_block(p, 6)(x, c, tgt_mask=later(5)), (2, 5, 6), (2, 3, 6))


def test_gpt_is_embeddings_blocks_norm_and_a_linear_layer():
    layer = nn.GPT(7, 5, width=6, heads=2, layers=2, rng=RNG)

    def theirs(p, tokens):
        h = p["token.weight"][tokens] + p["position.weight"][:4]
        for i in range(2):
            own = {name.removeprefix(f"blocks.{i}."): v for name, v in p.items() if name.startswith(f"blocks.{i}.")}
            h = torch_block(own, None)(h, src_mask=later(4))
        return F.layer_norm(h, (6,), p["norm.gain"], p["norm.bias"]) @ p["last.weight"]

    agree(layer, theirs, constants=(np.array([[1, 6, 0, 3], [2, 2, 5, 4]]),))


# -- residual blocks and the U-Net -------------------------------------------------------------------------------------


class Theirs:
    """Our residual blocks and U-Net once more, in PyTorch's functions, images (N, C, H, W) within."""

    def __init__(self, p):
        self.p = p

    def conv(self, name, x, **how):
        return F.conv2d(x, kernel(self.p[f"{name}.weight"]), self.p[f"{name}.bias"], **{"padding": 1} | how)

    def linear(self, name, x):
        return F.linear(x, self.p[f"{name}.weight"].T, self.p.get(f"{name}.bias"))

    def norm(self, name, x):
        groups = math.gcd(8, x.shape[1])
        return F.group_norm(x, groups, self.p[f"{name}.gain"], self.p[f"{name}.bias"])

    def block(self, name, h, c=None):
        x = self.norm(f"{name}norm2", self.conv(f"{name}conv1", F.silu(self.norm(f"{name}norm1", h))))
        if c is not None:
            s, b = self.linear(f"{name}condition", c)[:, :, None, None].chunk(2, 1)
            x = x * (1 + s) + b
        if f"{name}skip.weight" in self.p:
            h = first(self.linear(f"{name}skip", last(h)))
        return h + self.conv(f"{name}conv2", F.silu(x))

    def attend(self, name, x, heads):
        rows = self.norm(f"{name}norm", x).flatten(2).mT
        rows = torch_attention(self.p, f"{name}attention.", rows.shape[-1], heads)(rows, rows, rows)
        return x + rows.mT.reshape(x.shape)

    def stage(self, name, h, c):
        h = self.block(f"{name}.residual.", h, c)
        return self.attend(f"{name}.attention.", h, 2) if f"{name}.attention.norm.gain" in self.p else h

    def unet(self, x, t, c, width):
        rates = 10_000 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
        waves = torch.cat([torch.sin(t[:, None] * rates), torch.cos(t[:, None] * rates)], 1)
        c = F.silu(self.linear("time.2", F.silu(self.linear("time.0", waves))) + self.linear("condition", c))
        a = self.stage("down.0.0", self.conv("first", first(x)), c)
        b = self.stage("down.1.0", self.conv("halve.0", a, stride=2), c)
        h = self.stage("middle.1", self.stage("middle.0", b, c), c)
        h = self.stage("up.0.0", torch.cat([h, b], 1), c)
        h = F.interpolate(h, scale_factor=2)[:, :, : a.shape[2], : a.shape[3]]
        h = self.stage("up.1.0", torch.cat([self.conv("double.0", h), a], 1), c)
        return last(self.conv("last", F.silu(self.norm("norm", h))))


@pytest.mark.parametrize("outputs", [6, 4])
def test_convolutional_residual_block(outputs):
    layer = nn.ConvResidualBlock(6, outputs, condition=3, rng=RNG)
    agree(layer, lambda p, h, c: last(Theirs(p).block("", first(h), c)), (2, 4, 5, 6), (2, 3))
    layer = nn.ConvResidualBlock(6, outputs, rng=RNG)
    agree(layer, lambda p, h: last(Theirs(p).block("", first(h))), (2, 4, 5, 6))


def test_unet():
    layer = nn.UNet(2, 3, width=4, multipliers=(1, 2), attention=(1,), heads=2, condition=3, rng=RNG)
    times = np.array([3.0, 700.0])
    x, c = (2, 5, 6, 2), Generator(5).normal((2, 3), dtype=np.float64)
    agree(layer, lambda p, x, t, c: Theirs(p).unet(x, t, c, 4), x, constants=(times, c))


# -- reparametrised weights --------------------------------------------------------------------------------------------

WRAPPED = {
    "Linear": (lambda: nn.Linear(4, 3, rng=RNG), lambda: torch.nn.Linear(4, 3), (5, 4)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, rng=RNG), lambda: torch.nn.Conv2d(2, 3, 3), (2, 4, 5, 2)),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(2, 3, 3, rng=RNG),
        lambda: torch.nn.ConvTranspose2d(2, 3, 3),
        (2, 4, 5, 2),
    ),
}


def call(module, state, x):
    """PyTorch's module with this state, images turned around."""
    turn = x.ndim == 4
    y = torch.func.functional_call(module, state, (first(x) if turn else x,))
    return last(y) if turn else y


@pytest.mark.parametrize("ours, theirs, shape", WRAPPED.values(), ids=WRAPPED.keys())
def test_spectral_norm(ours, theirs, shape):
    layer = nn.SpectralNorm(ours(), rng=RNG).to(dtype=np.float64).eval()
    other = torch.nn.utils.parametrizations.spectral_norm(theirs()).double().eval()

    def call_theirs(p, x):
        weight = kernel(p["layer.weight"])
        rows = (weight.transpose(0, 1) if isinstance(other, torch.nn.ConvTranspose2d) else weight).flatten(1).detach()
        u = torch.tensor(layer.u.numpy())
        v = F.normalize(rows.T @ u, dim=0)
        state = {"bias": p["layer.bias"], "parametrizations.weight.original": weight}
        state |= {"parametrizations.weight.0._u": u, "parametrizations.weight.0._v": v}
        return call(other, state, x)

    agree(layer, call_theirs, shape)


@pytest.mark.parametrize("ours, theirs, shape", WRAPPED.values(), ids=WRAPPED.keys())
def test_weight_norm(ours, theirs, shape):
    layer, other = nn.WeightNorm(ours()), theirs().double()
    axis = 1 if isinstance(other, torch.nn.ConvTranspose2d) else 0
    other = torch.nn.utils.parametrizations.weight_norm(other, dim=axis)

    def call_theirs(p, x):
        v = kernel(p["layer.weight"])
        g = p["gain"].reshape([-1 if i == axis else 1 for i in range(v.ndim)])
        state = {"bias": p["layer.bias"]}
        state |= {"parametrizations.weight.original0": g, "parametrizations.weight.original1": v}
        return call(other, state, x)

    agree(layer, call_theirs, shape)
