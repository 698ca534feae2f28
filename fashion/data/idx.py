"""Read and write IDX files of unsigned bytes or 16-bit integers. Knows the format, not what the values mean."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.data.manifest import DataError

TYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype(np.uint8), 0x0B: np.dtype(">i2")}
"""Type byte of the format -> values: labels of more than 256 classes need the second."""


def read_idx(content: bytes, name: str) -> NDArray[Any]:
    """Parse an IDX file: a magic number, the sizes as big-endian 32-bit integers, then the values.

    Args:
        content: the file's bytes.
        name: the file's name, for error messages.

    Returns:
        The values in their shape, read-only.

    Raises:
        DataError: the content is not an IDX file of one of `TYPES`, or has too few or too many values.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or content[3] == 0:
        raise DataError(f"{name} is not an IDX file of unsigned bytes: it starts with {content[:4].hex(' ')}")
    start, kind = 4 + 4 * content[3], TYPES[content[2]]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if len(content) - start != math.prod(shape) * kind.itemsize:
        raise DataError(f"{name} has {len(content) - start:,} bytes after its header, not the product of {shape}")
    values: NDArray[Any] = np.frombuffer(content, kind, offset=start).reshape(shape)
    return values


def write_idx(values: NDArray[Any]) -> bytes:
    """Return an array of unsigned bytes, or of integers below 2**15, as the content of an IDX file."""
    code = 0x08 if values.dtype == np.uint8 else 0x0B
    sizes = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, code, values.ndim]) + sizes + values.astype(TYPES[code]).tobytes()
