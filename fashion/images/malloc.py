"""When the C library gives freed memory back to the system. Knows no pictures and no tensors.

glibc learns from the sizes that a program frees what to keep, which suits neither a training, whose tensors come again
at each step, nor a service, where a large picture is rare. Other C libraries than glibc are left alone.
"""

import contextlib
import ctypes
import os

LARGE_BYTES = 2**20
"""Blocks from this size on are returned, where memory is."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3): how much free memory is given back, -1 for none; from which size memory is mapped."""


def keep_freed_memory() -> None:
    """Keep memory that this process frees.

    Returned, the next tensor of its size costs page faults again: thousands in each step of a small network.
    """
    _set({M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: -1})


def return_freed_memory() -> None:
    """Return large blocks as soon as they are freed. MALLOC_MMAP_THRESHOLD_ in the environment comes first."""
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        _set({M_MMAP_THRESHOLD: LARGE_BYTES})


def _set(values: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in values.items():
            library.mallopt(parameter, value)
