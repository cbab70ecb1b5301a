"""A transformer over pixels: each drawn in reading order from all that came before it, wherever they lie.

The factors are those of the PixelCNN, p(x|h) = prod_i p(x_i | x_1, ..., x_{i-1}, h); what gives them is a GPT, for
which an image is a sequence of words "black" and "white" after a first word, the class (Parmar et al. 2018, "Image
transformer"; Chen et al. 2020, "Generative pretraining from pixels"). It is not told that pixel i + 28 lies under pixel
i: it learns where pixels are from images alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.errors import InputError
from tinygen.nn import GPT, Module
from tinygen.random import Generator
from tinygen.tensor import Tensor

BLACK, WHITE = 0, 1


class PixelTransformer(Module):
    """A distribution over binary images x (N, *shape), as floats 0 and 1, for images of one shape.

    width, heads, layers, dropout: of the `GPT`
    classes: how many there are; with any, every call needs labels, integers (N,)
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 64,
        heads: int = 4,
        layers: int = 4,
        classes: int = 0,
        dropout: float = 0.0,
        *,
        rng: Generator,
    ):
        self.shape, self.classes, self.pixels = tuple(shape), classes, int(np.prod(shape))
        words = 2 + max(classes, 1)  # black, white, and a first word for each class
        self.gpt = GPT(words, self.pixels, width, heads, layers, dropout=dropout, rng=rng)

    # -- the density -----------------------------------------------------------------------------------------------

    def logits(self, x: Any, labels: Any = None) -> Tensor:
        """Log-odds of each pixel given those before it, (N, *shape). Of pixel i: without x_i, x_i+1, ..."""
        before = np.concatenate([self._first_word(len(x), labels), self._words(x)[:, :-1]], axis=1)
        return self._log_odds(self.gpt(before)).reshape(x.shape)

    def log_prob(self, x: Any, labels: Any = None) -> Tensor:
        """log p(x|h) in nats, (N,): exact."""
        nats = ops.binary_cross_entropy_with_logits(self.logits(x, labels), x)
        return -ops.sum(nats.reshape(len(x), self.pixels), axis=1)

    def loss(self, x: Any, labels: Any = None) -> Tensor:
        """What training lowers: -log p(x|h), averaged over images."""
        return -ops.mean(self.log_prob(x, labels))

    # -- sampling --------------------------------------------------------------------------------------------------

    def sample(self, x: Any, rng: Generator, labels: Any = None, start: int = 0) -> np.ndarray:
        """Images like x (N, *shape), drawn from pixel `start` on in reading order; before it they are x.

        Returns float32 0 and 1. The keys and values of the pixels before are kept, not computed again. Call `eval()`
        before, if the model has dropout.
        """
        words, cache = self._words(x), self.gpt.new_cache()
        new = np.concatenate([self._first_word(len(words), labels), words[:, :start]], axis=1)
        with no_grad():
            for i in range(start, self.pixels):
                p = ops.sigmoid(self._log_odds(self.gpt(new, cache=cache)).numpy()[:, -1])
                words[:, i] = rng.uniform(p.shape) < p
                new = words[:, i : i + 1]
        return words.reshape(len(words), *self.shape).astype(np.float32)

    # -- words -----------------------------------------------------------------------------------------------------

    def _words(self, x: Any) -> np.ndarray:
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"PixelTransformer: made for images of shape {self.shape}, not {tuple(x.shape[1:])}.")
        return np.where(np.asarray(x).reshape(len(x), self.pixels) > 0, WHITE, BLACK)

    def _first_word(self, n: int, labels: Any) -> np.ndarray:
        if (labels is None) != (self.classes == 0):
            given = "no labels were given" if labels is None else "labels were given"
            raise InputError(f"PixelTransformer: made for {self.classes} classes, but {given}.")
        return np.full((n, 1), 2) if labels is None else 2 + np.asarray(labels).reshape(n, 1)

    def _log_odds(self, scores: Tensor) -> Tensor:
        """Of white against black, from a score for each word; a first word cannot come again."""
        return scores[..., WHITE] - scores[..., BLACK]
