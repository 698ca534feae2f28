"""Reading request bodies within a limit of bytes and seconds. Knows nothing of what is in them."""

import asyncio
import contextlib

from starlette.requests import Request
from starlette.types import Receive

from bentos.web.responses import ApiError

DISCARD_FACTOR = 10
"""A body up to this many times the limit is read to its end and dropped, so that its client sees the error."""


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Read the body of a request.

    Args:
        request: whose body was not read yet.
        limit: most bytes to accept.
        seconds: longest time to wait for all of it.

    Raises:
        ApiError: 413, it is longer; 408, it comes too slowly.
    """
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large(limit, close=True)
                chunks.append(chunk)
    except TimeoutError:
        remedy = "send a smaller body, or over a faster line"
        raise ApiError(408, "too_slow", f"the body did not arrive within {seconds:g} s", remedy) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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
