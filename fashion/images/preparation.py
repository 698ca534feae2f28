"""Turn any uploaded picture into an image like those that the network was trained on. Knows no requests, no models.

A picture of exactly the network's size is used as it is. Any other goes through the data set's preparation:
`product_photo` does what the makers of Fashion-MNIST describe (Xiao, Rasul, Vollgraf 2017, section 2): trim to the
object, scale its longest edge, sharpen, centre, invert if the background is light. `whole_picture` scales and centres.
`handwriting` does what the makers of MNIST describe (LeCun et al. 1998): scale to a smaller box, centre by mass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fashion.images.decoding import TOLERANCE, decode, decoding_errors
from fashion.images.errors import BadPicture
from fashion.images.formats import open_picture, picture_format, silence_pillow
from fashion.images.limits import check_header, check_picture
from fashion.images.transform import Images, Preparation

WRITTEN = 20 / 28
"""Share of an image's edge that a written character has in MNIST."""
LIGHT = 128
"""Grey level from which a background counts as light and the image is inverted: the data's backgrounds are black."""


@dataclass(frozen=True)
class PreparedImage:
    """An image of the network's size, and how it was made."""

    image: Images
    """`(size, size)` uint8, or `(size, size, 3)` for three channels."""
    steps: tuple[str, ...]
    """Phrases that describe each change, in order, for people."""
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels of the picture as it came."""


def prepare(
    data: bytes, *, size: int, channels: int, preparation: Preparation = "product_photo", max_pixels: int = 50_000_000
) -> PreparedImage:
    """Decode a picture and make it `size` pixels square. Of several frames, the first is used.

    Args:
        data: the bytes of the file.
        size: edge of the network's input in pixels.
        channels: 1 for grey, 3 for RGB.
        preparation: how a picture of another size is prepared.
        max_pixels: most pixels that are decoded, width times height.

    Raises:
        BadPicture: the bytes are not a whole picture in one of `formats.FORMATS`, or it has more than `max_pixels`.
    """
    if not data:
        raise BadPicture("empty", "the picture is empty: 0 bytes were received", "send the bytes of a picture")
    name = picture_format(data)
    mode = "L" if channels == 1 else "RGB"
    with decoding_errors():
        silence_pillow()
        check_header(name, data, max_pixels)
        picture = open_picture(name, data)
        check_picture(picture, data, max_pixels)
        steps = [f"read as {name}, {picture.width}x{picture.height}, {picture.mode}"]
        exact = picture.size == (size, size)
        decoded, full_size = decode(picture, mode, steps, exact=exact)
    if exact:
        steps.append("used as it is" if len(steps) == 1 else "used as it is: the size fits")
        return PreparedImage(np.asarray(decoded), tuple(steps), full_size)
    if preparation == "whole_picture":
        return PreparedImage(_whole_picture(decoded, size, steps), tuple(steps), full_size)
    if preparation == "handwriting":
        return PreparedImage(_handwriting(decoded, full_size, size, steps), tuple(steps), full_size)
    return PreparedImage(_product_photo(decoded, full_size, size, steps), tuple(steps), full_size)


def _product_photo(picture: Image.Image, full_size: tuple[int, int], size: int, steps: list[str]) -> Images:
    """Prepare a picture that may have been reduced from `full_size`."""
    background, box = _find_object(np.asarray(picture))
    if box is None:
        steps.append("blank: nothing was found on the background")
        return np.zeros((size, size) + ((3,) if picture.mode == "RGB" else ()), np.uint8)
    if box != (0, 0, *picture.size):
        steps.append(f"trimmed the background, to {_describe_box(box, picture.size, full_size)}")
        picture = picture.crop(box)
    picture = _scale(picture, size, steps)
    picture = picture.filter(ImageFilter.UnsharpMask(radius=1.0, percent=25, threshold=0))
    steps.append("sharpened")
    image = _centre(picture, size, background, steps)
    if np.mean(background) >= LIGHT:
        steps.append("inverted: the background is light")
        image = 255 - image
        background = _inverted(background)
    return _stretch(image, background)


def _handwriting(picture: Image.Image, full_size: tuple[int, int], size: int, steps: list[str]) -> Images:
    """Prepare a written character: as a product is, but smaller, and with its centre of mass in the middle."""
    edge = max(1, round(size * WRITTEN))
    written = _product_photo(picture, full_size, edge, steps)
    ink = written.astype(np.float64) if written.ndim == 2 else written.sum(axis=2, dtype=np.float64)
    total = ink.sum() or 1.0
    places = np.arange(edge) - (size - 1) / 2
    top, left = (int(np.clip(-round(float(ink.sum(axis=axis) @ places) / total), 0, size - edge)) for axis in (1, 0))
    image = np.zeros((size, size, *written.shape[2:]), np.uint8)
    image[top : top + edge, left : left + edge] = written
    steps.append(f"centred on {size}x{size} by its mass")
    return image


def _whole_picture(picture: Image.Image, size: int, steps: list[str]) -> Images:
    """Prepare all of a picture; if it is not square, its border's colour fills the rest."""
    background = _background(np.asarray(picture))
    return _centre(_scale(picture, size, steps), size, background, steps)


def _scale(picture: Image.Image, size: int, steps: list[str]) -> Image.Image:
    """Scale the longest edge to `size`."""
    factor = size / max(picture.size)
    scaled = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    if scaled == picture.size:
        return picture
    steps.append(f"{'shrunk' if max(picture.size) > size else 'enlarged'} to {scaled[0]}x{scaled[1]}")
    # reducing_gap shrinks a much larger picture by BOX first: Lanczos alone costs more and looks the same.
    return picture.resize(scaled, Image.Resampling.LANCZOS, reducing_gap=3.0)


Colour = int | tuple[int, ...]


def _centre(picture: Image.Image, size: int, background: Colour, steps: list[str]) -> Images:
    canvas = Image.new(picture.mode, (size, size), background)
    canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    if picture.size != (size, size):
        steps.append(f"centred on {size}x{size}")
    return np.asarray(canvas)


def _background(pixels: Images) -> Colour:
    """Return the median colour of the border."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    median = np.median(border, axis=0).astype(np.int16)
    return int(median) if median.ndim == 0 else tuple(int(value) for value in median)


def _find_object(pixels: Images) -> tuple[Colour, tuple[int, int, int, int] | None]:
    """Return the background's colour, and the box of everything else as left, top, right, bottom; None if blank."""
    colour = _background(pixels)
    distance = np.abs(pixels.astype(np.int16) - np.asarray(colour, np.int16))
    foreground = (distance if distance.ndim == 2 else distance.max(axis=2)) > TOLERANCE * 255
    rows, columns = (np.flatnonzero(_is_occupied(foreground, axis)) for axis in (1, 0))
    if rows.size == 0 or columns.size == 0:
        return colour, None
    return colour, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _is_occupied(foreground: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Mark lines with more than 1/200 of foreground: dust and compression must not widen the box."""
    occupied: NDArray[np.bool_] = foreground.sum(axis=axis) > foreground.shape[axis] // 200
    return occupied


def _stretch(image: Images, background: Colour) -> Images:
    """Stretch the grey levels so that the background is exactly 0, as it is in the data."""
    floor = np.asarray(background, np.float32)
    stretched = (image.astype(np.float32) - floor) * (255 / np.maximum(255 - floor, 1))
    return np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)


def _inverted(colour: Colour) -> Colour:
    return 255 - colour if isinstance(colour, int) else tuple(255 - value for value in colour)


def _describe_box(box: tuple[int, int, int, int], reduced: tuple[int, int], full_size: tuple[int, int]) -> str:
    """Describe a box of the reduced picture in pixels of the uploaded one."""
    x, y = full_size[0] / reduced[0], full_size[1] / reduced[1]
    left, top, right, bottom = round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y)
    return f"{right - left}x{bottom - top} at x={left}, y={top}"
