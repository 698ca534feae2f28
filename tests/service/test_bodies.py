"""Bodies within a limit of bytes, seconds and memory."""

import asyncio
import gzip
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from bentos.web import bodies
from bentos.web.bodies import FREE_BYTES, BodyLimits, read_body, release
from bentos.web.memory import Memory
from bentos.web.responses import ApiError

CAPACITY = 1_000_000


def read(chunks: Sequence[bytes], *, stalls: bool = False, **headers: str) -> tuple[bytes, int]:
    """Read a body of these chunks; returns it, and how many bytes were reserved until its end."""
    memory = Memory(CAPACITY)
    waiting = list(chunks)

    async def receive() -> Message:
        if not waiting:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or stalls}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)

    async def run() -> tuple[bytes, int]:
        try:
            body = await read_body(request, BodyLimits(500_000, 30, memory))
            return body, memory.capacity - memory.free
        finally:
            release(request.scope, memory)
            assert memory.free == memory.capacity

    return asyncio.run(run())


def test_a_usual_body_reserves_nothing() -> None:
    assert read([b"a" * 1000, b"b"]) == (b"a" * 1000 + b"b", 0)
    assert read([gzip.compress(b"a" * 1000)], content_encoding="gzip") == (b"a" * 1000, 0)


def test_a_large_body_reserves_what_it_announces_or_all_that_is_allowed() -> None:
    large = b"a" * (FREE_BYTES + 1)
    assert read([large], content_length=str(len(large))) == (large, len(large))
    assert read([large]) == (large, 500_000)
    assert read([gzip.compress(large)], content_encoding="gzip") == (large, 500_000)


@pytest.mark.fault("a client stops in the middle of a large body")
def test_who_holds_memory_and_sends_nothing_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    with pytest.raises(ApiError) as caught:
        read([b"a" * (FREE_BYTES + 1)], stalls=True, content_length="400000")
    assert (caught.value.status, caught.value.code) == (408, "too_slow")
