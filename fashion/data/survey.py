"""Look at pictures before they are prepared: their sizes, whether they have colours. Knows files, no layouts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fashion.images.errors import BadPicture
from fashion.images.preparation import prepare
from fashion.images.threads import in_threads
from fashion.images.transform import Images, Preparation

SIZES = (28, 32, 64, 96, 128)
"""Edges in pixels that are chosen from."""
ENOUGH = 0.9
"""Share of the median picture's longer edge that is enough: 96 for pictures of 100."""
PIXELS = 60_000 * 28 * 28
"""Of all pictures together, as many as Fashion-MNIST has: an epoch of them takes a CPU half a minute."""
SAMPLE = 300
"""Pictures that are looked at for colour."""
COLOURED = 24
"""Difference of two channels, in levels of 255, from which a pixel has a colour: JPEG gives grey ones a little."""
LEAST_COLOURED = 0.05
"""Share of the sample with colours from which the data set has them."""


@dataclass(frozen=True)
class Picture:
    """A decoded file, or why it is none."""

    image: Images | None
    """(H, W) or (H, W, 3) uint8; None where it cannot be read."""
    size: tuple[int, int]
    """Width and height as the file has it; (0, 0) where it cannot be read."""
    problem: str = ""
    """One sentence on what is wrong with the file."""


def read(path: Path, *, size: int, channels: int, preparation: Preparation) -> Picture:
    """Decode and prepare a file just as the service does with an upload; one that cannot be read has a `problem`."""
    try:
        made = prepare(path.read_bytes(), size=size, channels=channels, preparation=preparation)
    except BadPicture as error:
        return Picture(None, (0, 0), error.message)
    except OSError as error:
        return Picture(None, (0, 0), error.strerror or str(error))
    return Picture(made.image, made.size)


def look(paths: Sequence[Path]) -> tuple[list[tuple[int, int]], float]:
    """Look at a sample: the sizes of the pictures that can be read, and the share that has colours."""
    step = max(1, len(paths) // SAMPLE)
    seen = list(in_threads(lambda path: read(path, size=64, channels=3, preparation="whole_picture"), paths[::step]))
    images = [picture.image for picture in seen if picture.image is not None]
    coloured = [has_colour(image) for image in images]
    return [picture.size for picture in seen if picture.image is not None], sum(coloured) / max(1, len(coloured))


def has_colour(image: Images) -> bool:
    """True if more than a hundredth of the pixels of an (H, W, 3) image are not grey."""
    return bool((np.ptp(image.astype(np.int16), axis=2) > COLOURED).mean() > 0.01)


def fitting_size(sizes: Sequence[tuple[int, int]], count: int) -> int:
    """Choose the edge of the network's input: the pictures' own, where that is not more than a CPU's time allows.

    Args:
        sizes: widths and heights of a sample.
        count: number of pictures in all.
    """
    edge = float(np.median([max(size) for size in sizes])) if sizes else 0.0
    affordable = math.sqrt(PIXELS / max(1, count))
    own = next((size for size in SIZES if size >= ENOUGH * edge), SIZES[-1])
    return max((size for size in SIZES if size <= min(own, affordable)), default=SIZES[0])
