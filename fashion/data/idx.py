"""Read and write IDX files of unsigned bytes. Knows the format, not what the values mean."""

import math

import numpy as np
from numpy.typing import NDArray

from fashion.data.manifest import DataError


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Parse an IDX file: a magic number, the sizes as big-endian 32-bit integers, then the values.

    Args:
        content: the file's bytes.
        name: the file's name, for error messages.

    Returns:
        The values in their shape, read-only.

    Raises:
        DataError: the content is not an IDX file of unsigned bytes, or has too few or too many values.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or content[3] == 0:
        raise DataError(f"{name} is not an IDX file of unsigned bytes: it starts with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name} has {len(content) - start:,} values after its header, not the product of {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(values: NDArray[np.uint8]) -> bytes:
    """Return an array of unsigned bytes as the content of an IDX file."""
    return b"\0\0\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
