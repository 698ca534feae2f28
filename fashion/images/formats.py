"""Detect the format of an upload and open it with the matching Pillow reader alone. Decodes no pixels."""

import functools
import importlib
import io
import re
import struct
import warnings
from typing import Any

from fashion.images.errors import BadPicture

FORMATS = ("BMP", "PNG", "JPEG", "GIF", "WEBP", "TIFF")
"""Names of the formats that can be uploaded."""

_READERS = {
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
}

_STARTS = (
    *((b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF")),
    *((b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"II+\x00", "TIFF"), (b"MM\x00+", "TIFF")),
)

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def picture_format(data: bytes) -> str:
    """Detect which of `FORMATS` the bytes begin like, so that Pillow loads no reader of another format.

    Raises:
        BadPicture: the bytes begin like none of them.
    """
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and (len(data) < 18 or struct.unpack("<I", data[14:18])[0] < 256):
        return "BMP"  # the size of its header tells it from text that begins with BM
    remedy = f"send a picture as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    raise BadPicture("not_an_image", f"the {len(data):,} bytes received are not a picture of a known type", remedy)


def open_picture(name: str, data: bytes) -> Any:
    """Read the header of a picture in the given format; return Pillow's image, with no pixels decoded."""
    # Not Image.open: it loads the readers of all formats, has a limit of its own, and warns.
    return _reader(name)(io.BytesIO(data))


@functools.cache
def _reader(name: str) -> Any:
    module, reader = _READERS[name]
    return getattr(importlib.import_module(f"PIL.{module}"), reader)


def silence_pillow() -> None:
    """Ignore Pillow's warnings about odd metadata in uploads, in all threads."""
    # Not `catch_warnings`: it is not safe in threads, its filters leak.
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
