"""Decode uploads and prepare them for the network, within the memory that is left for it. Knows no requests."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bentos.web.memory import Memory
from fashion.images import preparation
from fashion.images.errors import BadPicture, too_large
from fashion.images.memory import decoding_bytes
from fashion.images.preparation import PreparedImage
from fashion.model.package import Package

SMALL_BYTES = 2560
"""Uploads up to this are decoded in the event loop: for a 28x28 colour BMP, a thread would take longer."""
SMALL_PIXELS = 65_536
"""They must also have no more pixels than this: a few bytes can hold a large picture of one colour."""
FREE_PIXELS = 1_000_000
"""Pictures with more pixels wait until there is memory to decode them; for two of this size there always is."""
DECODERS = 2
"""Threads that decode larger pictures and draw heat maps."""

T = TypeVar("T")


class _TooLargeHere(Exception):
    """A picture with more pixels than are decoded at this place."""


class Decoder:
    """Prepares pictures for one model."""

    def __init__(self, of: Package, *, max_pixels: int, memory: Memory) -> None:
        """Start the threads.

        Args:
            of: the model's package: its size, channels and preparation.
            max_pixels: of a picture, width times height.
            memory: what pictures above FREE_PIXELS wait for.
        """
        self._of, self._max_pixels, self._memory = of, max_pixels, memory
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="pictures")

    def close(self) -> None:
        """Finish what was begun, and end the threads."""
        self._pool.shutdown()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def decode(self, data: bytes) -> PreparedImage:
        """Decode a picture and prepare it for the network: here if it is small, else in a thread.

        Args:
            data: the bytes of the picture's file.

        Raises:
            BadPicture: it cannot be read, or is too large.
            bentos.web.responses.ApiError: there was no memory for it in time.
        """
        limit = self._max_pixels
        with contextlib.suppress(_TooLargeHere):
            if len(data) <= SMALL_BYTES:
                return self._prepare_if(data, min(limit, SMALL_PIXELS))
        with contextlib.suppress(_TooLargeHere):
            return await self.run(self._prepare_if, data, min(limit, FREE_PIXELS))
        needed = await self.run(decoding_bytes, data, limit)
        if needed > self._memory.capacity:
            raise too_large(
                f"the picture needs about {needed / 1e6:,.0f} MB while it is decoded, more than the "
                f"{self._memory.capacity / 1e6:,.0f} MB allowed"
            )
        async with self._memory.reserved(needed):
            return await self.run(self._prepare_now, data, limit)

    def _prepare_if(self, data: bytes, max_pixels: int) -> PreparedImage:
        """Prepare a picture.

        Raises:
            _TooLargeHere: it has too many pixels to be decoded like this.
        """
        try:
            return self._prepare_now(data, max_pixels)
        except BadPicture as error:
            if error.code == "too_large":
                raise _TooLargeHere from None
            raise

    def _prepare_now(self, data: bytes, max_pixels: int) -> PreparedImage:
        of = self._of
        return preparation.prepare(
            data, size=of.size, channels=of.channels, preparation=of.preparation, max_pixels=max_pixels
        )
