"""Bytes of an uploaded file to pixels, bounded in memory and time. Knows formats, not networks."""

import contextlib
import functools
import importlib
import re
import struct
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from PIL import Image

FORMATS = ("BMP", "PNG", "JPEG", "GIF", "WEBP", "TIFF")


TOLERANCE = 0.05
"""Of the whole scale: how far from the background's a colour may be and still belong to it."""


WORKING_PIXELS = 512
"""Longest edge at which the garment is looked for: finer detail does not survive 28 pixels."""


BAND_PIXELS = 1_000_000
"""So many pixels of a large picture are reduced at once."""


RUN_LENGTH_PIXELS = 1_000_000
"""Pillow unpacks run lengths of BMP in Python: 50 million pixels in 1 KB took 9 s."""


SCANS = 20
"""Times that a JPEG of the largest size may go over its pixels; cameras' progressive ones take about 10. A file of
220 KB with 400 empty scans took 16 s."""


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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 322, 323


_WIDE_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


Code = Literal["empty", "undecodable", "not_an_image", "too_large"]


class BadPicture(ValueError):
    """Bytes that no prediction can be made of."""

    def __init__(self, code: Code, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@contextlib.contextmanager
def decoding_errors() -> Iterator[None]:
    try:
        yield
    except BadPicture:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise _too_large("the picture needs more memory than there is") from None
    except Exception as error:  # Pillow raises whatever the bytes make it stumble over
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise _undecodable(why) from None


def picture_format(data: bytes) -> str:
    """Which of `FORMATS` the bytes begin like. Pillow need not guess, and loads no reader of another type."""
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and (len(data) < 18 or struct.unpack("<I", data[14:18])[0] < 256):
        return "BMP"  # the second number is its header's size; "BMW is a car" has none
    remedy = f"send a picture as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    raise BadPicture("not_an_image", f"the {len(data):,} bytes received are no picture of a known type", remedy)


@functools.cache
def open_picture(name: str) -> Any:
    # Not Image.open: it loads the readers of all types, has limits of its own, and warns.
    module, reader = _READERS[name]
    return getattr(importlib.import_module(f"PIL.{module}"), reader)


def silence_pillow() -> None:
    """Pillow warns of odd metadata in files of strangers. `catch_warnings` is not for threads: its filters leak."""
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def check_announced_size(name: str, data: bytes, max_pixels: int) -> None:
    """These readers take memory for the whole picture when they open it."""
    size = None
    if name == "GIF":
        size = _gif_size(data)
    elif name == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        size = (int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    elif name == "WEBP" and data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    elif name == "WEBP" and data[12:16] == b"VP8 " and len(data) >= 30:
        size = (int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF)
    if size is not None:
        _check_size(size, max_pixels)


def _gif_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that hold the first frame too, which may be larger than the screen."""
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


def check_picture(picture: Any, data: bytes, max_pixels: int) -> None:
    """What a header promises, before anything is decoded."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise BadPicture("undecodable", f"the picture has {width}x{height} pixels", "send a picture with some")
    _check_size(picture.size, max_pixels)
    if picture.tile and picture.tile[0][0] == "bmp_rle":
        _check_size(picture.size, min(max_pixels, RUN_LENGTH_PIXELS), "run-length coded ")
    if picture.format == "PNG" and b"IEND" not in data:
        raise _undecodable("the file is cut off")
    if picture.format == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans * width * height > SCANS * max_pixels:
            raise _too_large(f"the picture is written over {scans:,} times")
    if picture.format == "TIFF":
        tile = [picture.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        # A small picture's tile may be larger than it, but by little.
        _check_size((max(width, tile[0]), max(height, tile[1])), max(max_pixels, 1_000_000))


def _check_size(size: tuple[int, int], max_pixels: int, kind: str = "") -> None:
    if size[0] * size[1] > max_pixels:
        raise _too_large(f"the {kind}picture has {size[0]}x{size[1]} pixels, more than the {max_pixels:,} allowed")


def decode(picture: Image.Image, mode: str, steps: list[str], *, exact: bool) -> tuple[Image.Image, tuple[int, int]]:
    """The pixels, upright and in `mode`, large pictures reduced to what is needed; and the upright picture's size."""
    whole = picture.size
    if not exact and picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, (WORKING_PIXELS, WORKING_PIXELS))  # decodes at a fraction of the size
    is_turned_by_pillow = picture.format == "TIFF"
    orientation = _orientation(picture) if is_turned_by_pillow else 1
    picture.load()
    is_sixteen_bit = picture.mode.startswith("I;16")
    if not is_turned_by_pillow:
        orientation = _orientation(picture)  # now: a PNG may tell after its pixels
    if not exact:
        picture = _reduced(picture)
    if orientation in _TURNS:
        steps.append("turned upright, as its EXIF says")
        if not is_turned_by_pillow:
            picture = picture.transpose(_TURNS[orientation])
            whole = whole if orientation < 5 else (whole[1], whole[0])
    picture = _in_eight_bits(picture, steps, is_sixteen_bit=is_sixteen_bit)
    picture = _opaque(picture, steps, exact=exact)
    if picture.mode != mode:
        picture = picture.convert(mode)
        steps.append("made grey" if mode == "L" else "made RGB")
    return picture, whole


def _orientation(picture: Any) -> int:
    try:
        if picture.format == "TIFF":
            found = picture.tag_v2.get(_ORIENTATION, 1)
        elif "exif" in picture.info:  # asking Pillow for the tags of a picture without any is slow
            found = picture.getexif().get(_ORIENTATION, 1)
        else:
            return 1
    except Exception:  # broken tags do not spoil a picture
        return 1
    return found if isinstance(found, int) else 1


def _reduced(picture: Image.Image) -> Image.Image:
    """Shrink what is much larger than needed, by bands: a copy of the whole picture would take its memory again."""
    factor = max(picture.size) // WORKING_PIXELS
    if factor < 2 or max(picture.size) <= 2 * WORKING_PIXELS:
        return picture
    rows = factor * max(1, BAND_PIXELS // (factor * picture.width))
    tops = range(0, picture.height, rows)
    bands = [
        _reducible(picture.crop((0, top, picture.width, min(top + rows, picture.height)))).reduce(factor)
        for top in tops
    ]
    whole = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for top, band in zip(tops, bands, strict=True):
        whole.paste(band, (0, top // factor))
    return whole


def _reducible(picture: Image.Image) -> Image.Image:
    """In a mode whose pixels can be averaged."""
    if picture.mode.startswith("I;16"):
        return picture.convert("I")
    if picture.mode == "PA" or "transparency" in picture.info:
        return picture.convert("RGBA")
    if picture.mode in ("1", "P"):
        return picture.convert("L" if picture.mode == "1" else "RGB")
    return picture


def _in_eight_bits(picture: Image.Image, steps: list[str], *, is_sixteen_bit: bool) -> Image.Image:
    """16 and 32 bit grey, as 8 bit: Pillow would cut off what is above 255."""
    if picture.mode not in _WIDE_GREY:
        return picture
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if is_sixteen_bit:
        low, high = 0.0, 65535.0
    elif picture.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (np.clip(values, low, high) - low) / ((high - low) or 1.0)
    steps.append(f"scaled from {low:g} to {high:g}")
    return Image.fromarray(np.rint(255 * scaled).astype(np.uint8))


def _opaque(picture: Image.Image, steps: list[str], *, exact: bool) -> Image.Image:
    """What is transparent, as the background.

    White, on which shops cut garments out; but black under a garment that would vanish on white, and in a picture
    of the exact size, which nobody inverts any more.
    """
    if "A" not in picture.getbands() and "a" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    layered = picture.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        return layered.convert("RGB")
    ground = "black" if exact or _is_white(layered) else "white"
    steps.append(f"laid on {ground}")
    return Image.alpha_composite(Image.new("RGBA", layered.size, ground), layered).convert("RGB")


def _is_white(layered: Image.Image) -> bool:
    """Whether most of what can be seen has the colour of white paper."""
    pixels = np.asarray(layered)
    visible = pixels[pixels[..., 3] >= 128]
    return len(visible) > 0 and bool((visible[:, :3].min(axis=1) >= 255 * (1 - TOLERANCE)).mean() > 0.75)


def _too_large(message: str) -> BadPicture:
    return BadPicture("too_large", message, "send a smaller picture: it is shrunk to a few pixels in any case")


def _undecodable(why: str) -> BadPicture:
    return BadPicture("undecodable", f"the picture cannot be decoded: {why}", "send a whole, undamaged file")
