"""Decode an opened picture to upright 8-bit pixels, large ones reduced by bands. Knows Pillow modes, not networks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from fashion.images.errors import BadPicture, too_large, undecodable

TOLERANCE = 0.05
"""Largest difference from the background's colour that still counts as background, as a share of 255."""
WORKING_PIXELS = 512
"""Longest edge, in pixels, at which the object is located: finer detail does not survive 28 pixels."""
BAND_PIXELS = 1_000_000
"""Pixels of a large picture that are reduced at once."""

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION = 0x0112
_WIDE_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@contextlib.contextmanager
def decoding_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into one type of error.

    Raises:
        BadPicture: Pillow raised anything; its message gives the reason.
    """
    try:
        yield
    except BadPicture:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise too_large("the picture needs more memory than is free") from None
    except Exception as error:  # damaged bytes make Pillow raise almost any type
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise undecodable(reason) from None


def decode(picture: Image.Image, mode: str, steps: list[str], *, exact: bool) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture, upright and in `mode`; reduce a large one to about `WORKING_PIXELS`.

    Args:
        picture: Pillow's image, with no pixels decoded.
        mode: `L` or `RGB`.
        steps: receives a phrase for each change, in order.
        exact: the picture has exactly the network's size, so it is neither reduced nor placed on white.

    Returns:
        The decoded picture, and the width and height of the upright picture before it was reduced.
    """
    full_size = picture.size
    if not exact and picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, (WORKING_PIXELS, WORKING_PIXELS))  # decodes at a fraction of the size
    rotated_by_pillow = picture.format == "TIFF"
    orientation = _orientation(picture) if rotated_by_pillow else 1
    picture.load()
    is_sixteen_bit = picture.mode.startswith("I;16")
    if not rotated_by_pillow:
        orientation = _orientation(picture)  # only now: a PNG may have its EXIF after its pixels
    if not exact:
        picture = _reduce(picture)
    if orientation in _TRANSPOSES:
        steps.append("rotated upright by its EXIF orientation")
        if not rotated_by_pillow:
            picture = picture.transpose(_TRANSPOSES[orientation])
            full_size = full_size if orientation < 5 else (full_size[1], full_size[0])
    picture = _to_eight_bits(picture, steps, is_sixteen_bit=is_sixteen_bit)
    picture = _remove_transparency(picture, steps, exact=exact)
    if picture.mode != mode:
        picture = picture.convert(mode)
        steps.append("converted to grey" if mode == "L" else "converted to RGB")
    return picture, full_size


def _orientation(picture: Any) -> int:
    try:
        if picture.format == "TIFF":
            orientation = picture.tag_v2.get(_ORIENTATION, 1)
        elif "exif" in picture.info:  # getexif is slow for a picture without EXIF
            orientation = picture.getexif().get(_ORIENTATION, 1)
        else:
            return 1
    except Exception:  # damaged EXIF does not make the pixels unusable
        return 1
    return orientation if isinstance(orientation, int) else 1


def _reduce(picture: Image.Image) -> Image.Image:
    """Shrink a much larger picture by bands: a copy of all of it would double the memory."""
    factor = max(picture.size) // WORKING_PIXELS
    if factor < 2 or max(picture.size) <= 2 * WORKING_PIXELS:
        return picture
    rows = factor * max(1, BAND_PIXELS // (factor * picture.width))
    tops = range(0, picture.height, rows)
    bands = [
        _to_averageable_mode(picture.crop((0, top, picture.width, min(top + rows, picture.height)))).reduce(factor)
        for top in tops
    ]
    reduced = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for top, band in zip(tops, bands, strict=True):
        reduced.paste(band, (0, top // factor))
    return reduced


def _to_averageable_mode(picture: Image.Image) -> Image.Image:
    """Convert to a mode whose pixels can be averaged."""
    if picture.mode.startswith("I;16"):
        return picture.convert("I")
    if picture.mode == "PA" or "transparency" in picture.info:
        return picture.convert("RGBA")
    if picture.mode in ("1", "P"):
        return picture.convert("L" if picture.mode == "1" else "RGB")
    return picture


def _to_eight_bits(picture: Image.Image, steps: list[str], *, is_sixteen_bit: bool) -> Image.Image:
    """Scale 16 and 32-bit grey to 8 bits: Pillow would clip it at 255."""
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


def _remove_transparency(picture: Image.Image, steps: list[str], *, exact: bool) -> Image.Image:
    """Replace transparency by a background.

    White, as in product photos; black under a white object, which would vanish, and in a picture of the exact size,
    which is not inverted later.
    """
    if "A" not in picture.getbands() and "a" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    layered = picture.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        return layered.convert("RGB")
    background = "black" if exact or _is_white(layered) else "white"
    steps.append(f"placed on {background}")
    return Image.alpha_composite(Image.new("RGBA", layered.size, background), layered).convert("RGB")


def _is_white(layered: Image.Image) -> bool:
    """Return True if most visible pixels are nearly white."""
    pixels = np.asarray(layered)
    visible = pixels[pixels[..., 3] >= 128]
    return len(visible) > 0 and bool((visible[:, :3].min(axis=1) >= 255 * (1 - TOLERANCE)).mean() > 0.75)
