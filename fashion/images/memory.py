"""How much memory a picture takes while it is decoded, by its header. Knows Pillow's readers, not who waits for it."""

from typing import Any

from fashion.images.decoding import WORKING_PIXELS, decoding_errors
from fashion.images.formats import open_picture, picture_format, silence_pillow
from fashion.images.limits import check_header, check_picture, header_size

PREPARING_BYTES = 24 * 1024 * 1024
"""Besides the decoded picture: copies of the reduced one while it is prepared."""
WEBP_BYTES = 16
"""A pixel: libwebp holds two frames, and Pillow two copies; measured on 20 million pixels."""
GIF_BYTES = 2
"""A pixel: its index, in the frame and in the picture."""
COEFFICIENT_BYTES = 2
"""A coefficient of a JPEG in several scans: all are held until the last scan, however small it is decoded."""

_CHANNEL_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""A pixel in Pillow's memory; 4 in every other mode."""


def decoding_bytes(data: bytes, max_pixels: int) -> int:
    """Estimate the memory that decoding and preparing a picture takes at its peak, the file itself left out.

    Args:
        data: the bytes of the file.
        max_pixels: most pixels of a picture, width times height.

    Raises:
        BadPicture: the bytes are not a picture, or it has more than `max_pixels`.
    """
    name = picture_format(data)
    with decoding_errors():
        silence_pillow()
        check_header(name, data, max_pixels)
        size = header_size(name, data)
        if size is not None:
            return PREPARING_BYTES + size[0] * size[1] * (WEBP_BYTES if name == "WEBP" else GIF_BYTES)
        picture = open_picture(name, data)
        check_picture(picture, data, max_pixels)
        return PREPARING_BYTES + _pixel_bytes(picture, data)


def _pixel_bytes(picture: Any, data: bytes) -> int:
    pixels = picture.width * picture.height * _CHANNEL_BYTES.get(picture.mode, 4)
    if picture.format == "TIFF":
        return int(2 * pixels)  # libtiff decodes strips, of which one may be all, and a rotated picture is copied
    if picture.format != "JPEG":
        return int(pixels)
    if picture.mode in ("L", "RGB"):
        pixels //= _draft_scale(picture.size) ** 2
    return int(pixels) + (_coefficient_bytes(picture) if _has_several_scans(data) else 0)


def _draft_scale(size: tuple[int, int]) -> int:
    """Return the divisor of the edges at which Pillow decodes a JPEG in draft mode."""
    scale = min(size) // WORKING_PIXELS
    return next((each for each in (8, 4, 2) if scale >= each), 1)


def _coefficient_bytes(picture: Any) -> int:
    """Sum up the coefficients of a JPEG's components, of which some may have a lower resolution."""
    factors = [(component[1], component[2]) for component in picture.layer]
    widest, highest = max(each[0] for each in factors), max(each[1] for each in factors)
    shares = sum(across * down for across, down in factors) / (widest * highest)
    return int(picture.width * picture.height * COEFFICIENT_BYTES * shares)


def _has_several_scans(data: bytes) -> bool:
    """True for a progressive JPEG, or one whose components are in scans of their own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:  # a thumbnail in a segment has scans of its own: skip segments
        if data[at + 1] == 0xDA:
            return data.count(b"\xff\xda", at) > 1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True  # odd padding between segments: expect the worse
