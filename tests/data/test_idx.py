"""IDX files: what is written is read back, and anything else is rejected."""

from collections.abc import Callable

import numpy as np
import pytest

from fashion.data.idx import read_idx, write_idx
from fashion.data.manifest import DataError


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (2, 3, 4, 3), (0, 3, 3)])
def test_written_array_is_read_back(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(read_idx(write_idx(values), "x"), values)


@pytest.mark.parametrize("content", [b"", b"\x89PNG....", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\0"])
def test_other_files_are_rejected(content: bytes) -> None:
    with pytest.raises(DataError, match="labels is not an IDX file"):
        read_idx(content, "labels")


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: c[:9]])
def test_wrong_lengths_are_rejected(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DataError, match="labels has"):
        read_idx(change(write_idx(np.zeros((3, 2), np.uint8))), "labels")
