"""Kernel by kernel: tinygen beside its own definitions in NumPy, PyTorch, and what the machine can do, in one run.

    python -m pip install torch==2.13.0
    python tests/benchmarks/kernels.py [--threads N] [--rounds N] [--only NAME] [--json FILE]

Two peaks are measured in the same run with the same threads: how fast sgemm multiplies (the better of NumPy's BLAS at
1024 x 1024 and 2048 x 2048), and how fast an array of 64 MB is copied. A kernel bound by arithmetic is held against the
first (each multiplication with its addition counts as two operations), one bound by memory against the second (each
input and each output counts once). Libraries take turns, so "definition" and "PyTorch" are medians of ratios: how many
times as long as tinygen they take. Operations are given contiguous arrays, and gradients are asked for one at a time.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import harness

harness.unpin()
harness.use_this_clone()

import numpy as np  # noqa: E402

import tinygen  # noqa: E402
from tinygen import dispatch, ops, optim  # noqa: E402
from tinygen.ops.convolution import _way_back  # noqa: E402


class Case(NamedTuple):
    """`amount` of operations (peak "sgemm") or of bytes that must move (peak "copy"), and who does it."""

    name: str
    peak: str
    amount: float
    tinygen: Callable
    torch: Callable | None


rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


# -- convolutions ------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {  # images (N, H, W, C), kernel (KH, KW, C / groups, D), parameters
    "U-Net 28x28, 32 channels": ((64, 28, 28, 32), (3, 3, 32, 32), {"padding": 1}),
    "U-Net 14x14, 64": ((64, 14, 14, 64), (3, 3, 64, 64), {"padding": 1}),
    "U-Net 14x14, 128 to 64": ((64, 14, 14, 128), (3, 3, 128, 64), {"padding": 1}),
    "U-Net 7x7, 128": ((64, 7, 7, 128), (3, 3, 128, 128), {"padding": 1}),
    "U-Net 28x28, 1 to 32": ((64, 28, 28, 1), (3, 3, 1, 32), {"padding": 1}),
    "U-Net 28x28, 32 to 1": ((64, 28, 28, 32), (3, 3, 32, 1), {"padding": 1}),
    "down 28x28, 32 to 64": ((64, 28, 28, 32), (3, 3, 32, 64), {"padding": 1, "stride": 2}),
    "1x1, 14x14, 64 to 128": ((64, 14, 14, 64), (1, 1, 64, 128), {}),
    "DCGAN 4x4, 14x14, 64 to 128": ((64, 14, 14, 64), (4, 4, 64, 128), {"padding": 1, "stride": 2}),
    "DCGAN 4x4, 28x28, 1 to 64": ((64, 28, 28, 1), (4, 4, 1, 64), {"padding": 1, "stride": 2}),
    "PixelCNN 28x28, 64": ((32, 28, 28, 64), (2, 3, 64, 64), {"padding": ((1, 0), (1, 1))}),
    "dilated 28x28, 32": ((64, 28, 28, 32), (3, 3, 32, 32), {"padding": 2, "dilation": 2}),
    "4 groups, 14x14, 64": ((64, 14, 14, 64), (3, 3, 16, 64), {"padding": 1, "groups": 4}),
    "depthwise 14x14, 128": ((64, 14, 14, 128), (3, 3, 1, 128), {"padding": 1, "groups": 128}),
}


def convolutions(torch) -> Iterator[Case]:
    for name, (images, kernel, params) in CONVOLUTIONS.items():
        x, w = normal(*images), normal(*kernel)
        y = ops.conv2d(x, w, **params)
        g, amount = normal(*y.shape), 2.0 * y.size * np.prod(kernel[:3])
        moves = [params.get(key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
        win, more = _way_back(images, kernel, *moves)
        back = params | {"padding": win.pads, "output_padding": more}
        theirs = torch_convolution(torch, x, w, g, win, params.get("groups", 1)) if torch else [None] * 3
        mine = [
            lambda x=x, w=w, params=params: ops.conv2d(x, w, **params),
            lambda g=g, w=w, back=back: ops.conv_transpose2d(g, w, **back),
            lambda x=x, g=g, w=w, params=params: ops.conv2d_weight_gradient(x, g, w.shape[:2], **params),
        ]
        for what, f, other in zip(("forward", "by images", "by kernel"), mine, theirs):
            yield Case(f"{name}, {what}", "sgemm", amount, f, other)


def torch_convolution(torch, x, w, g, win, groups) -> list[Callable]:
    """The three in PyTorch, with images in the layout that it prefers, (N, C, H, W)."""
    (top, bottom), (left, right) = win.pads
    x, g = (torch.tensor(a).permute(0, 3, 1, 2).contiguous() for a in (x, g))
    w = torch.tensor(w).permute(3, 2, 0, 1).contiguous()
    pads = (top, left)
    if (top, left) != (bottom, right):  # PyTorch pads both sides alike
        x, pads = torch.nn.functional.pad(x, (left, right, top, bottom)), (0, 0)
    backward = torch.ops.aten.convolution_backward
    rest = None, win.stride, pads, win.dilation, False, (0, 0), groups
    return [
        lambda: torch.conv2d(x, w, None, win.stride, pads, win.dilation, groups),
        lambda: backward(g, x, w, *rest, (True, False, False)),
        lambda: backward(g, x, w, *rest, (False, True, False)),
    ]


# -- one pass: activations, norms, losses, attention -------------------------------------------------------------------


def one_pass(torch) -> Iterator[Case]:
    """Each op forward, and forward with its gradients: bytes are those of x, y; and of g, x, dx besides."""
    f = torch.nn.functional if torch else None
    first = lambda x: x.movedim(-1, 1)
    large, image, words = (4096, 1024), (64, 28, 28, 48), (8192, 512)
    named = {
        "SiLU": (ops.silu, lambda x: f.silu(x), [large]),
        "GELU": (ops.gelu, lambda x: f.gelu(x), [large]),
        "softmax": (ops.softmax, lambda x: f.softmax(x, -1), [words]),
        "log-softmax": (ops.log_softmax, lambda x: f.log_softmax(x, -1), [words]),
        "layer norm": (ops.layer_norm, lambda x, a, b: f.layer_norm(x, x.shape[-1:], a, b), [words, (512,), (512,)]),
        "RMS norm": (ops.rms_norm, lambda x, a: f.rms_norm(x, x.shape[-1:], a), [words, (512,)]),
        "group norm": (
            functools.partial(ops.group_norm, groups=8),
            lambda x, a, b: f.group_norm(first(x), 8, a, b),
            [image, (48,), (48,)],
        ),
        "group norm, SiLU": (
            functools.partial(ops.group_norm_silu, groups=8),
            lambda x, a, b: f.silu(f.group_norm(first(x), 8, a, b)),
            [image, (48,), (48,)],
        ),
    }
    for name, (ours, theirs, shapes) in named.items():
        operands = [normal(*shape) for shape in shapes]
        size = operands[0].size
        yield from both_ways(torch, name, "copy", [8.0 * size, 20.0 * size], ours, theirs, operands)

    logits, targets = normal(*large), rng.random(large, dtype=np.float32)
    loss = lambda x: ops.binary_cross_entropy_with_logits(x, targets)
    theirs = lambda x: f.binary_cross_entropy_with_logits(x, torch.from_numpy(targets), reduction="none")
    amounts = [12.0 * logits.size, 28.0 * logits.size]
    yield from both_ways(torch, "binary cross-entropy", "copy", amounts, loss, theirs, [logits])

    heads = [normal(64, 4, 64, 32) for _ in range(3)]
    amount = 4.0 * 64 * 4 * 64 * 64 * 32
    ours = lambda *x: ops.scaled_dot_product_attention(*x)
    theirs = lambda *x: f.scaled_dot_product_attention(*x)
    yield from both_ways(torch, "attention, 64 tokens", "sgemm", [amount, 3.5 * amount], ours, theirs, heads)

    yield from over_all_parameters(torch)


def over_all_parameters(torch) -> Iterator[Case]:
    """A million parameters, in one array and in those of a network: what optimisers do to all of them in one pass."""
    numbers = (1e-3, 0.9, 0.999, 1e-8, 0.1, 0.001, 0.0)
    layers = 16 * [(2, 256), (256,), (256, 240), (240,), (240, 14), (14,)]
    for name, shapes in {"one array": [(2**20,)], "96 arrays": layers}.items():
        params, grads, averages = ([normal(*shape) for shape in shapes] for _ in range(3))
        slots = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
        jobs = [(p, g, *s) for p, g, s in zip(params, grads, slots)]
        size = sum(p.size for p in params)
        twins = [torch.from_numpy(p.copy()).requires_grad_() for p in params] if torch else []
        for twin, g in zip(twins, grads):
            twin.grad = torch.from_numpy(g.copy())
        adam = torch.optim.Adam(twins, fused=True) if torch else None
        yield Case(
            f"Adam, {name}",
            "copy",
            28.0 * size,
            lambda jobs=jobs: dispatch.update("adam_step", optim.adam_step, jobs, *numbers),
            adam and adam.step,
        )
        pairs = list(zip(averages, params))
        theirs = [torch.from_numpy(a.copy()) for a in averages] if torch else []
        yield Case(
            f"moving average, {name}",
            "copy",
            12.0 * size,
            lambda pairs=pairs: dispatch.update("move_average", optim.move_average, pairs, 0.001),
            torch and (lambda theirs=theirs, twins=twins: torch._foreach_lerp_(theirs, [t.data for t in twins], 0.001)),
        )
        leaves = [tinygen.Parameter(p) for p in params]
        for leaf, g in zip(leaves, grads):
            leaf.grad = g
        yield Case(
            f"norm of all gradients, {name}",
            "copy",
            4.0 * size,
            lambda leaves=leaves: optim.clip_grad_norm(leaves, 1e9),
            torch and (lambda twins=twins: torch.nn.utils.get_total_norm([t.grad for t in twins])),
        )


def both_ways(torch, name, peak, amounts, ours, theirs, operands) -> Iterator[Case]:
    g = normal(*ours(*operands).shape)
    leaves = [tinygen.tensor(x, requires_grad=True) for x in operands]
    other = with_other = None
    if torch:
        arrays = [torch.from_numpy(x) for x in operands]
        required = [x.clone().requires_grad_() for x in arrays]
        weight = torch.empty_like(theirs(*arrays))
        weight.copy_(torch.from_numpy(g).movedim(-1, 1) if weight.shape != g.shape else torch.from_numpy(g))
        other = lambda: theirs(*arrays)
        with_other = lambda: torch.autograd.grad(theirs(*required), required, weight)
    yield Case(f"{name}, forward", peak, amounts[0], lambda: ours(*operands), other)
    yield Case(f"{name}, with gradients", peak, amounts[1], lambda: tinygen.grad(ours(*leaves), leaves, g), with_other)


# -- measuring ---------------------------------------------------------------------------------------------------------

FAMILIES = [convolutions, one_pass]


def peaks() -> dict[str, tuple[float, Callable]]:
    """What shows the machine's best: operations or bytes, and the call that does them."""
    runs = {}
    for side in (1024, 2048):
        a, b, c = normal(side, side), normal(side, side), np.empty((side, side), np.float32)
        runs[f"sgemm {side}"] = (2.0 * side**3, lambda a=a, b=b, c=c: np.matmul(a, b, out=c))
    source, to = np.ones(2**24, np.float32), np.empty(2**24, np.float32)
    runs["copy"] = (2.0 * source.nbytes, lambda: copy(source, to))
    return runs


def copy(source: np.ndarray, to: np.ndarray) -> None:
    """With as many threads as kernels use."""
    from tinygen.kernels.cpu.threads import share, threads

    count = threads()
    parts = list(zip(np.array_split(to, count), np.array_split(source, count)))
    share(lambda k: np.copyto(*parts[k]), count, count)


def measure(case: Case, rounds: int) -> dict:
    """Milliseconds of ours, the rate beside the peak measured in between, and the others' ratios."""
    amounts = {name: run for name, run in peaks().items() if name.startswith(case.peak)}
    definition = dispatch.definitions_only()(case.tinygen)
    runs = {"tinygen": case.tinygen, "definition": definition}
    if case.torch:
        runs["PyTorch"] = case.torch
    times = harness.take_turns(runs | {name: run for name, (_, run) in amounts.items()}, rounds, seconds=0.05)
    table = harness.summary(times, "tinygen")
    peak = max(amount / table[name]["median"] for name, (amount, _) in amounts.items())
    rate = case.amount / table["tinygen"]["median"]
    row = {"ms": table["tinygen"]["median"], "peak": case.peak, "rate": rate / 1e6, "share": rate / peak}
    return row | {name: table[name]["ratio"] for name in ("definition", "PyTorch") if name in table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        torch = print("PyTorch is not installed: left out.")
    ops.conv2d(normal(1, 4, 4, 2), normal(3, 3, 2, 2))  # loads the kernels' BLAS, so that its threads are limited too
    harness.limit_threads(options.threads)
    print(harness.described(harness.machine() | {"threads": options.threads}), "\n")
    head = f"{'':40}{'ms':>9}{'G/s':>8}{'of peak':>16}{'definition':>12}{'PyTorch':>9}"
    print(head, "  times tinygen's", flush=True)
    rows = {}
    for family in FAMILIES:
        for case in family(torch):
            if options.only not in case.name:
                continue
            rows[case.name] = row = measure(case, options.rounds)
            ratios = f"{row['definition']:12.2f}" + (f"{row['PyTorch']:9.2f}" if "PyTorch" in row else "")
            part = f"{row['share']:.0%} of {row['peak']}"
            print(f"{case.name:40}{row['ms']:9.3f}{row['rate']:8.1f}{part:>16}{ratios}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": harness.machine(), "kernels": rows}, indent=2))


if __name__ == "__main__":
    main()
