"""Dropout: y_i = x_i / (1 - rate) where u_i >= rate, else 0, with u_i the i-th number of a random stream.

The stream is NumPy's Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2: four words of
64 bits, ten rounds), bit for bit: `tinygen.random.uniform_at` draws the same u. Block b of the stream is a function of
the key and of b alone, so threads begin wherever they like, and nothing of a mask is kept for the backward pass.

Memory: x is read and y written, 8 bytes an element; the random numbers exist in registers only. Operations: 20 products
of 64 bits for 8 elements, which is what binds: a core makes one in a cycle.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compiling import kernel
from .elementary import ZERO

uint64 = np.uint64
FIRST, SECOND = uint64(0xD2E7470EE14C6C93), uint64(0xCA5A826395121157)      # the factors of a round
STEP_1, STEP_2 = uint64(0x9E3779B97F4A7C15), uint64(0xBB67AE8584CAA73B)     # what a round adds to the key
LOW, HALF, BYTE = uint64(0xFFFFFFFF), uint64(32), uint64(8)


@intrinsic
def high(context, a, b):
    """The upper 64 bits of the product of two words."""

    def generate(context, builder, signature, words):
        wide = [builder.zext(word, ir.IntType(128)) for word in words]
        product = builder.lshr(builder.mul(*wide), ir.Constant(ir.IntType(128), 64))
        return builder.trunc(product, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@kernel
def philox(block, counter, seed):
    """The four words of a block, which is the number (block, 0, 0, counter) scrambled with the key (seed, 0)."""
    a, b, c, d, k, l = block, uint64(0), uint64(0), counter, seed, uint64(0)
    for _ in range(10):
        a, b, c, d = high(SECOND, c) ^ b ^ k, SECOND * c, high(FIRST, a) ^ d ^ l, FIRST * a
        k, l = k + STEP_1, l + STEP_2
    return a, b, c, d


@kernel
def dropout_forward(x, first, seed, counter, least, scale, out):
    """x, out: (elements,) float32, which begin at block `first` of the stream; seed, counter: uint64.

    Kept are the elements whose 24 random bits, as an integer, are `least` or more; they are multiplied by `scale`.
    """
    for start in range(0, x.size, 8):
        words = philox(uint64(first + start // 8 + 1), counter, seed)        # NumPy counts before it draws
        for j in range(min(8, x.size - start)):
            word = words[j // 2]
            bits = (word >> HALF if j % 2 else word & LOW) >> BYTE
            out[start + j] = x[start + j] * scale if bits >= least else ZERO
