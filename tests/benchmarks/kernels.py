"""Kernel by kernel: tinygen beside its own definitions in NumPy, PyTorch, and what the machine can do, in one run.

    python -m pip install torch==2.13.0
    python tests/benchmarks/kernels.py [--threads N] [--rounds N] [--family F] [--only NAME] [--json FILE]

Two peaks are measured in the same run with the same threads: how fast sgemm multiplies (the better of NumPy's BLAS at
1024 x 1024 and 2048 x 2048), and how fast an array of 64 MB is copied. A kernel bound by arithmetic is held against the
first (each multiplication with its addition counts as two operations), one bound by memory against the second (each
input and each output counts once).

"of limit" is the roofline: the time in which the bytes could be copied or, if that is more, the arithmetic be done, as
a part of the time that was taken. A vector instruction (a product with its sum, a comparison, a shift) works on each
element; loads and stores do not count, a division counts as one. sgemm, which is made of products with their sums,
shows how many the machine can do in a second: half as many as it does operations.

Libraries take turns, so "definition" and "PyTorch" are medians of ratios: how many times as long as tinygen they take.
Arrays are contiguous. Freed memory is kept, as in training, so that no page is faulted in twice. "backward" is what
backward runs at one node, and PyTorch's autograd at its own; of convolutions the gradients are asked for one at a time.
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
from tinygen import dispatch, ops, optim, runtime  # noqa: E402
from tinygen.launch.pieces import empty, in_pieces, pieces  # noqa: E402
from tinygen.ops.convolution import _way_back  # noqa: E402


class Case(NamedTuple):
    """`amount` of operations (peak "sgemm") or of bytes that must move (peak "copy"), and who does it.

    `instructions` counts those on all elements, where they may bind instead of memory; `definition` is None where
    `tinygen` runs the definition if kernels are switched off.
    """

    name: str
    peak: str
    amount: float
    tinygen: Callable
    torch: Callable | None
    instructions: float = 0.0
    definition: Callable | None = None


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


# -- one pass: activations, norms, losses, reductions, attention -------------------------------------------------------

LARGE, WORDS, IMAGES = (4096, 1024), (8192, 512), (64, 28, 28, 48)


class Pass(NamedTuple):
    """An op, the same in PyTorch, its operands, and per element of the first of them, forward and backward: the bytes
    of what is read and written, and the vector instructions."""

    ours: Callable
    theirs: Callable
    shapes: list
    moved: tuple[float, float]
    instructions: tuple[float, float]


def passes(torch) -> dict[str, Pass]:
    f = torch.nn.functional if torch else None
    first = lambda x: x.movedim(-1, 1)
    running = [normal(48), np.abs(normal(48)) + 1]
    theirs = [torch.from_numpy(x) for x in running] if torch else []
    y = rng.random(LARGE, dtype=np.float32)
    targets, labels = torch and torch.from_numpy(y), rng.integers(512, size=WORDS[0])
    chosen = torch and torch.from_numpy(labels)
    images, words = [IMAGES, (48,), (48,)], [WORDS, (512,), (512,)]
    groups = {"groups": 8}
    return {
        "SiLU": Pass(ops.silu, lambda x: f.silu(x), [LARGE], (8, 12), (20, 24)),
        "GELU": Pass(ops.gelu, lambda x: f.gelu(x), [LARGE], (8, 12), (33, 35)),
        "binary cross-entropy": Pass(
            lambda x: ops.binary_cross_entropy_with_logits(x, y),
            lambda x: f.binary_cross_entropy_with_logits(x, targets, reduction="none"),
            [LARGE], (12, 16), (26, 21),
        ),
        "softmax": Pass(ops.softmax, lambda x: f.softmax(x, -1), [WORDS], (8, 12), (20, 3)),
        "log-softmax": Pass(ops.log_softmax, lambda x: f.log_softmax(x, -1), [WORDS], (8, 12), (21, 16)),
        "cross-entropy": Pass(
            lambda x: ops.cross_entropy(x, labels),
            lambda x: f.cross_entropy(x, chosen, reduction="none"),
            [WORDS], (4, 8), (19, 17),
        ),
        "layer norm": Pass(
            ops.layer_norm, lambda x, a, b: f.layer_norm(x, x.shape[-1:], a, b), words, (8, 12), (6, 11)
        ),
        "RMS norm": Pass(ops.rms_norm, lambda x, a: f.rms_norm(x, x.shape[-1:], a), words[:2], (8, 12), (5, 9)),
        "group norm": Pass(
            functools.partial(ops.group_norm, **groups),
            lambda x, a, b: f.group_norm(first(x), 8, a, b),
            images, (8, 12), (6, 8),
        ),
        "group norm, SiLU": Pass(
            functools.partial(ops.group_norm_silu, **groups),
            lambda x, a, b: f.silu(f.group_norm(first(x), 8, a, b)),
            images, (8, 12), (25, 33),
        ),
        "batch norm": Pass(
            lambda *x: ops.batch_norm(*x)[0],
            lambda x, a, b: f.batch_norm(first(x), None, None, a, b, training=True),
            images, (8, 12), (6, 8),
        ),
        "batch norm, evaluation": Pass(
            lambda x, a, b: ops.batch_norm_inference(x, *running, a, b),
            lambda x, a, b: f.batch_norm(first(x), *theirs, a, b),
            images, (8, 12), (2, 5),
        ),
    }


def one_pass(torch) -> Iterator[Case]:
    for name, case in passes(torch).items():
        operands = [normal(*shape) for shape in case.shapes]
        size = operands[0].size
        amounts, counts = [n * size for n in case.moved], [n * size for n in case.instructions]
        yield from both_ways(torch, name, "copy", amounts, counts, case.ours, case.theirs, operands)
    yield from layer(torch)
    yield from forward_only(torch)
    heads = [normal(64, 4, 64, 32) for _ in range(3)]
    amount = 4.0 * 64 * 4 * 64 * 64 * 32
    theirs = lambda *x: torch.nn.functional.scaled_dot_product_attention(*x)
    amounts, ours = [amount, 2.5 * amount], ops.scaled_dot_product_attention
    yield from both_ways(torch, "attention, 64 tokens", "sgemm", amounts, [0, 0], ours, theirs, heads)
    yield from over_all_parameters(torch)


def layer(torch) -> Iterator[Case]:
    """What follows the product in a layer: bias and SiLU; the slope of SiLU, and with it the gradient of the bias."""
    from tinygen.kernels.cpu.bias_activation import SILU, bias_activation_backward, bias_activation_forward

    z, g, bias, y = normal(*WORDS), normal(*WORDS), normal(512), empty(WORDS)
    sums = np.empty((pieces(*WORDS)[1], 512))

    def forward():
        in_pieces(lambda _, i: bias_activation_forward(z[i], bias, SILU, y[i]), *WORDS)

    def backward():
        in_pieces(lambda k, i: bias_activation_backward(g[i], z[i], SILU, y[i], sums[k]), *WORDS)

    definition = [lambda: ops.silu(z + bias), lambda: (g * ops.silu(z)).sum(0)]
    definition = [dispatch.definitions_only()(f) for f in definition]
    t = [torch.from_numpy(x) for x in (z, g, bias)] if torch else None
    silu = torch and torch.nn.functional.silu
    theirs = t and (lambda: silu(t[0] + t[2]), lambda: torch.ops.aten.silu_backward(t[1], t[0]).sum(0))
    ways = [("forward", forward, 12.0, 21.0), ("backward", backward, 12.0, 25.0)]
    for k, (way, run, moved, count) in enumerate(ways):
        other = theirs and theirs[k]
        yield Case(f"bias and SiLU, {way}", "copy", moved * z.size, run, other, count * z.size, definition[k])


def forward_only(torch) -> Iterator[Case]:
    """Ops whose gradient is another op: a broadcast, a softmax, the same dropout again."""
    x, pixels, key = normal(*WORDS), normal(*IMAGES), (3, 4)
    y, theirs = (torch.from_numpy(x), torch.from_numpy(pixels)) if torch else (None, None)
    named = {
        "sum of rows": (x, lambda: ops.sum(x, -1), lambda: y.sum(-1), 4, 1),
        "sum of columns (bias gradient)": (x, lambda: ops.sum(x, 0), lambda: y.sum(0), 4, 1),
        "sum of pixels": (pixels, lambda: ops.sum(pixels, (0, 1, 2)), lambda: theirs.sum((0, 1, 2)), 4, 1),
        "sum of pixels of each image": (pixels, lambda: ops.sum(pixels, (1, 2)), lambda: theirs.sum((1, 2)), 4, 1),
        "variance of rows": (x, lambda: ops.var(x, -1), lambda: y.var(-1, correction=0), 4, 3),
        "variance of columns": (x, lambda: ops.var(x, 0), lambda: y.var(0, correction=0), 4, 3),
        "log-sum-exp": (x, lambda: ops.logsumexp(x, -1), lambda: y.logsumexp(-1), 4, 19),
        "dropout": (x, lambda: ops.dropout(x, 0.1, key), lambda: torch.dropout(y, 0.1, True), 8, 0),
    }
    for name, (array, ours, other, moved, count) in named.items():
        yield Case(name, "copy", moved * array.size, ours, other if torch else None, count * array.size)


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


# -- numbers moved elsewhere: pooling, upsampling, looking up ----------------------------------------------------------


def moved(torch) -> Iterator[Case]:
    """Which of a window's numbers is the largest is written forward and read backward: 4 bytes, as the indices of rows
    are 8; the table of an embedding stays in the cache."""
    f = torch.nn.functional if torch else None
    first = lambda x: x.movedim(-1, 1)
    wide, small = normal(*IMAGES), normal(64, 14, 14, 48)
    table, words, rows = normal(128, 128), rng.integers(128, size=(64, 64)), normal(*WORDS)
    places = rng.integers(WORDS[1], size=WORDS)
    chosen, theirs = (torch.from_numpy(i) for i in (words, places)) if torch else (None, None)
    named = {  # ours, PyTorch's, what it is done to, bytes
        "max pooling": (lambda x: ops.max_pool2d(x, 2), lambda x: f.max_pool2d(first(x), 2), wide, 6 * wide.size),
        "average pooling": (lambda x: ops.avg_pool2d(x, 2), lambda x: f.avg_pool2d(first(x), 2), wide, 5 * wide.size),
        "nearest upsampling": (
            lambda x: ops.upsample_nearest(x, 2), lambda x: f.interpolate(first(x), scale_factor=2), small,
            20 * small.size,
        ),
        "embedding": (
            lambda x: ops.embedding(x, words), lambda x: f.embedding(chosen, x), table,
            4 * (table.size + words.size * 128) + words.nbytes,
        ),
        "take along axis": (
            lambda x: ops.take_along_axis(x, places, -1), lambda x: x.gather(-1, theirs), rows, 16 * rows.size
        ),
    }
    for name, (ours, other, x, amount) in named.items():
        yield from both_ways(torch, name, "copy", [amount, amount], [0, 0], ours, other, [x])
    x, amount = normal(words.size, 128), 4 * (2 * table.size + words.size * 128) + words.nbytes
    y, into = (torch.from_numpy(a) for a in (x, table)) if torch else (None, None)
    other = lambda: into.index_add(0, chosen.reshape(-1), y)
    yield Case("scatter-add", "copy", amount, lambda: ops.scatter_add(table, words.reshape(-1), x), torch and other)


def both_ways(torch, name, peak, amounts, counts, ours, theirs, operands) -> Iterator[Case]:
    """The op forward, and what backward runs at its node."""
    g = normal(*ours(*operands).shape)
    leaves = [tinygen.tensor(x, requires_grad=True) for x in operands]
    y = ours(*leaves)
    node = y.node if y.node.op else y.node.parents[0]  # an op of several outputs has a node for each
    arrived = g if y.node.op else (g, *[np.zeros(shape, np.float32) for shape in node.shape[1:]])
    with dispatch.definitions_only():
        defined = ours(*leaves)
    other = other_back = None
    if torch:
        arrays = [torch.from_numpy(x) for x in operands]
        required = [x.clone().requires_grad_() for x in arrays]
        out = theirs(*required)
        weight = torch.empty_like(out)
        weight.copy_(torch.from_numpy(g).movedim(-1, 1) if weight.shape != g.shape else torch.from_numpy(g))
        other = lambda: theirs(*arrays)
        other_back = lambda: torch.autograd.grad(out, required, weight, retain_graph=True)
    yield Case(f"{name}, forward", peak, amounts[0], lambda: ours(*operands), other, counts[0])
    back = lambda: node.op.pull_back(arrived, node.saved, node.parents)
    definition = lambda: tinygen.grad(defined, leaves, g, retain_graph=True)
    yield Case(f"{name}, backward", peak, amounts[1], back, other_back, counts[1], definition)


# -- measuring ---------------------------------------------------------------------------------------------------------

FAMILIES = [convolutions, one_pass, moved]


@functools.cache
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
    wanted = (case.peak, "sgemm 1024") if case.instructions else case.peak
    amounts = {name: run for name, run in peaks().items() if name.startswith(wanted)}
    definition = case.definition or dispatch.definitions_only()(case.tinygen)
    runs = {"tinygen": case.tinygen, "definition": definition}
    if case.torch:
        runs["PyTorch"] = case.torch
    times = harness.take_turns(runs | {name: run for name, (_, run) in amounts.items()}, rounds, seconds=0.05)
    table = harness.summary(times, "tinygen")
    best = lambda kind: max(n / table[name]["median"] for name, (n, _) in amounts.items() if name.startswith(kind))
    took, peak = table["tinygen"]["median"], best(case.peak)
    row = {"ms": took, "amount": case.amount, "peak": case.peak, "rate": case.amount / took / 1e6}
    row["share"] = case.amount / took / peak
    if case.instructions:
        row |= {"instructions": case.instructions, "instruction_rate": best("sgemm") / 2e6}
        row["of_limit"] = max(case.amount / peak, case.instructions / (best("sgemm") / 2)) / took
    return row | {name: table[name]["ratio"] for name in ("definition", "PyTorch") if name in table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--family", choices=[family.__name__ for family in FAMILIES], help="only these cases")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        torch = print("PyTorch is not installed: left out.")
    ops.conv2d(normal(1, 4, 4, 2), normal(3, 3, 2, 2))  # loads the kernels' BLAS, so that its threads are limited too
    harness.limit_threads(options.threads)
    runtime.keep_freed_memory()
    print(harness.described(harness.machine() | {"threads": options.threads}), "\n")
    head = f"{'':40}{'ms':>9}{'G/s':>8}{'of peak':>16}{'of limit':>10}{'definition':>12}{'PyTorch':>9}"
    print(head, "  times tinygen's", flush=True)
    rows = {}
    for family in FAMILIES if options.family is None else [globals()[options.family]]:
        for case in family(torch):
            if options.only not in case.name:
                continue
            rows[case.name] = row = measure(case, options.rounds)
            ratios = f"{row['definition']:12.2f}" + (f"{row['PyTorch']:9.2f}" if "PyTorch" in row else "")
            part = f"{row['share']:.0%} of {row['peak']}"
            limit = f"{row['of_limit']:10.0%}" if "of_limit" in row else 10 * " "
            print(f"{case.name:40}{row['ms']:9.3f}{row['rate']:8.1f}{part:>16}{limit}{ratios}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": harness.machine(), "kernels": rows}, indent=2))


if __name__ == "__main__":
    main()
