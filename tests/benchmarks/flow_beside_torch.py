"""The multiscale flow of `demos/flow_digits.py`, trained by tinygen and by PyTorch from the same weights on the same
batches: bits per pixel of held-out digits.

    python -m pip install torch==2.13.0
    python tests/benchmarks/flow_beside_torch.py [--steps 300]

Two programs that are equal but for rounding drift apart as they train. So the figures agree to the noise of training,
not to that of float32; the first loss agrees to the latter.
"""

from __future__ import annotations

import argparse

import harness

harness.unpin()
harness.use_this_clone()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402
from workloads.spline_flow import spline_in_torch  # noqa: E402

from tinygen import no_grad, optim  # noqa: E402
from tinygen.data import Batches, bits_per_dimension, dequantise, digits  # noqa: E402
from tinygen.models import MultiscaleFlow  # noqa: E402
from tinygen.models.spline import UNIT_SLOPE  # noqa: E402
from tinygen.random import Generator  # noqa: E402
from tinygen.runtime import tuned  # noqa: E402

PIXELS, BATCH, LR, LONGEST = 14 * 14, 64, 2e-3, 100.0


class Peer:
    """The flow in PyTorch's functions, on weights by tinygen's names. Images are (N, H, W, C) as in tinygen."""

    def __init__(self, model: MultiscaleFlow):
        self.layers = [list(scale.layers) for scale in model.scales]
        self.p = {name: torch.tensor(np.array(w)) for name, w in model.state_dict().items()}
        self.trained = [self.p[name].requires_grad_() for name, _ in model.named_parameters()]

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        noise, log_det = [], 0.0
        for i, layers in enumerate(self.layers):
            for j, layer in enumerate(layers):
                x, added = getattr(self, type(layer).__name__)(layer, f"scales.{i}.layers.{j}", x)
                log_det = log_det + added
            done, x = (x, None) if i + 1 == len(self.layers) else x.chunk(2, -1)
            noise.append(done.flatten(1))
        z = torch.cat(noise, 1)
        return log_det - 0.5 * (z.square() + np.log(2 * np.pi)).sum(1)

    def Logit(self, layer, name, x):
        p = layer.a + (1 - 2 * layer.a) * x
        both = torch.log(p) + torch.log1p(-p)
        return torch.logit(p), (np.log(1 - 2 * layer.a) - both).flatten(1).sum(1)

    def Squeeze(self, layer, name, x):
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c), 0.0

    def ActNorm(self, layer, name, x):
        log_s = self.p[f"{name}.log_s"]
        return x * log_s.exp() + self.p[f"{name}.b"], x.shape[1] * x.shape[2] * log_s.sum()

    def InvertibleLinear(self, layer, name, x):
        p, sign, lower, upper, log_s = (self.p[f"{name}.{w}"] for w in ("p", "sign", "lower", "upper", "log_s"))
        identity = torch.eye(len(log_s))
        weight = p @ (lower.tril(-1) + identity) @ (upper.triu(1) + torch.diag(sign * log_s.exp()))
        return x @ weight, x.shape[1] * x.shape[2] * log_s.sum()

    def SplineCoupling(self, layer, name, x):
        kept, moved = x[..., : layer.first], x[..., layer.first :]
        h = kept.movedim(-1, 1)
        for k in (0, 2, 4):
            weight, bias = self.p[f"{name}.net.{k}.weight"], self.p[f"{name}.net.{k}.bias"]
            h = functional.conv2d(h, weight.permute(3, 2, 0, 1), bias, padding=weight.shape[0] // 2)
            h = functional.silu(h) if k < 4 else h
        widths, heights, slopes = h.movedim(1, -1).unflatten(-1, (moved.shape[-1], -1)).tensor_split(
            [layer.bins, 2 * layer.bins], -1
        )
        z, slope = spline_in_torch(
            torch, functional, moved[..., None], widths, heights, slopes + UNIT_SLOPE, bound=layer.bound
        )
        return torch.cat([kept, z[..., 0]], -1), slope.flatten(1).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    rng, data = Generator(0), digits(14)
    model = MultiscaleFlow((14, 14, 1), scales=2, steps=6, width=48, rng=rng)
    model.initialise(dequantise(data.train.images[:512], rng))
    peer, held_out = Peer(model), dequantise(data.held_out.images, rng)
    batches, schedule = Batches(data.train.images, size=BATCH, rng=rng), optim.cosine(steps, warmup=steps // 20)
    ours = optim.Adam(model.parameters(), lr=LR, schedule=schedule)
    theirs = torch.optim.Adam(peer.trained, lr=LR)
    for i in range(steps):
        x = dequantise(next(batches), rng)
        loss = model.loss(x)
        loss.backward()
        optim.clip_grad_norm(ours.params, LONGEST)
        ours.step()
        ours.zero_grad()
        value = -peer.log_prob(torch.tensor(x)).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(peer.trained, LONGEST)
        theirs.param_groups[0]["lr"] = LR * schedule(i)
        theirs.step()
        theirs.zero_grad()
        if i == 0 or i % 50 == 49:
            print(f"step {i + 1}: loss {loss.item():.4f} in tinygen, {value.item():.4f} in PyTorch", flush=True)
    parts = np.split(held_out, 10)
    with no_grad(), torch.no_grad():
        found = {
            "tinygen": np.mean([model.log_prob(part).numpy().mean() for part in parts]),
            "PyTorch": np.mean([peer.log_prob(torch.tensor(part)).mean().item() for part in parts]),
        }
    for library, log_p in found.items():
        print(f"{library}: {float(bits_per_dimension(log_p, PIXELS)):.4f} bits per pixel on held-out digits")


if __name__ == "__main__":
    with tuned():
        main()
