"""Pictures of other things than clothes, 28x28 and grey, that a model of Fashion-MNIST has never seen."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image

from fashion.images.transform import Images

FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "cmr10.ttf")


def digits(count: int, rng: np.random.Generator) -> Images:
    """Handwritten digits of scikit-learn, as large as those of MNIST."""
    small = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((20, 20))) for each in small[rng.choice(len(small), count)]]
    return np.pad(np.stack(large), ((0, 0), (4, 4), (4, 4)))


def letters(count: int, rng: np.random.Generator) -> Images:
    """Printed letters."""
    folder = Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / name), 22) for name in FONTS]

    def letter() -> Images:
        picture = Image.new("L", (28, 28))
        across, down = (int(each) for each in 14 + rng.integers(-2, 3, 2))
        text, font = chr(int(rng.choice([65, 97])) + int(rng.integers(26))), fonts[rng.integers(len(fonts))]
        ImageDraw.Draw(picture).text((across, down), text, fill=int(rng.integers(150, 256)), font=font, anchor="mm")
        return np.asarray(picture)

    return np.stack([letter() for _ in range(count)])


def photographs(count: int, rng: np.random.Generator) -> Images:
    """Parts of two photographs, of a temple and of a flower."""
    photos = [np.asarray(Image.fromarray(load_sample_image(name)).convert("L")) for name in ("china.jpg", "flower.jpg")]

    def part(photo: Images) -> Images:
        side = int(rng.integers(56, 200))
        top, left = rng.integers(0, photo.shape[0] - side), rng.integers(0, photo.shape[1] - side)
        cut = Image.fromarray(photo[top : top + side, left : left + side])
        return np.asarray(cut.resize((28, 28), Image.Resampling.BOX))

    return np.stack([part(photos[number % 2]) for number in range(count)])


def noise(count: int, rng: np.random.Generator) -> Images:
    """Independent pixels."""
    return rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)


def clouds(count: int, rng: np.random.Generator) -> Images:
    """Smooth fields from black to white."""
    fields = ndimage.gaussian_filter(rng.normal(size=(count, 28, 28)), (0, 3, 3))
    low, span = fields.min(axis=(1, 2), keepdims=True), np.ptp(fields, axis=(1, 2), keepdims=True)
    return np.asarray((fields - low) / span * 255, np.uint8)


def stripes(count: int, rng: np.random.Generator) -> Images:
    """Waves of any direction and length."""
    angle, rate, phase = (rng.uniform(low, high, (count, 1, 1)) for low, high in ((0, np.pi), (0.3, 2), (0, 6)))
    rows, columns = np.mgrid[:28, :28]
    return np.asarray((np.sin(rate * (columns * np.cos(angle) + rows * np.sin(angle)) + phase) + 1) * 127, np.uint8)


def shapes(count: int, rng: np.random.Generator) -> Images:
    """A few ellipses and rectangles, filled or not."""

    def picture() -> Images:
        drawn = Image.new("L", (28, 28))
        for _ in range(rng.integers(1, 4)):
            left, top = (int(each) for each in rng.integers(0, 20, 2))
            width, height = (int(each) for each in rng.integers(4, 16, 2))
            draw, grey = ImageDraw.Draw(drawn), int(rng.integers(80, 256))
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape((left, top, left + width, top + height), fill=grey if rng.random() < 0.5 else None, outline=grey)
        return np.asarray(drawn)

    return np.stack([picture() for _ in range(count)])


def blank(count: int, rng: np.random.Generator) -> Images:
    """One grey each."""
    greys = rng.integers(0, 256, (count, 1, 1)).astype(np.uint8)
    return np.broadcast_to(greys, (count, 28, 28)).copy()


FOREIGN: dict[str, Callable[[int, np.random.Generator], Images]] = {
    each.__name__: each for each in (blank, clouds, digits, letters, noise, photographs, shapes, stripes)
}
"""Name -> makes a number of pictures."""
