"""What the service says: JSON, and errors in one shape. Knows nothing of models."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from fashion.images.errors import BadPicture

SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        b"manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"geolocation=(), microphone=(), payment=(), usb=()"),
]
"""On every response, unless it brings its own. The camera is left to the page's photo button."""

_PICTURE_STATUS = {"empty": 400, "undecodable": 400, "not_an_image": 415, "too_large": 413}


class ApiError(Exception):
    """A request that is not served. Its parts become the response."""

    def __init__(
        self, status: int, code: str, message: str, remedy: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.remedy = status, code, message, remedy
        self.headers = dict(headers or {})


def of_picture(error: BadPicture) -> ApiError:
    """A picture that cannot be read, as a refusal."""
    return ApiError(_PICTURE_STATUS[error.code], error.code, error.message, error.remedy)


def shape(refusal: ApiError) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"code": refusal.code, "message": refusal.message, "remedy": refusal.remedy}}


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON as a response. Answers are about one moment and one person: nobody keeps them."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def refuse(refusal: ApiError) -> Response:
    """A refusal as a response."""
    return answer(shape(refusal), refusal.status, refusal.headers)
