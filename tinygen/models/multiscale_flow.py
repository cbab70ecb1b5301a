"""A flow of images: couplings of convolutions, at two scales and more (Dinh et al. 2017; Kingma & Dhariwal 2018).

A flow has as many latent numbers as the image has pixels, and would drag all of them through all of its layers. A
multiscale one trades pixels for channels, lets half of them go as finished noise, and works on with the other half,
whose windows now see twice as far (Dinh et al. 2017, sec. 3.5, fig. 4b):

    squeeze        (H, W, C) -> (H/2, W/2, 4 C)             squares of 2 x 2 pixels become channels
    steps          actnorm, 1x1 convolution, coupling       as in Glow, but with splines for the coupling
    split          half of the channels are noise; the other half goes on

Pixels are whole numbers, to which a density could give any likelihood, by spikes. So they are made continuous first
(`tinygen.data.dequantise`), and then spread over the line, where the layers live, by a logit.
"""

from __future__ import annotations

import math
from typing import Any

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.models.flow import Bijection, Composition, Flow, per_example
from tinygen.models.glow import ActNorm, InvertibleLinear
from tinygen.models.spline import SplineCoupling
from tinygen.nn import Conv2d, Sequential, initialise
from tinygen.random import Generator


class Logit(Bijection):
    """z = logit(a + (1 - 2 a) x): [0, 1] to the line, as far as logit(a) (Dinh et al. 2017, sec. 4.1)."""

    def __init__(self, a: float = 1e-3):
        self.a = a

    def forward(self, x: Any) -> tuple[Any, Any]:
        p = self.a + (1 - 2 * self.a) * x
        log_slope = math.log(1 - 2 * self.a) - ops.log(p) - ops.log1p(-p)
        return ops.log(p) - ops.log1p(-p), per_example(log_slope)

    def inverse(self, z: Any) -> Any:
        return (ops.sigmoid(z) - self.a) / (1 - 2 * self.a)


class Squeeze(Bijection):
    """(N, H, W, C) -> (N, H/2, W/2, 4 C): nothing but a change of order, whose determinant is 1."""

    def forward(self, x: Any) -> tuple[Any, float]:
        n, h, w, c = x.shape
        squares = ops.transpose(ops.reshape(x, (n, h // 2, 2, w // 2, 2, c)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(squares, (n, h // 2, w // 2, 4 * c)), 0.0

    def inverse(self, z: Any) -> Any:
        n, h, w, c = z.shape
        squares = ops.transpose(ops.reshape(z, (n, h, w, 2, 2, c // 4)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(squares, (n, 2 * h, 2 * w, c // 4))


class MultiscaleFlow(Flow):
    """A density over images x (N, H, W, C) in [0, 1], whose noise z has the shape of x.

    A scale begins with a squeeze if its sides are even, then come `steps` steps; after each scale but the last half of
    the channels leave. So 14 x 14 x 1 goes on as 7 x 7 x 4 and, with two scales, as 7 x 7 x 2. Call `initialise` with a
    first batch before training.

    width: channels of the networks in couplings;  bins, bound: of their splines, as in `SplineCoupling`
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        scales: int = 2,
        steps: int = 6,
        width: int = 64,
        bins: int = 8,
        bound: float = 5.0,
        *,
        rng: Generator,
    ):
        h, w, c = shape
        if scales < 1 or steps < 1 or h % 2 or w % 2:
            raise InputError(f"MultiscaleFlow: needs scales, steps, even sides; not {scales}, {steps} and {h} x {w}.")
        self.scales: list[Composition] = []
        for i in range(scales):
            layers: list[Bijection] = [] if i else [Logit()]
            if h % 2 == w % 2 == 0:
                layers.append(Squeeze())
                h, w, c = h // 2, w // 2, 4 * c
            if c < 2:
                raise InputError(f"MultiscaleFlow: scale {i + 1} has one channel left, and nothing to couple it with.")
            for _ in range(steps):
                layers += [ActNorm(c), InvertibleLinear(c, rng=rng), _coupling(c, width, bins, bound, rng)]
            self.scales.append(Composition(layers, (h, w, c)))
            c = c // 2
        self.shape = tuple(shape)

    def forward(self, x: Any) -> tuple[Any, Any]:
        noise, log_det = [], 0.0
        for scale in self.scales:
            x, added = scale(x)
            log_det = log_det + added
            done, x = _split(x) if scale is not self.scales[-1] else (x, None)
            noise.append(ops.reshape(done, (len(done), -1)))
        return ops.reshape(ops.concatenate(noise, axis=1), (len(noise[0]), *self.shape)), log_det

    def inverse(self, z: Any) -> Any:
        z, x = ops.reshape(z, (len(z), -1)), None
        for scale in reversed(self.scales):
            h, w, c = scale.shape
            c = c if x is None else c // 2
            done, z = z[:, z.shape[1] - h * w * c :], z[:, : z.shape[1] - h * w * c]
            done = ops.reshape(done, (len(done), h, w, c))
            x = scale.inverse(done if x is None else ops.concatenate([done, x], axis=-1))
        return x

    def initialise(self, x: Any) -> None:
        with no_grad():
            for scale in self.scales:
                scale.initialise(x)
                x = _split(scale(x)[0])[1]


def _split(x: Any) -> tuple[Any, Any]:
    """The half of the channels that is noise now, and the half that goes on."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _coupling(channels: int, width: int, bins: int, bound: float, rng: Generator) -> SplineCoupling:
    """Half of the channels draw the curves of the other half, by a 3x3, a 1x1 and a 3x3 convolution (Kingma & Dhariwal
    2018, app. B); the last begins as zeros, and so the coupling as the identity."""
    kept = channels // 2
    net = Sequential(
        Conv2d(kept, width, 3, padding=1, rng=rng),
        ops.silu,
        Conv2d(width, width, 1, rng=rng),
        ops.silu,
        Conv2d(width, (channels - kept) * (3 * bins - 1), 3, padding=1, rng=rng, weight_init=initialise.zeros),
    )
    return SplineCoupling(net, channels, bins, bound)
