"""Any picture that somebody sends, to one like those the network was trained on. Knows no request and no model.

A picture that has exactly the size passes as it is. Any other goes through the preparation that the makers of
Fashion-MNIST describe for product photos (Xiao, Rasul, Vollgraf 2017, section 2): trim to the garment, fit its longest
edge, sharpen, centre, negate where the background is light.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from fashion.images import Images

FORMATS = ("BMP", "PNG", "JPEG", "GIF", "WEBP", "TIFF")
TOLERANCE = 0.05
"""Of the whole scale: how far from the background's a colour may be and still belong to it."""
LIGHT = 128
"""Backgrounds from this grey level on are light; the network has learned dark ones."""
WORKING_PIXELS = 512
"""Longest edge at which the garment is looked for: finer detail does not survive 28 pixels."""
# Whatever Pillow's decoders raise on bytes that no camera wrote.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, EOFError),
    *(OverflowError, ZeroDivisionError, RuntimeError, MemoryError, struct.error, zlib.error),
)

Code = Literal["empty", "undecodable", "not_an_image", "too_large"]


class BadPicture(ValueError):
    """Bytes that no prediction can be made of."""

    def __init__(self, code: Code, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@dataclass(frozen=True)
class Fitted:
    """What the network is shown."""

    image: Images
    """`(size, size)` uint8, or `(size, size, 3)` where there are three channels."""
    steps: tuple[str, ...]
    """What was done, in order, for a person."""


def fit(data: bytes, *, size: int, channels: int, max_pixels: int = 50_000_000) -> Fitted:
    """Decode a picture and make it `size` pixels square. Of several frames, the first counts.

    Raises:
        BadPicture: the bytes are no whole picture of `FORMATS`, or it has more than `max_pixels`.
    """
    if not data:
        raise BadPicture("empty", "the picture is empty: 0 bytes were received", "send the bytes of a picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, and of odd metadata
        with _opened(data) as picture:
            _check_size(picture, max_pixels)
            mode = "L" if channels == 1 else "RGB"
            steps = [f"read as {picture.format}, {picture.width}x{picture.height}, {picture.mode}"]
            if picture.size == (size, size) and picture.mode == mode and not _is_turned(picture):
                return Fitted(_loaded(picture), (*steps, "used as it is"))
            try:
                return _prepared(picture, size, mode, steps)
            except BROKEN as error:
                raise _undecodable(error) from None


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture("too_large", "the picture has too many pixels", "send a smaller picture") from None
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except BROKEN as error:
        raise _undecodable(error) from None


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        message = f"the picture has {width}x{height} pixels, more than the {max_pixels:,} that are decoded"
        raise BadPicture("too_large", message, "send a smaller picture: in the end 28 pixels are looked at")
    if width < 1 or height < 1:
        raise BadPicture("undecodable", f"the picture has {width}x{height} pixels", "send a picture with some")


def _loaded(picture: Image.Image) -> Images:
    try:
        return np.asarray(picture)
    except BROKEN as error:
        raise _undecodable(error) from None


def _is_turned(picture: Image.Image) -> bool:
    # Only these can say so; asking Pillow for the tags of a picture without any is slow.
    if picture.format == "TIFF" or "exif" in picture.info:
        return picture.getexif().get(0x0112, 1) in range(2, 9)
    return False


def _prepared(picture: Image.Image, size: int, mode: str, steps: list[str]) -> Fitted:
    exact = picture.size == (size, size)
    if not exact and picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, (WORKING_PIXELS, WORKING_PIXELS))  # decodes at a fraction of the size
    if _is_turned(picture):
        picture = ImageOps.exif_transpose(picture)
        steps.append("turned upright, as its EXIF says")
    picture = _in_eight_bits(picture, steps)
    picture = _opaque(picture, steps)
    if picture.mode != mode:
        picture = picture.convert(mode)
        steps.append("made grey" if mode == "L" else "made RGB")
    if exact:
        return Fitted(np.asarray(picture), (*steps, "used as it is: the size fits"))
    return Fitted(_product_photo(picture, size, steps), tuple(steps))


def _in_eight_bits(picture: Image.Image, steps: list[str]) -> Image.Image:
    """16 and 32 bit grey, as 8 bit: Pillow would cut off what is above 255."""
    if picture.mode not in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
        return picture
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if picture.mode.startswith("I") and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 and picture.mode == "I" else 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (np.clip(values, low, high) - low) / ((high - low) or 1.0)
    steps.append(f"scaled from {low:g} to {high:g}")
    return Image.fromarray(np.rint(255 * scaled).astype(np.uint8))


def _opaque(picture: Image.Image, steps: list[str]) -> Image.Image:
    """What is transparent, as the background: white, on which shops cut garments out."""
    if "A" not in picture.getbands() and "a" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    layered = picture.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        return layered.convert("RGB")
    steps.append("laid on white")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _product_photo(picture: Image.Image, size: int, steps: list[str]) -> Images:
    if max(picture.size) > 2 * WORKING_PIXELS:
        picture = picture.reduce(max(picture.size) // WORKING_PIXELS)
    background, box = _garment(np.asarray(picture))
    if box is None:
        steps.append("blank: no garment was found")
        return np.zeros((size, size) + ((3,) if picture.mode == "RGB" else ()), np.uint8)
    if box != (0, 0, *picture.size):
        picture = picture.crop(box)
        steps.append(f"trimmed the background, to {_share(picture.size, box)}")
    inside = _within(picture.size, size)
    steps.append(f"{'shrunk' if max(picture.size) > size else 'enlarged'} to {inside[0]}x{inside[1]}")
    # BOX first where it is much larger: Lanczos over everything costs more and looks the same.
    picture = picture.resize(inside, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = picture.filter(ImageFilter.UnsharpMask(radius=1.0, percent=25, threshold=0))
    steps.append("sharpened")
    canvas = Image.new(picture.mode, (size, size), background)
    canvas.paste(picture, ((size - inside[0]) // 2, (size - inside[1]) // 2))
    if inside != (size, size):
        steps.append(f"centred on {size}x{size}")
    image = np.asarray(canvas)
    if _level(background) >= LIGHT:
        steps.append("inverted: the background is light")
        image = 255 - image
        background = _inverted(background)
    return _on_black(image, background)


Colour = int | tuple[int, ...]


def _garment(pixels: Images) -> tuple[Colour, tuple[int, int, int, int] | None]:
    """The background's colour, as most of the border has it, and the box of what is of another one."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = np.median(border, axis=0).astype(np.int16)
    distance = np.abs(pixels.astype(np.int16) - middle)
    other = (distance if distance.ndim == 2 else distance.max(axis=2)) > TOLERANCE * 255
    rows, columns = (np.flatnonzero(_is_crossed(other, axis)) for axis in (1, 0))
    colour: Colour = int(middle) if middle.ndim == 0 else tuple(int(value) for value in middle)
    if rows.size == 0 or columns.size == 0:
        return colour, None
    return colour, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _is_crossed(other: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Lines with more than a speck of another colour: dust and compression must not widen the box."""
    crossed: NDArray[np.bool_] = other.sum(axis=axis) > other.shape[axis] // 200
    return crossed


def _within(of: tuple[int, int], size: int) -> tuple[int, int]:
    scale = size / max(of)
    return max(1, round(of[0] * scale)), max(1, round(of[1] * scale))


def _on_black(image: Images, background: Colour) -> Images:
    """Stretch the scale so that the background is exactly 0, as it is in the data."""
    floor = np.asarray(background, np.float32)
    stretched = (image.astype(np.float32) - floor) * (255 / np.maximum(255 - floor, 1))
    return np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)


def _level(colour: Colour) -> float:
    return float(np.mean(colour))


def _inverted(colour: Colour) -> Colour:
    return 255 - colour if isinstance(colour, int) else tuple(255 - value for value in colour)


def _share(size: tuple[int, int], box: tuple[int, int, int, int]) -> str:
    return f"{size[0]}x{size[1]} at x={box[0]}, y={box[1]}"


def _undecodable(error: BaseException) -> BadPicture:
    why = " ".join(str(error).split())[:120] or type(error).__name__
    return BadPicture("undecodable", f"the picture cannot be decoded: {why}", "send a whole, undamaged file")


def _unidentified(data: bytes) -> BadPicture:
    """Bytes that Pillow knows nothing of: cut off within the header, or of another type."""
    for name in _signatures(data):
        return BadPicture(
            "undecodable", f"the picture cannot be decoded: its {name} header is broken", "send a whole, undamaged file"
        )
    remedy = f"send a picture as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    return BadPicture("not_an_image", f"the {len(data):,} bytes received are no picture of a known type", remedy)


def _signatures(data: bytes) -> Iterator[str]:
    starts = {
        *((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF")),
        *((b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF")),
    }
    for start, name in starts:
        if data.startswith(start):
            yield name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield "WEBP"
    if data[:2] == b"BM" and len(data) >= 14 and struct.unpack("<I", data[10:14])[0] in range(14, 1100):
        yield "BMP"
