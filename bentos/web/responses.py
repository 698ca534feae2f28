"""JSON responses, and errors in one shape. Knows nothing of models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, WithJsonSchema
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
"""On every response that does not set its own. The camera stays allowed: the page's photo button opens it."""

_PICTURE_STATUS = {"empty": 400, "undecodable": 400, "not_an_image": 415, "too_large": 413}

T = TypeVar("T")

_adapters: dict[type, TypeAdapter[Any]] = {}


def _is_none(value: object) -> bool:
    return value is None


OptionalNumber = Annotated[float | None, WithJsonSchema({"type": "number"}), Field(exclude_if=_is_none)]
"""A number that is left out of the JSON where it is None."""
OptionalFlag = Annotated[bool | None, WithJsonSchema({"type": "boolean"}), Field(exclude_if=_is_none)]
"""True or False, left out of the JSON where it is None."""
OptionalText = Annotated[str | None, WithJsonSchema({"type": "string"}), Field(exclude_if=_is_none)]
"""A string that is left out of the JSON where it is None."""


REQUEST = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""Configuration of types that are read from requests: no unknown field, no conversion."""


class Documented:
    """Types of the API: the docstrings under their fields are the descriptions in the OpenAPI document."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class ErrorDetail(Documented):
    """Why a request was rejected."""

    code: str
    """A short name of the kind of error, for programs."""
    message: str
    """What is wrong, naming the value."""
    remedy: str
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer(Documented):
    """Body of every error."""

    error: ErrorDetail
    filename: OptionalText = None
    """The file that was rejected, in the answer to a batch."""


class ApiError(Exception):
    """A request that is rejected. Its parts become the response."""

    def __init__(
        self, status: int, code: str, message: str, remedy: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            status: HTTP status.
            code: a short name of the kind of error, for programs.
            message: what is wrong, naming the value.
            remedy: what the client can do about it.
            headers: more headers of the response.
        """
        super().__init__(message)
        self.status, self.code, self.message, self.remedy = status, code, message, remedy
        self.headers = dict(headers or {})


def picture_error(error: BadPicture) -> ApiError:
    """Turn a picture that cannot be read into the error to answer with."""
    return ApiError(_PICTURE_STATUS[error.code], error.code, error.message, error.remedy)


def error_answer(error: ApiError, filename: str | None = None) -> ErrorAnswer:
    """Make the body of an error."""
    return ErrorAnswer(ErrorDetail(error.code, error.message, error.remedy), filename)


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return the validator and serializer of a type; the first call builds it."""
    found = _adapters.get(kind)
    if found is None:
        found = _adapters[kind] = TypeAdapter(kind)
    return found


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make a JSON response of a dataclass or of plain data. No cache stores it: answers hold for one moment.

    Args:
        content: what to serialize.
        status: HTTP status.
        headers: more headers.
    """
    body = adapter(type(content)).dump_json(content)
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def error_response(error: ApiError) -> Response:
    """Make the response of an error."""
    return json_response(error_answer(error), error.status, error.headers)
