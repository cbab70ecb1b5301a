"""The file format of MNIST: gzip around IDX, a header of big-endian numbers and then plain bytes.

    0 0 8 d | d sizes of 32 bits | the array, last axis fastest            8 stands for uint8, d is the number of axes
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

from tinygen.errors import InputError

__all__ = ["read_idx"]


def read_idx(compressed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of a gzipped IDX file that is known to hold this shape; read-only.

    Since the shape is known, so is every byte of the header and the size of the whole, and no number in the file
    decides how much memory is used. Raises InputError for a file that is anything else, or goes on behind its end.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    contents = _gunzip(compressed, len(header) + math.prod(shape))
    if not contents.startswith(header):
        found = contents[: len(header)].hex()
        raise InputError(f"IDX file: the header of uint8 {shape} is {header.hex()}, not {found}.")
    return np.frombuffer(contents, np.uint8, offset=len(header)).reshape(shape)


def _gunzip(compressed: bytes, size: int) -> bytes:
    """The `size` bytes in one gzip member. A file that would unpack to more is stopped one byte later."""
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: a gzip header and checksum
    try:
        contents = unpack.decompress(compressed, size + 1)
    except zlib.error as error:
        raise InputError(f"IDX file: cannot be unpacked ({error}).") from error
    if len(contents) != size or not unpack.eof:
        found = f"more than {size:,}" if len(contents) > size else f"{len(contents):,}, cut short"
        raise InputError(f"IDX file: must unpack to {size:,} bytes, not {found}.")
    if unpack.unused_data:
        raise InputError(f"IDX file: {len(unpack.unused_data):,} bytes too many behind the end.")
    return contents
