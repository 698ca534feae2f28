"""Any picture that somebody sends, to one like those the network was trained on. Knows no request and no model.

A picture that has exactly the size passes as it is. Any other goes through the preparation of the data: as a product
photo what the makers of Fashion-MNIST describe (Xiao, Rasul, Vollgraf 2017, section 2): trim to the garment, fit its
longest edge, sharpen, centre, negate where the background is light; as a whole picture no more than is needed to fit.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fashion.images.decoding import (
    TOLERANCE,
    BadPicture,
    check_announced_size,
    check_picture,
    decode,
    decoding_errors,
    open_picture,
    picture_format,
    silence_pillow,
)
from fashion.images.transform import Images, Preparation

LIGHT = 128
"""Backgrounds from this grey level on are light; the network has learned dark ones."""


@dataclass(frozen=True)
class PreparedImage:
    """What the network is shown."""

    image: Images
    """`(size, size)` uint8, or `(size, size, 3)` where there are three channels."""
    steps: tuple[str, ...]
    """What was done, in order, for a person."""


def prepare(
    data: bytes, *, size: int, channels: int, preparation: Preparation = "product_photo", max_pixels: int = 50_000_000
) -> PreparedImage:
    """Decode a picture and make it `size` pixels square. Of several frames, the first counts.

    Raises:
        BadPicture: the bytes are no whole picture of `FORMATS`, or it has more than `max_pixels`.
    """
    if not data:
        raise BadPicture("empty", "the picture is empty: 0 bytes were received", "send the bytes of a picture")
    name = picture_format(data)
    mode = "L" if channels == 1 else "RGB"
    with decoding_errors():
        silence_pillow()
        check_announced_size(name, data, max_pixels)
        picture = open_picture(name)(io.BytesIO(data))
        check_picture(picture, data, max_pixels)
        steps = [f"read as {name}, {picture.width}x{picture.height}, {picture.mode}"]
        exact = picture.size == (size, size)
        decoded, whole = decode(picture, mode, steps, exact=exact)
    if exact:
        plain = len(steps) == 1
        return PreparedImage(
            np.asarray(decoded), (*steps, "used as it is" if plain else "used as it is: the size fits")
        )
    if preparation == "whole_picture":
        return PreparedImage(_whole_picture(decoded, size, steps), tuple(steps))
    return PreparedImage(_product_photo(decoded, whole, size, steps), tuple(steps))


def _product_photo(picture: Image.Image, whole: tuple[int, int], size: int, steps: list[str]) -> Images:
    """Fit a picture that may have been reduced from `whole`."""
    background, box = _garment(np.asarray(picture))
    if box is None:
        steps.append("blank: no garment was found")
        return np.zeros((size, size) + ((3,) if picture.mode == "RGB" else ()), np.uint8)
    if box != (0, 0, *picture.size):
        trimmed = _where(box, picture.size, whole)
        picture = picture.crop(box)
        steps.append(f"trimmed the background, to {trimmed}")
    picture = _scaled(picture, size, steps)
    picture = picture.filter(ImageFilter.UnsharpMask(radius=1.0, percent=25, threshold=0))
    steps.append("sharpened")
    image = _centred(picture, size, background, steps)
    if _level(background) >= LIGHT:
        steps.append("inverted: the background is light")
        image = 255 - image
        background = _inverted(background)
    return _on_black(image, background)


def _whole_picture(picture: Image.Image, size: int, steps: list[str]) -> Images:
    """Fit all of a picture; where it is not square, its border's colour fills the rest."""
    background = _background(np.asarray(picture))
    return _centred(_scaled(picture, size, steps), size, background, steps)


def _scaled(picture: Image.Image, size: int, steps: list[str]) -> Image.Image:
    """With its longest edge `size`."""
    inside = _within(picture.size, size)
    if inside == picture.size:
        return picture
    steps.append(f"{'shrunk' if max(picture.size) > size else 'enlarged'} to {inside[0]}x{inside[1]}")
    # BOX first where it is much larger: Lanczos over everything costs more and looks the same.
    return picture.resize(inside, Image.Resampling.LANCZOS, reducing_gap=3.0)


Colour = int | tuple[int, ...]


def _centred(picture: Image.Image, size: int, background: Colour, steps: list[str]) -> Images:
    canvas = Image.new(picture.mode, (size, size), background)
    canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    if picture.size != (size, size):
        steps.append(f"centred on {size}x{size}")
    return np.asarray(canvas)


def _background(pixels: Images) -> Colour:
    """The colour that most of the border has."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = np.median(border, axis=0).astype(np.int16)
    return int(middle) if middle.ndim == 0 else tuple(int(value) for value in middle)


def _garment(pixels: Images) -> tuple[Colour, tuple[int, int, int, int] | None]:
    """The background's colour, and the box of what is of another one."""
    colour = _background(pixels)
    distance = np.abs(pixels.astype(np.int16) - np.asarray(colour, np.int16))
    other = (distance if distance.ndim == 2 else distance.max(axis=2)) > TOLERANCE * 255
    rows, columns = (np.flatnonzero(_is_crossed(other, axis)) for axis in (1, 0))
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


def _where(box: tuple[int, int, int, int], reduced: tuple[int, int], whole: tuple[int, int]) -> str:
    """A box of the reduced picture, as a person who has the whole one would say it."""
    x, y = whole[0] / reduced[0], whole[1] / reduced[1]
    left, top, right, bottom = round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y)
    return f"{right - left}x{bottom - top} at x={left}, y={top}"
