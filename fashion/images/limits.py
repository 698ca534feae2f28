"""Reject pictures that would take too much memory or time, before any pixel is decoded. Knows the file headers."""

import struct
from typing import Any

from fashion.images.errors import BadPicture, too_large, undecodable

RUN_LENGTH_PIXELS = 1_000_000
"""Most pixels of a run-length coded BMP: Pillow decodes it in Python, and 50 million pixels in 1 KB took 9 s."""

SCANS = 20
"""Most scans of a JPEG of the largest size. A camera's progressive JPEG has about 10; 400 empty ones in 220 KB took
16 s."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323


def check_header(name: str, data: bytes, max_pixels: int) -> None:
    """Check the size in the header of a GIF or WEBP, whose readers allocate all pixels when they open a file.

    Args:
        name: the format, one of `formats.FORMATS`; others pass.
        data: the bytes of the file.
        max_pixels: most pixels of a picture, width times height.

    Raises:
        BadPicture: the picture has more pixels.
    """
    size = header_size(name, data)
    if size is not None:
        _check_size(size, max_pixels)


def header_size(name: str, data: bytes) -> tuple[int, int] | None:
    """Read the width and height of a GIF or WEBP without opening it; None for other formats and damaged headers."""
    if name == "GIF":
        return _gif_size(data)
    if name == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if name == "WEBP" and data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == "WEBP" and data[12:16] == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def check_picture(picture: Any, data: bytes, max_pixels: int) -> None:
    """Check the size, the completeness and the cost of an opened picture.

    Args:
        picture: Pillow's image, with no pixels decoded.
        data: the bytes of the file.
        max_pixels: most pixels of a picture, width times height.

    Raises:
        BadPicture: the picture is empty, cut off, or too costly to decode.
    """
    width, height = picture.size
    if width < 1 or height < 1:
        raise BadPicture("undecodable", f"the picture has {width}x{height} pixels", "send a picture of at least 1x1")
    _check_size(picture.size, max_pixels)
    if picture.tile and picture.tile[0][0] == "bmp_rle":
        _check_size(picture.size, min(max_pixels, RUN_LENGTH_PIXELS), "run-length coded ")
    if picture.format == "PNG" and b"IEND" not in data:
        raise undecodable("the file is cut off")
    if picture.format == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans * width * height > SCANS * max_pixels:
            raise too_large(f"the picture is written {scans:,} times over")
    if picture.format == "TIFF":
        tile = [picture.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        # A small picture may be stored in one larger tile.
        _check_size((max(width, tile[0]), max(height, tile[1])), max(max_pixels, 1_000_000))


def _gif_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that Pillow allocates: the first frame may be larger than the screen."""
    if len(data) < 13:
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == ord("!"):
            at += 1
            while at < len(data) and data[at]:
                at += 1 + data[at]
            at += 1
        elif kind == ord(",") and at + 8 <= len(data):
            x, y, w, h = struct.unpack_from("<HHHH", data, at)
            return max(width, x + w), max(height, y + h)
        elif kind == ord(";"):
            break
    return width, height


def _check_size(size: tuple[int, int], max_pixels: int, kind: str = "") -> None:
    if size[0] * size[1] > max_pixels:
        raise too_large(f"the {kind}picture has {size[0]}x{size[1]} pixels, more than the {max_pixels:,} allowed")
