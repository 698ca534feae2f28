"""A bound on bytes that requests hold at the same time: who does not fit waits, first come, first served."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from bentos.web.responses import ApiError

WAIT_SECONDS = 5.0
"""How long a request waits for memory before it is sent away."""
MOST_WAITING = 64
"""Requests that may wait at once: what they have already sent takes memory too. More are sent away at once."""
RETRY_SECONDS = 2
"""When a client that was sent away should try again."""


class Memory:
    """A number of bytes, of which requests of one event loop reserve some for a while."""

    def __init__(self, capacity: int) -> None:
        """
        Args:
            capacity: bytes that may be reserved at the same time.
        """
        self.capacity = self.free = capacity
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, num_bytes: int, seconds: float = WAIT_SECONDS) -> int:
        """Reserve bytes, until `release`, and return their number: at most the capacity.

        Args:
            num_bytes: to reserve.
            seconds: longest time to wait for them.

        Raises:
            ApiError: 503, they were not free in time, or too many others wait for theirs.
        """
        num_bytes = min(num_bytes, self.capacity)
        if not self._waiting and num_bytes <= self.free:
            self.free -= num_bytes
            return num_bytes
        if len(self._waiting) >= MOST_WAITING:
            raise busy()
        turn = asyncio.get_running_loop().create_future()
        entry = (num_bytes, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came in the same moment
                self.release(num_bytes)
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(entry)
                self._wake()  # those behind it may need less
            if isinstance(error, TimeoutError):
                raise busy() from None
            raise
        return num_bytes

    @contextlib.asynccontextmanager
    async def reserved(self, num_bytes: int) -> AsyncIterator[None]:
        """Hold bytes while the context is open.

        Raises:
            ApiError: 503, they were not free in time.
        """
        taken = await self.reserve(num_bytes)
        try:
            yield
        finally:
            self.release(taken)

    def release(self, num_bytes: int) -> None:
        """Give bytes back, and let in who waits for them."""
        self.free += num_bytes
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            num_bytes, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= num_bytes
                turn.set_result(None)


def busy() -> ApiError:
    """Make the error of a request for which there is no memory."""
    message = f"other uploads take all memory, and what becomes free within {WAIT_SECONDS:g} s is theirs"
    return ApiError(503, "overloaded", message, f"try again in {RETRY_SECONDS} s", {"retry-after": str(RETRY_SECONDS)})
