"""The gated PixelCNN: an image drawn pixel by pixel, each from a convolution over the pixels that came before it.

Pixels are put in reading order, and the probability of a binary image is a product of one factor for each, exactly:

    p(x|h) = prod_i p(x_i | x_1, ..., x_{i-1}, h)      (van den Oord et al. 2016b, eq. 1 and 3; h: a class, if any)

As the network that gives all factors is a convolution, one call computes them for a whole image, which is all that
training takes. Drawing takes a call for each pixel; but then only what that pixel adds is computed.

Two stacks of features see the image (sec. 2.2 and fig. 1 there). The vertical stack at (i, j) has seen rows up to i as
wide as its windows reach; the horizontal stack has seen row i up to j, and is told what the vertical stack knows of the
rows above. A single stack of masked convolutions leaves a blind spot, up and to the right, that no depth removes.

    y = tanh(W_f * x + V_f h) s(W_g * x + V_g h)       the gate, eq. 4

Here no convolution has a mask: each has just the window that it may see, and images are shifted instead.

van den Oord, Kalchbrenner, Kavukcuoglu 2016a, "Pixel recurrent neural networks"; van den Oord, Kalchbrenner, Vinyals,
Espeholt, Graves, Kavukcuoglu 2016b, "Conditional image generation with PixelCNN decoders". Drawing from a cache:
Ramachandran et al. 2017, "Fast generation for convolutional autoregressive models".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.nn import Conv2d, Embedding, Linear, Module, initialise
from tinygen.random import Generator
from tinygen.tensor import Tensor


class GatedLayer(Module):
    """One layer of both stacks: v, h (N, H, W, inputs) -> (N, H, W, channels) each.

    size:  of the windows, an odd number. The vertical window is size wide, and reaches from size // 2 rows above down
           to its own row; the horizontal one lies in its row, and ends at its own pixel.
    first: whether v and h are the image itself, which the horizontal window must then not see its own pixel of
    """

    def __init__(self, inputs: int, channels: int, size: int, classes: int, first: bool, *, rng: Generator):
        self.reach, self.first = size // 2, first
        even = initialise.lecun_normal  # a gate is no ReLU: it halves nothing
        self.vertical = Conv2d(
            inputs, 2 * channels, (self.reach + 1, size), padding=(0, self.reach), rng=rng, weight_init=even
        )
        self.horizontal = Conv2d(inputs, 2 * channels, (1, self.reach + (not first)), rng=rng, weight_init=even)
        self.down = Linear(2 * channels, 2 * channels, bias=False, rng=rng, weight_init=even)
        self.out = Linear(channels, channels, rng=rng, weight_init=even)
        self.condition = Embedding(classes, 4 * channels, rng=rng, weight_init=initialise.zeros) if classes else None

    def forward(self, v: Tensor, h: Tensor, labels: Any = None) -> tuple[Tensor, Tensor]:
        v, told = self.next_rows(ops.pad(v, ((0, 0), (self.reach, 0), (0, 0), (0, 0))), labels)
        above = ops.pad(told[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))  # of the row above, whatever it has seen
        if self.first:
            return v, self.next_pixels(ops.pad(h[:, :, :-1], ((0, 0), (0, 0), (self.reach, 0), (0, 0))), above, labels)
        return v, h + self.next_pixels(ops.pad(h, ((0, 0), (0, 0), (self.reach, 0), (0, 0))), above, labels)

    def next_rows(self, rows: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        """Of k + reach rows, what the vertical stack makes of the last k, and what it tells the rows below them."""
        seen = self.vertical(rows)
        return self._gate(seen, labels, 0), self.down(seen)

    def next_pixels(self, pixels: Tensor, above: Tensor, labels: Any) -> Tensor:
        """Of the pixels that the windows lie on, and of what is known from above, what the horizontal stack adds."""
        return self.out(self._gate(self.horizontal(pixels) + above, labels, 1))

    def _gate(self, x: Tensor, labels: Any, stack: int) -> Tensor:
        if self.condition is not None:
            x = x + ops.split(self.condition(labels), 2, axis=-1)[stack][:, None, None]
        return ops.tanh_gate(x)


class PixelCNN(Module):
    """A distribution over binary images x (N, H, W, 1) of any size, as floats 0 and 1.

    layers, channels: of the two stacks; the horizontal one hands its input on (fig. 2 of 2016b)
    size:             of the windows; those of the first layer are size + 2
    classes:          how many there are; with any, every call needs labels, integers (N,)
    """

    def __init__(self, channels: int = 32, layers: int = 6, size: int = 3, classes: int = 0, *, rng: Generator):
        if layers < 1 or size < 3 or size % 2 == 0:
            raise InputError(f"PixelCNN: needs a layer and windows of odd size from 3 on, not {layers} and {size}.")
        self.classes = classes
        self.layers = [GatedLayer(1, channels, size + 2, classes, first=True, rng=rng)]
        self.layers += [GatedLayer(channels, channels, size, classes, first=False, rng=rng) for _ in range(layers - 1)]
        self.hidden = Linear(channels, channels, rng=rng)
        self.last = Linear(channels, 1, rng=rng, weight_init=initialise.zeros)

    # -- the density -----------------------------------------------------------------------------------------------

    def logits(self, x: Any, labels: Any = None) -> Tensor:
        """Log-odds of each pixel given those before it, (N, H, W, 1). Of pixel i: without x_i, x_i+1, ..."""
        self._check(labels)
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h, labels)
        return self._head(h)

    def log_prob(self, x: Any, labels: Any = None) -> Tensor:
        """log p(x|h) in nats, (N,): exact."""
        return -ops.sum(ops.binary_cross_entropy_with_logits(self.logits(x, labels), x), axis=(1, 2, 3))

    def loss(self, x: Any, labels: Any = None) -> Tensor:
        """What training lowers: -log p(x|h), averaged over images."""
        return -ops.mean(self.log_prob(x, labels))

    # -- sampling --------------------------------------------------------------------------------------------------

    def sample(self, x: Any, rng: Generator, labels: Any = None, start: int = 0) -> np.ndarray:
        """Images like x (N, H, W, 1), drawn from pixel `start` on in reading order; before it they are x.

        Returns float32 0 and 1. When row i begins, the vertical stack has its row i - 1 computed; each pixel then adds
        one column to every layer of the horizontal stack. Nothing is computed twice, so that all pixels together cost
        about as much as one call of `logits`.
        """
        self._check(labels)
        x = np.array(x, np.float32)
        x.reshape(len(x), -1)[:, start:] = 0
        first = start // x.shape[2]
        with no_grad():
            rows = self._rows(x, labels)
            for i in range(x.shape[1]):
                above = self._row_ends(rows, i, labels)
                if i >= first:
                    self._draw_row(x[:, i : i + 1], above, start - i * x.shape[2], rng, labels)
                rows[0][:, i + self.layers[0].reach] = x[:, i]
        return x

    def _rows(self, x: np.ndarray, labels: Any) -> list[np.ndarray]:
        """For each layer room for the vertical stack's input, under as many rows of zeros as its window reaches up."""
        n, height, width, _ = x.shape
        inputs = [layer.vertical.weight.shape[2] for layer in self.layers]
        return [np.zeros((n, layer.reach + height, width, c), np.float32) for layer, c in zip(self.layers, inputs)]

    def _row_ends(self, rows: list[np.ndarray], i: int, labels: Any) -> list[np.ndarray]:
        """Completes row i - 1 of every layer of the vertical stack; what each tells row i, (N, 1, W, 2 channels)."""
        told = []
        for k, layer in enumerate(self.layers):
            if i == 0:
                n, _, width, _ = rows[k].shape
                told.append(np.zeros((n, 1, width, layer.down.weight.shape[1]), np.float32))
                continue
            v, above = layer.next_rows(rows[k][:, i - 1 : i + layer.reach], labels)
            told.append(above.numpy())
            if k + 1 < len(rows):
                rows[k + 1][:, i - 1 + self.layers[k + 1].reach] = v.numpy()[:, 0]
        return told

    def _draw_row(self, row: np.ndarray, above: list, start: int, rng: Generator, labels: Any) -> None:
        """Draws the pixels of a row (N, 1, W, 1) in place, from column `start` on."""
        n, _, width, _ = row.shape
        inputs = [layer.horizontal.weight.shape[2] for layer in self.layers]
        seen = [np.zeros((n, 1, layer.reach + width, c), np.float32) for layer, c in zip(self.layers, inputs)]
        for j in range(width):
            for k, layer in enumerate(self.layers):
                window = seen[k][:, :, j : j + layer.reach + (not layer.first)]
                h = layer.next_pixels(window, above[k][:, :, j : j + 1], labels).numpy()
                h = h if layer.first else h + window[:, :, -1:]
                if k + 1 < len(seen):
                    seen[k + 1][:, :, j + self.layers[k + 1].reach] = h[:, :, 0]
            if j >= start:
                p = ops.sigmoid(self._head(h).numpy()[:, :, 0])
                row[:, :, j] = rng.uniform(p.shape) < p
            seen[0][:, :, j + self.layers[0].reach] = row[:, :, j]

    def _head(self, h: Any) -> Tensor:
        return self.last(ops.relu(self.hidden(ops.relu(h))))

    def _check(self, labels: Any) -> None:
        if (labels is None) != (self.classes == 0):
            given = "no labels were given" if labels is None else "labels were given"
            raise InputError(f"PixelCNN: made for {self.classes} classes, but {given}.")
