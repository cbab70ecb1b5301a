"""One training step of whole models, tinygen beside PyTorch eager: the same model, weights and data in both, in turns.

    python -m pip install torch==2.13.0
    python tests/benchmarks/train_steps.py [--peers torch] [--only 1,4] [--threads 2] [--json FILE]

    1  toy diffusion: MLP 66-128-128-128-2, SiLU, batch 256, Adam
    2  VAE 784-400-20 of perceptrons with ReLU, batch 128, Adam
    3  diffusion of images: U-Net of 775,441 parameters on (64, 28, 28, 1), Adam and a moving average of the weights
    4  GPT: 4 layers, width 128, 4 heads, 64 tokens, vocabulary 128, batch 64, AdamW
    6  WGAN-GP: a critic of two convolutions on (64, 28, 28, 1), with the gradient penalty (second derivatives), Adam
    8  RealNVP on points of the plane: 16 couplings with perceptrons of width 128, batch 512, Adam

A step is forward, backward, the optimiser and zero_grad. Data and noise are drawn beforehand, the same for both, so
random numbers are not part of it. All is float32, with the same number of threads. A workload is first run for 20 steps
in both libraries: a loss or a weight that differs by more than 1e-3 (of 1, or of the number where that is larger)
refuses the comparison. PyTorch gets its own layouts and its own way to write a model: images (N, C, H, W), queries,
keys and values by one Linear, its fused attention.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import harness

harness.unpin()
harness.use_this_clone()

import numpy as np  # noqa: E402

from tinygen import grad, nn, ops, optim, tensor  # noqa: E402
from tinygen.nn import initialise  # noqa: E402
from tinygen.random import Generator  # noqa: E402

STEPS, TOLERANCE, BATCHES = 20, 1e-3, 4


class Workload(NamedTuple):
    """A model and its loss, in tinygen's ops and in PyTorch's functions.

    model:   seed -> a Module
    batches: rng -> the arrays that one step is given
    loss:    (model, *arrays) -> Tensor
    peer:    (torch, parameters in PyTorch's layout by tinygen's names, *tensors) -> torch tensor
    optimiser: "Adam" or "AdamW";  lr: its learning rate;  ema: whether an average of the weights is kept
    """

    title: str
    model: Callable
    batches: Callable
    loss: Callable
    peer: Callable
    optimiser: str = "Adam"
    lr: float = 1e-3
    ema: bool = False


# -- tinygen -----------------------------------------------------------------------------------------------------------


def with_tinygen(work: Workload) -> tuple[Callable, Callable]:
    """A function that makes one step and returns the loss, and one that returns the weights by name."""
    model = work.model(Generator(0))
    optimiser = getattr(optim, work.optimiser)(model.parameters(), lr=work.lr)
    ema = optim.EMA(model, decay=0.999) if work.ema else None
    data = cycle([work.batches(Generator(1 + i)) for i in range(BATCHES)])

    def step():
        loss = work.loss(model, *next(data))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if ema is not None:
            ema.update()
        return loss

    return step, lambda: {name: p.numpy().copy() for name, p in model.named_parameters()}


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def with_torch(work: Workload) -> tuple[Callable, Callable]:
    torch = importlib.import_module("torch")
    weights = {name: p.numpy() for name, p in work.model(Generator(0)).named_parameters()}
    p = {name: torch.tensor(_turn(name, w), requires_grad=True) for name, w in weights.items()}
    how = {"weight_decay": 0.01} if work.optimiser == "AdamW" else {}
    optimiser = getattr(torch.optim, work.optimiser)(list(p.values()), lr=work.lr, **how)
    averages = [w.detach().clone() for w in p.values()] if work.ema else []
    data = cycle([[torch.tensor(a) for a in work.batches(Generator(1 + i))] for i in range(BATCHES)])
    updates = 0

    def step():
        nonlocal updates
        loss = work.peer(torch, p, *next(data))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if averages:
            with torch.no_grad():
                torch._foreach_lerp_(averages, list(p.values()), 1 - min(0.999, (1 + updates) / (10 + updates)))
            updates += 1
        return loss

    return step, lambda: {name: _turn(name, w.detach().numpy(), back=True) for name, w in p.items()}


def _turn(name: str, w: np.ndarray, back: bool = False) -> np.ndarray:
    """A weight in PyTorch's layout: Linear (outputs, inputs), convolution (outputs, inputs, KH, KW); or back."""
    if w.ndim == 4:
        return np.ascontiguousarray(w.transpose((2, 3, 1, 0) if back else (3, 2, 0, 1)))
    table = name in ("token.weight", "position.weight")
    return np.ascontiguousarray(w if w.ndim < 2 or table else w.T)


def mlp(torch, p, x, layers, name="", activation="silu"):
    """Linear layers 0, 2, 4, ... of p, whose names begin with `name`, with activations between them."""
    for i in range(layers):
        x = torch.nn.functional.linear(x, p[f"{name}{2 * i}.weight"], p[f"{name}{2 * i}.bias"])
        x = getattr(torch.nn.functional, activation)(x) if i < layers - 1 else x
    return x


# -- 1: toy diffusion --------------------------------------------------------------------------------------------------

TOY = Workload(
    "toy diffusion MLP",
    lambda rng: nn.MLP([66, 128, 128, 128, 2], rng=rng),
    lambda rng: (rng.normal((256, 66)), rng.normal((256, 2))),
    lambda net, x, eps: ops.mean(ops.square(net(x) - eps)),
    lambda torch, p, x, eps: torch.nn.functional.mse_loss(mlp(torch, p, x, 4), eps),
)

# -- 2: VAE ------------------------------------------------------------------------------------------------------------


class TwoPerceptrons(nn.Module):
    def __init__(self, rng: Generator):
        self.encoder = nn.MLP([784, 400, 40], ops.relu, rng=rng)
        self.decoder = nn.MLP([20, 400, 784], ops.relu, rng=rng)


def vae_batch(rng):
    return (rng.uniform((128, 784)) < 0.2).astype(np.float32), rng.normal((128, 20))


def vae_loss(model, x, eps):
    mu, log_sigma = ops.split(0.1 * model.encoder(x), 2, axis=-1)
    logits = model.decoder(mu + ops.exp(log_sigma) * eps)
    reconstruction = ops.binary_cross_entropy_with_logits(logits, x).sum()
    kl = 0.5 * (ops.square(mu) + ops.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum()
    return (reconstruction + kl) / 128


def vae_loss_torch(torch, p, x, eps):
    mu, log_sigma = (0.1 * mlp(torch, p, x, 2, "encoder.", "relu")).chunk(2, -1)
    logits = mlp(torch, p, mu + torch.exp(log_sigma) * eps, 2, "decoder.", "relu")
    reconstruction = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (mu.square() + torch.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum()
    return (reconstruction + kl) / 128


VAE = Workload("MLP VAE", TwoPerceptrons, vae_batch, vae_loss, vae_loss_torch)

# -- 3: U-Net ----------------------------------------------------------------------------------------------------------


def unet_batch(rng):
    return rng.normal((64, 28, 28, 1)), rng.integers(1000, 64).astype(np.float32), rng.normal((64, 28, 28, 1))


class TorchUNet:
    """`nn.UNet` with its default sizes, images (N, C, H, W)."""

    def __init__(self, torch, p):
        self.torch, self.f, self.p = torch, torch.nn.functional, p

    def conv(self, name, x, **how):
        return self.f.conv2d(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], padding=1, **how)

    def linear(self, name, x):
        return self.f.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def norm(self, name, x):
        return self.f.group_norm(x, math.gcd(8, x.shape[1]), self.p[f"{name}.gain"], self.p[f"{name}.bias"])

    def block(self, name, h, c):
        inner = self.conv(f"{name}.conv1", self.f.silu(self.norm(f"{name}.norm1", h)))
        s, b = self.linear(f"{name}.condition", c)[:, :, None, None].chunk(2, 1)
        inner = self.conv(f"{name}.conv2", self.f.silu((1 + s) * self.norm(f"{name}.norm2", inner) + b))
        if f"{name}.skip.weight" in self.p:
            h = self.f.conv2d(h, self.p[f"{name}.skip.weight"][:, :, None, None], self.p[f"{name}.skip.bias"])
        return h + inner

    def attend(self, name, x, heads=4):
        n, c, h, w = x.shape
        rows = self.norm(f"{name}.norm", x).flatten(2).mT
        split = lambda part: self.linear(f"{name}.attention.{part}", rows).unflatten(-1, (heads, -1)).transpose(1, 2)
        out = self.f.scaled_dot_product_attention(*map(split, ("query", "key", "value")))
        return x + self.linear(f"{name}.attention.output", out.transpose(1, 2).flatten(2)).mT.reshape(n, c, h, w)

    def __call__(self, x, t):
        torch, p = self.torch, self.p
        width = p["first.bias"].shape[0]
        rates = torch.exp(-math.log(10_000) / (width // 2) * torch.arange(width // 2))
        waves = torch.cat([torch.sin(t[:, None] * rates), torch.cos(t[:, None] * rates)], 1)
        c = self.f.silu(self.linear("time.2", self.f.silu(self.linear("time.0", waves))))
        h, seen = self.conv("first", x), []
        for level in range(3):
            h = self.block(f"down.{level}.0.residual", h, c)
            seen.append(h)
            h = self.conv(f"halve.{level}", h, stride=2) if level < 2 else h
        h = self.attend("middle.0.attention", self.block("middle.0.residual", h, c))
        h = self.block("middle.1.residual", h, c)
        for level in range(3):
            h = self.block(f"up.{level}.0.residual", torch.cat([h, seen.pop()], 1), c)
            h = self.conv(f"double.{level}", self.f.interpolate(h, scale_factor=2)) if level < 2 else h
        return self.conv("last", self.f.silu(self.norm("norm", h)))


def unet_loss_torch(torch, p, x, t, eps):
    images = lambda a: a.reshape(64, 1, 28, 28)
    return torch.nn.functional.mse_loss(TorchUNet(torch, p)(images(x), t), images(eps))


UNET = Workload(
    "U-Net DDPM",
    lambda rng: nn.UNet(rng=rng),
    unet_batch,
    lambda net, x, t, eps: ops.mean(ops.square(net(x, t) - eps)),
    unet_loss_torch,
    lr=2e-4,
    ema=True,
)

# -- 4: GPT ------------------------------------------------------------------------------------------------------------


def gpt_batch(rng):
    return rng.integers(128, (64, 64)), rng.integers(128, (64, 64))


def gpt_torch(torch, p, x, y):
    f = torch.nn.functional
    linear = lambda name, h: f.linear(h, p[f"{name}.weight"], p[f"{name}.bias"])
    norm = lambda name, h: f.layer_norm(h, (128,), p[f"{name}.gain"], p[f"{name}.bias"])
    h = f.embedding(x, p["token.weight"]) + p["position.weight"]
    for i in range(4):
        name = f"blocks.{i}"
        weight, bias = (
            torch.cat([p[f"{name}.attention.{part}.{kind}"] for part in ("query", "key", "value")])
            for kind in ("weight", "bias")
        )
        q, k, v = f.linear(norm(f"{name}.norm1", h), weight, bias).unflatten(-1, (3, 4, 32)).unbind(2)
        heads = [a.transpose(1, 2) for a in (q, k, v)]
        out = f.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        h = h + linear(f"{name}.attention.output", out)
        h = h + linear(f"{name}.mlp.2", f.gelu(linear(f"{name}.mlp.0", norm(f"{name}.norm3", h))))
    logits = f.linear(norm("norm", h), p["last.weight"])
    return f.cross_entropy(logits.flatten(0, 1), y.flatten())


GPT = Workload(
    "GPT",
    lambda rng: nn.GPT(128, 64, width=128, heads=4, layers=4, rng=rng),
    gpt_batch,
    lambda net, x, y: ops.mean(ops.cross_entropy(net(x), y)),
    gpt_torch,
    "AdamW",
    3e-4,
)

# -- 6: WGAN-GP --------------------------------------------------------------------------------------------------------


class Critic(nn.Module):
    def __init__(self, rng: Generator):
        self.first = nn.Conv2d(1, 64, 4, stride=2, padding=1, rng=rng)
        self.second = nn.Conv2d(64, 128, 4, stride=2, padding=1, rng=rng)
        self.last = nn.Linear(7 * 7 * 128, 1, rng=rng)

    def forward(self, x):
        h = ops.leaky_relu(self.second(ops.leaky_relu(self.first(x), slope=0.2)), slope=0.2)
        return self.last(h.reshape(len(x), -1))


def wgan_batch(rng):
    return rng.normal((64, 28, 28, 1)), rng.normal((64, 28, 28, 1)), rng.uniform((64, 1, 1, 1))


def wgan_loss(critic, real, fake, u):
    """E[f(fake)] - E[f(real)] + 10 E[(|df / dx| - 1)^2], x between the two (Gulrajani et al. 2017, algorithm 1)."""
    x = tensor(u * real + (1 - u) * fake, requires_grad=True)
    slope = grad(critic(x).sum(), x, create_graph=True)
    norm = ops.sqrt(ops.square(slope).sum((1, 2, 3)) + 1e-12)
    return ops.mean(critic(fake)) - ops.mean(critic(real)) + 10 * ops.mean(ops.square(norm - 1))


def wgan_loss_torch(torch, p, *batch):
    f = torch.nn.functional
    real, fake, u = (a.movedim(-1, 1) for a in batch)

    def critic(x):
        h = f.leaky_relu(f.conv2d(x, p["first.weight"], p["first.bias"], 2, 1), 0.2)
        h = f.leaky_relu(f.conv2d(h, p["second.weight"], p["second.bias"], 2, 1), 0.2)
        return f.linear(h.movedim(1, -1).flatten(1), p["last.weight"], p["last.bias"])

    x = (u * real + (1 - u) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = torch.sqrt(slope.square().sum((1, 2, 3)) + 1e-12)
    return critic(fake).mean() - critic(real).mean() + 10 * (norm - 1).square().mean()


WGAN_GP = Workload("WGAN-GP critic", Critic, wgan_batch, wgan_loss, wgan_loss_torch, lr=1e-4)

# -- 8: RealNVP --------------------------------------------------------------------------------------------------------


class Couplings(nn.Module):
    def __init__(self, rng: Generator):
        small = initialise.normal(0.01)
        self.nets = [nn.MLP([1, 128, 128, 2], ops.relu, rng=rng, last_init=small) for _ in range(16)]


def flow_loss(flow, x):
    """-log p(x): each coupling moves and scales one coordinate by what the other says (Dinh et al. 2017, eq. 7)."""
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for net in flow.nets:
        s, t = ops.split(net(a), 2, axis=-1)
        s = ops.tanh(s)
        a, b, log_det = b * ops.exp(s) + t, a, log_det + s
    return ops.mean(0.5 * (ops.square(a) + ops.square(b)) - log_det) + math.log(2 * math.pi)


def flow_loss_torch(torch, p, x):
    a, b, log_det = x[:, :1], x[:, 1:], 0.0
    for i in range(16):
        s, t = mlp(torch, p, a, 3, f"nets.{i}.", "relu").chunk(2, -1)
        s = torch.tanh(s)
        a, b, log_det = b * torch.exp(s) + t, a, log_det + s
    return (0.5 * (a.square() + b.square()) - log_det).mean() + math.log(2 * math.pi)


REALNVP = Workload("RealNVP", Couplings, lambda rng: (rng.normal((512, 2)),), flow_loss, flow_loss_torch, lr=1e-4)

WORKLOADS = {1: TOY, 2: VAE, 3: UNET, 4: GPT, 6: WGAN_GP, 8: REALNVP}
PEERS = {"torch": with_torch}


# -- comparing ---------------------------------------------------------------------------------------------------------


def refuse_unless_equal(title: str, runs: dict[str, tuple[Callable, Callable]]) -> None:
    """20 steps in each library: every loss and every weight must agree."""
    found = {}
    for name, (step, weights) in runs.items():
        losses = [step().item() for _ in range(STEPS)]
        found[name] = {"loss": np.array(losses)} | weights()
    ours = found["tinygen"]
    for name, theirs in found.items():
        for key, value in ours.items():
            error = np.max(np.abs(value - theirs[key]) / np.maximum(1, np.abs(theirs[key])))
            if not error <= TOLERANCE:
                raise SystemExit(f"{title}: after {STEPS} steps {key} differs by {error:.1e} from {name}'s: refused.")


def compare(work: Workload, peers: list[str], rounds: int, threads: int) -> dict[str, Any]:
    runs = {"tinygen": with_tinygen(work)} | {name: PEERS[name](work) for name in peers}
    harness.limit_threads(threads)
    refuse_unless_equal(work.title, runs)
    times = harness.take_turns({name: step for name, (step, _) in runs.items()}, rounds)
    return harness.summary(times, "tinygen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="torch", help=f"of {', '.join(PEERS)}, with commas between")
    parser.add_argument("--only", default=",".join(map(str, WORKLOADS)), help="numbers of workloads")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    peers = [peer for peer in options.peers.split(",") if peer]
    for peer in peers:
        if peer not in PEERS:
            parser.error(f"there is no peer {peer!r}; there are {', '.join(PEERS)}.")
        importlib.import_module(peer)
    harness.limit_threads(options.threads)
    facts = harness.machine() | {"threads": options.threads, "rounds": options.rounds}
    print(harness.described(facts) + f"; {' and '.join(harness.PINS)} unset\n")
    print(f"{'':4}{'workload':22}{'library':10}{'median':>10}{'quartiles':>20}{'over tinygen':>15}   ms per step")
    tables = {}
    for number in map(int, options.only.split(",")):
        work = WORKLOADS[number]
        tables[number] = compare(work, peers, options.rounds, options.threads)
        for name, row in tables[number].items():
            spread = f"{row['low']:.2f} to {row['high']:.2f}"
            print(f"{number:<4}{work.title:22}{name:10}{row['median']:10.2f}{spread:>20}{row['ratio']:15.2f}")
    for peer in peers:
        mean = np.exp(np.mean([np.log(table[peer]["ratio"]) for table in tables.values()]))
        print(f"\ngeometric mean of {peer} over tinygen: {mean:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "workloads": tables}, indent=2))


if __name__ == "__main__":
    main()
