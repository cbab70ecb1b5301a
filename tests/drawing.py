"""A `draw` (see `tinygen.domains`) that hypothesis steers and shrinks."""

import hypothesis.strategies as st
import numpy as np

from tinygen.domains import DrawTools, RandomDraw, real


class HypothesisDraw(DrawTools):
    """Sizes and choices are hypothesis' own; array contents come from a seed that hypothesis draws."""

    def __init__(self, data):
        self.data = data

    def integer(self, low, high):
        return self.data.draw(st.integers(low, high))

    def choice(self, options):
        return options[self.integer(0, len(options) - 1)]

    def _random(self):
        return RandomDraw(np.random.default_rng(self.data.draw(st.integers(0, 2**32 - 1))))

    def array(self, shape, domain=real):
        return self._random().array(shape, domain)

    def integers(self, shape, high, low=0):
        return self._random().integers(shape, high, low)

    def distinct(self, shape):
        return self._random().distinct(shape)
