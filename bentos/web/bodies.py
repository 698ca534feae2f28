"""Reading request bodies within a limit of bytes, seconds and memory. Knows nothing of what is in them."""

import asyncio
import contextlib
import zlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive, Scope

from bentos.web.memory import Memory
from bentos.web.responses import ApiError

FREE_BYTES = 65_536
"""A body up to this reserves no memory: ordinary pictures do not wait for those who send large ones."""
STALL_SECONDS = 5.0
"""How long a larger one may pause."""

DISCARD_FACTOR = 10
"""A body up to this many times the limit is read to its end and dropped, so that its client sees the error."""

_DECOMPRESSORS: dict[str, int | None] = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content encodings that are read, with zlib's `wbits`."""
_RESERVED = "reserved_bytes"
"""Key of a request's scope."""


@dataclass(frozen=True)
class BodyLimits:
    """What a body may take."""

    num_bytes: int
    """Most bytes."""
    seconds: float
    """Longest time until all of it has arrived."""
    memory: Memory
    """Holds bodies of more than `FREE_BYTES`."""


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """Read the body of a request, decompressed; its memory is reserved until `release`.

    Args:
        request: whose body was not read yet.
        limits: what it may take.

    Raises:
        ApiError: 413, it is longer; 408, it comes too slowly; 503, there is no memory for it; 415 or 400, it is
            compressed in a way that is not read, or damaged.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _DECOMPRESSORS:
        known = " or ".join(name for name in _DECOMPRESSORS if name not in ("", "identity", "x-gzip"))
        message = f"a body with content-encoding {encoding[:40]} is not read"
        raise ApiError(415, "unsupported_content_encoding", message, f"send it as it is, or with {known}")
    body = await _read(request, limits)
    bits = _DECOMPRESSORS[encoding]
    return body if bits is None or not body else await _decompress(request, body, bits, encoding, limits)


def release(request: Scope, memory: Memory) -> None:
    """Give back what `read_body` reserved for a request.

    Args:
        request: its scope.
        memory: where it was reserved.
    """
    if num_bytes := request.pop(_RESERVED, 0):
        memory.release(num_bytes)


async def _read(request: Request, limits: BodyLimits) -> bytes:
    chunks: list[bytes] = []
    size, loop = 0, asyncio.get_running_loop()
    end = loop.time() + limits.seconds
    try:
        async with asyncio.timeout_at(end) as clock:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.num_bytes:
                    raise too_large(limits.num_bytes, close=True)
                chunks.append(chunk)
                if size <= FREE_BYTES:
                    continue
                if _RESERVED not in request.scope:
                    await _reserve(request, limits, clock)
                # Who holds memory that others wait for has to go on sending.
                clock.reschedule(min(end, loop.time() + STALL_SECONDS))
    except TimeoutError:
        remedy = "send a smaller body, or over a faster line"
        message = f"the body did not arrive within {limits.seconds:g} s, or not for {STALL_SECONDS:g} s"
        raise ApiError(408, "too_slow", message, remedy) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _reserve(request: Request, limits: BodyLimits, clock: asyncio.Timeout) -> None:
    announced = request.headers.get("content-length", "")
    is_plain = announced.isdigit() and request.headers.get("content-encoding", "identity") in ("", "identity")
    clock.reschedule(None)  # the wait is not the client's
    request.scope[_RESERVED] = await limits.memory.reserve(int(announced) if is_plain else limits.num_bytes)


async def _decompress(request: Request, body: bytes, bits: int, encoding: str, limits: BodyLimits) -> bytes:
    decompressor = zlib.decompressobj(bits)
    try:
        plain = decompressor.decompress(body, FREE_BYTES + 1)
        if len(plain) > FREE_BYTES:
            if _RESERVED not in request.scope:  # a few bytes may become many
                request.scope[_RESERVED] = await limits.memory.reserve(limits.num_bytes)
            plain += decompressor.decompress(decompressor.unconsumed_tail, limits.num_bytes + 1 - len(plain))
    except zlib.error as error:
        message = f"the body is not {encoding}: {error}"
        raise ApiError(400, "bad_content_encoding", message, "send it as it is, or compress it anew") from None
    if len(plain) > limits.num_bytes:
        raise too_large(limits.num_bytes, close=False)
    if not decompressor.eof:
        message = f"the {encoding} body is cut off"
        raise ApiError(400, "bad_content_encoding", message, "send it as it is, or compress it anew")
    return plain


async def discard_body(receive: Receive, limit: int, seconds: float) -> None:
    """Read and drop what is left of a body: a client that is still sending would see a broken connection, no answer.

    Args:
        receive: of the request.
        limit: of bytes that the service accepts; up to `DISCARD_FACTOR` times as many are read.
        seconds: longest time to read.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while size <= DISCARD_FACTOR * limit:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def check_length(content_length: str | None, limit: int) -> None:
    """Check the announced length of a body.

    Raises:
        ApiError: 413, it is longer than `limit` bytes.
    """
    if content_length is not None and content_length.isdigit() and int(content_length) > limit:
        raise too_large(limit, close=int(content_length) > DISCARD_FACTOR * limit)


def too_large(limit: int, *, close: bool) -> ApiError:
    """Make the error of a body that is too large.

    Args:
        limit: most bytes that are accepted.
        close: close the connection without reading the rest.
    """
    remedy = "send a smaller picture: it is shrunk to a few pixels in any case"
    headers = {"connection": "close"} if close else {}
    return ApiError(413, "too_large", f"the body is larger than {limit:,} bytes", remedy, headers)
