"""Work on many pictures in threads: Pillow decodes outside of Python's lock. Knows no pictures."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 16
"""Each may hold a picture of 50 million pixels."""


def num_cores() -> int:
    """Processors that this process may use, or, where the system does not tell (macOS), that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply a function to each item, in a thread for each core, `MAX_THREADS` at most, and yield the results in order.

    Args:
        function: what it raises is raised here.
        items: all are taken at once, and results wait for who takes them.
    """
    with ThreadPoolExecutor(min(MAX_THREADS, num_cores())) as pool:
        yield from pool.map(function, items)
