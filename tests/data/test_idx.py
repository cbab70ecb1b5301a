import gzip
import zlib

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data.idx import read_idx
from tinygen.errors import InputError

arrays = hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=6))


def idx(array, kind=8):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


@given(arrays)
def test_what_was_written_is_read(array):
    np.testing.assert_array_equal(read_idx(gzip.compress(idx(array)), array.shape), array)


@given(arrays, st.data())
def test_a_file_cut_anywhere_is_refused(array, data):
    whole = gzip.compress(idx(array))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="IDX file"):
        read_idx(whole[:cut], array.shape)


@given(arrays, st.data())
def test_a_flipped_bit_gives_an_error_or_the_same_array(array, data):
    """The checksum finds any change of the contents; what it does not cover (a time stamp, say) does no harm."""
    damaged = bytearray(gzip.compress(idx(array)))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        read = read_idx(bytes(damaged), array.shape)
    except InputError:
        return
    np.testing.assert_array_equal(read, array)


square = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize(
    "contents, message",
    [
        (gzip.compress(idx(square, kind=9)), "header .* not 00000902"),
        (gzip.compress(idx(square.reshape(4, 1))), "header .* not 000008020000000400000001"),
        (gzip.compress(idx(square) + b"x"), "must unpack to 16 bytes, not more than 16"),
        (gzip.compress(idx(square)) + b"xy", "2 bytes too many"),
        (gzip.compress(idx(square)) * 2, "bytes too many"),
        (idx(square), "cannot be unpacked"),
        (zlib.compress(idx(square)), "cannot be unpacked"),
        (b"", "not 0, cut short"),
    ],
    ids=["kind", "shape", "longer", "trailing", "twice", "not packed", "not gzip", "empty"],
)
def test_anything_but_the_array_of_that_shape_is_refused(contents, message):
    with pytest.raises(InputError, match=message):
        read_idx(contents, (2, 2))


def test_a_zip_bomb_is_stopped_one_byte_behind_the_expected_size():
    import tracemalloc

    bomb = gzip.compress(bytes(64 * 2**20))
    tracemalloc.start()
    with pytest.raises(InputError, match="not more than 16"):
        read_idx(bomb, (2, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
