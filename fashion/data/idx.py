"""IDX files of unsigned bytes. Knows the format, not what is in it."""

import math

import numpy as np
from numpy.typing import NDArray

from fashion.data.manifest import DataError


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Parse an IDX file of unsigned bytes: a magic number, the sizes as big-endian 32 bit, then the values.

    Raises:
        DataError: it is not one.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] == 0:
        raise DataError(f"{name} is not an IDX file of unsigned bytes: it starts with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name} has {len(content) - start:,} values after its header, not the product of {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(values: NDArray[np.uint8]) -> bytes:
    """Write an array of unsigned bytes as an IDX file."""
    return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
