"""Request bodies to pictures: multipart, raw, or JSON with base64. Knows nothing of what is done with them."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from bentos.web.responses import ApiError

PICTURE_FIELDS = ("image", "bmp_data")
"""The second is what the predecessor's clients send."""
TEXT_FIELD_BYTES = 10_000


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    name: str
    filename: str | None
    data: bytes


@dataclass(frozen=True)
class Upload:
    """What was asked of one picture."""

    data: bytes
    explain: bool = False


def read_upload(body: bytes, content_type: str) -> Upload:
    """The one picture of a body.

    Raises:
        Refusal: the body is none of the three forms, or does not hold one picture.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(parts(body, content_type, limit=16))
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
    """The pictures of a batch.

    Raises:
        Refusal: not a form, no file, or more than `limit`.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        kind = content_type.partition(";")[0] or "(none)"
        remedy = "send multipart/form-data with one file a picture"
        raise ApiError(415, "unsupported_content_type", f"a batch of type {kind} is not read", remedy)
    files = [part for part in parts(body, content_type, limit=limit + 16) if part.filename is not None]
    if not files:
        raise ApiError(422, "no_picture", "the form holds no file", "send one file a picture")
    if len(files) > limit:
        raise _too_many(limit)
    return files


def parts(body: bytes, content_type: str, *, limit: int) -> list[Part]:
    """The parts of a multipart body.

    Raises:
        Refusal: it is not one, ends early, or has more than `limit` parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _bad_form("its content type names no boundary")
    found = _Collector(limit)
    try:
        parser = MultipartParser(boundary, found.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, UnicodeDecodeError) as error:
        raise _bad_form(str(error)) from None
    if not found.ended:
        raise _bad_form("it ends before its last boundary")
    return found.parts


def read_json(body: bytes, *, keys: Mapping[str, type | tuple[type, ...]], required: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with known keys of known types.

    Raises:
        Refusal: it is not JSON, not an object, or a key is missing, unknown or of another type.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        remedy = f"send an object with {', '.join(keys)}"
        raise ApiError(400, "bad_json", f"the body is not JSON: {error}", remedy) from None
    if not isinstance(content, dict):
        raise _bad_field(f"the body must be an object, got {type(content).__name__}", keys)
    for name in required:
        if name not in content:
            raise _bad_field(f"{name} is missing", keys)
    for name, value in content.items():
        if name not in keys:
            raise _bad_field(f"there is no field {name[:40]!r}", keys)
        # True is an int to Python, and to nobody else.
        wanted = keys[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise _bad_field(f"{name} must not be {json.dumps(value)[:40]}", keys)
    return content


def as_bool(name: str, text: str) -> bool:
    """A switch in a query or a form.

    Raises:
        Refusal: it is neither.
    """
    value = {"true": True, "1": True, "false": False, "0": False, "": False}.get(text.lower())
    if value is None:
        raise ApiError(422, "bad_field", f"{name} must be true or false, got {text[:40]!r}", "send true or false")
    return value


def _from_form(found: list[Part]) -> Upload:
    pictures = [part for part in found if part.name in PICTURE_FIELDS]
    if len(pictures) != 1:
        names = ", ".join(part.name[:40] for part in found) or "nothing"
        raise ApiError(
            422,
            "no_picture" if not pictures else "too_many_files",
            f"the form must hold one picture in the field `image`, got {names}",
            "name the file's field `image`; several pictures go to /predict/batch",
        )
    switches = [part.data.decode("utf-8", "replace") for part in found if part.name == "explain"]
    return Upload(pictures[0].data, as_bool("explain", switches[0]) if switches else False)


def _from_json(body: bytes) -> Upload:
    content = read_json(body, keys={"image": str, "explain": bool}, required=("image",))
    text = content["image"]
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        remedy = "encode the picture's bytes as standard base64"
        raise ApiError(400, "bad_base64", f"`image` is not base64: {error}", remedy) from None
    return Upload(data, content.get("explain", False))


class _Collector:
    """Callbacks of the parser that gather parts."""

    def __init__(self, limit: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._limit = limit
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._limit:
            raise _too_many(self._limit)
        self._headers, self._data = {}, bytearray()

    def _header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        if b"name" not in options:
            raise _bad_form("a part has no name")
        filename = options.get(b"filename")
        name = None if filename is None else filename.decode("utf-8", "replace")
        self.parts.append(Part(options[b"name"].decode("utf-8", "replace"), name, bytes(self._data)))

    def _finish(self) -> None:
        self.ended = True


def _too_many(limit: int) -> ApiError:
    message = f"the form holds more than {limit} files"
    return ApiError(413, "too_many_files", message, f"send at most {limit} at once")


def _bad_form(why: str) -> ApiError:
    return ApiError(400, "bad_form", f"the multipart form cannot be read: {why}", "let an HTTP library make the form")


def _bad_field(message: str, keys: Mapping[str, Any]) -> ApiError:
    return ApiError(422, "bad_field", message, f"send an object with {', '.join(keys)}")
