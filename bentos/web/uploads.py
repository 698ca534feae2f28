"""Request bodies to pictures and JSON values. Knows nothing of what is done with them."""

import base64
import json
import re
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from bentos.web.responses import REQUEST, ApiError, Documented, adapter

PICTURE_FIELDS = ("image", "bmp_data")
"""Form fields that hold the picture; the second is the name that older clients send."""
SPARE_PARTS = 16
"""Parts of a form beyond its files that are accepted."""
PLAIN_BYTES = 65_536
"""Longest form that is cut at its boundaries as a whole, which holds it in memory several times over."""

T = TypeVar("T")

_BOUNDARY = re.compile(r"multipart/form-data; ?boundary=([\w'()+,./:=?-]{1,70})", re.ASCII)
_TEXT = rb"[ !#$&-\[\]-~]*"  # what no client escapes: neither quotes, backslashes and per cent, nor other alphabets
_PLAIN_HEAD = re.compile(
    rb'\r\nContent-Disposition: form-data; name="(%b)"(?:; filename="(%b)")?(?:\r\nContent-Type: %b)?'
    % (_TEXT, _TEXT, _TEXT),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    name: str
    filename: str | None
    data: bytes


@dataclass(frozen=True)
class Upload:
    """One picture, and whether to explain its prediction."""

    data: bytes
    explain: bool = False


@dataclass(frozen=True)
class JsonUpload(Documented):
    """One picture as JSON."""

    __pydantic_config__: ClassVar[ConfigDict] = REQUEST

    image: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    """A picture in base64, or a data URL."""
    explain: bool = False
    """Add a heat map."""


def read_upload(body: bytes, content_type: str) -> Upload:
    """Read the one picture of a body: a form, the picture itself, or JSON with base64.

    Raises:
        ApiError: the body is none of the three, or does not hold exactly one picture.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(read_parts(body, content_type, limit=SPARE_PARTS))
    if kind == "application/json":
        return _from_json(body)
    if kind.startswith("image/") or kind in ("application/octet-stream", "binary/octet-stream"):
        return Upload(body)
    raise ApiError(
        415,
        "unsupported_content_type",
        f"a body of type {kind or '(none)'} is not read",
        "send a form with a field `image`, the picture itself as image/png, or JSON with `image` in base64",
    )


def read_files(body: bytes, content_type: str, *, limit: int) -> list[Part]:
    """Read the files of a batch.

    Args:
        body: of the request.
        content_type: of the request.
        limit: most files to accept.

    Raises:
        ApiError: the body is not a form, or holds no file or more than `limit`.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        kind = content_type.partition(";")[0] or "(none)"
        remedy = "send multipart/form-data with one file a picture"
        raise ApiError(415, "unsupported_content_type", f"a batch of type {kind} is not read", remedy)
    files = [part for part in read_parts(body, content_type, limit=limit + SPARE_PARTS) if part.filename is not None]
    if not files:
        raise ApiError(422, "no_picture", "the form holds no file", "send one file a picture")
    if len(files) > limit:
        raise _too_many(limit)
    return files


def read_parts(body: bytes, content_type: str, *, limit: int) -> list[Part]:
    """Read the parts of a multipart body.

    Args:
        body: of the request.
        content_type: of the request, with the boundary.
        limit: most parts to accept.

    Raises:
        ApiError: the body is not multipart, ends early, or has more than `limit` parts.
    """
    if (plain := _read_plain_parts(body, content_type, limit)) is not None:
        return plain
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _bad_form("its content type names no boundary")
    collector = _Collector(limit)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, UnicodeDecodeError) as error:
        raise _bad_form(str(error)) from None
    if not collector.ended:
        raise _bad_form("it ends before its last boundary")
    return collector.parts


def _read_plain_parts(body: bytes, content_type: str, limit: int) -> list[Part] | None:
    """Read a form as browsers and HTTP libraries write it; None for any other, and for one to reject.

    The library reads each of these to the same parts, and takes as long for a small picture as decoding it does.
    """
    if len(body) > PLAIN_BYTES or (boundary := _BOUNDARY.fullmatch(content_type)) is None:
        return None
    delimiter = b"\r\n--" + boundary[1].encode()
    if not body.startswith(delimiter[2:]):
        return None
    *pieces, last = body[len(delimiter) - 2 :].split(delimiter, limit)
    if last not in (b"--", b"--\r\n"):
        return None
    parts = []
    for piece in pieces:
        head, blank, data = piece.partition(b"\r\n\r\n")
        names = _PLAIN_HEAD.fullmatch(head)
        if names is None or not blank:
            return None
        name, filename = names.groups()
        parts.append(Part(name.decode(), None if filename is None else filename.decode(), data))
    return parts


def read_json(body: bytes, kind: type[T]) -> T:
    """Read a JSON object as a dataclass, without converting types.

    Raises:
        ApiError: the body is not JSON, not an object, or a field is missing, unknown or of another type.
    """
    try:
        return adapter(kind).validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]  # callers give dataclasses
    if first["type"] == "json_invalid":
        remedy = f"send an object with {names}"
        raise ApiError(400, "bad_json", f"the body is not JSON: {first['ctx']['error']}", remedy)
    raise ApiError(422, "bad_field", _field_error(first), f"send an object with {names}")


def _field_error(error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"the body must be an object, got {type(error['input']).__name__}"
    name = str(error["loc"][0])
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"there is no field {name[:40]!r}"
    return f"{name} must not be {json.dumps(error['input'])[:40]}"


def as_bool(name: str, text: str) -> bool:
    """Read a switch of a query or a form.

    Raises:
        ApiError: the text is neither true nor false.
    """
    value = {"true": True, "1": True, "false": False, "0": False, "": False}.get(text.lower())
    if value is None:
        raise ApiError(422, "bad_field", f"{name} must be true or false, got {text[:40]!r}", "send true or false")
    return value


def _from_form(parts: list[Part]) -> Upload:
    pictures = [part for part in parts if part.name in PICTURE_FIELDS]
    if len(pictures) != 1:
        names = ", ".join(part.name[:40] for part in parts) or "nothing"
        raise ApiError(
            422,
            "no_picture" if not pictures else "too_many_files",
            f"the form must hold one picture in the field `image`, got {names}",
            "name the file's field `image`; several pictures go to /predict/batch",
        )
    switches = [part.data.decode("utf-8", "replace") for part in parts if part.name == "explain"]
    return Upload(pictures[0].data, as_bool("explain", switches[0]) if switches else False)


def _from_json(body: bytes) -> Upload:
    request = read_json(body, JsonUpload)
    text = request.image
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        # Many encoders break lines or end with a newline; any other foreign character is an error.
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # binascii.Error is one, and so is the error of text that is not ASCII
        remedy = "encode the picture's bytes as standard base64"
        raise ApiError(400, "bad_base64", f"`image` is not base64: {error}", remedy) from None
    return Upload(data, request.explain)


class _Collector:
    """Callbacks of the multipart parser that collect its parts."""

    def __init__(self, limit: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._limit = limit
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = bytearray(), bytearray()
        self._data: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._limit:
            raise _too_many(self._limit)
        self._headers, self._data = {}, []

    def _header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        if b"name" not in options:
            raise _bad_form("a part has no name")
        filename = options.get(b"filename")
        name = None if filename is None else filename.decode("utf-8", "replace")
        self.parts.append(Part(options[b"name"].decode("utf-8", "replace"), name, b"".join(self._data)))

    def _finish(self) -> None:
        self.ended = True


def _too_many(limit: int) -> ApiError:
    message = f"the form holds more than {limit} files"
    return ApiError(413, "too_many_files", message, f"send at most {limit} at once")


def _bad_form(reason: str) -> ApiError:
    return ApiError(
        400, "bad_form", f"the multipart form cannot be read: {reason}", "let an HTTP library make the form"
    )
