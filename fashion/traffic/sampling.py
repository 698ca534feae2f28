"""Which pictures simulated users send: held-out rows, corrupted by name. Knows no service."""

from collections.abc import Sequence

import numpy as np

from fashion.config.schema import DataConfig
from fashion.data.dataset import Split
from fashion.data.loading import load_dataset
from fashion.home import current_home
from fashion.images import corruptions
from fashion.images.transform import Images
from fashion.predictions.labelled import TEST_ROWS

SOURCE = "traffic"
"""Source of feedback on rows that `data.live_rows` sets aside for this."""


def sample_rows(data: DataConfig, count: int, *, seed: int) -> tuple[Split, str]:
    """Draw labelled pictures, and say which source feedback on them should name.

    Rows set aside by `data.live_rows` where there are any. Otherwise they are test rows: a model that was trained on
    them would be scored on what it has seen, so their feedback is marked to be left out of training.

    Args:
        data: the data set.
        count: rows to draw; with more than there are, rows come again once all have come.
        seed: of the draw.

    Returns:
        The rows, and the source of feedback on them.

    Raises:
        fashion.data.manifest.DataError: the data cannot be read or fetched.
    """
    loaded = load_dataset(data, current_home().data)
    split = loaded.live if loaded.live is not None else loaded.test
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(split))
    rows = np.concatenate([rng.permutation(len(split)) for _ in range(max(1, rounds))])[:count]
    return Split(split.images[rows], split.labels[rows]), SOURCE if loaded.live is not None else TEST_ROWS


def apply_shifts(images: Images, shifts: Sequence[tuple[str, float]], *, seed: int = 0) -> Images:
    """Apply corruptions, one after the other.

    Args:
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        shifts: name and amount of each corruption.
        seed: of corruptions that are random.

    Raises:
        ValueError: an amount is out of range.
    """
    for name, amount in shifts:
        images = corruptions.corrupt(images, name, amount, seed=seed)
    return images


def parse_shift(text: str) -> tuple[str, float]:
    """Parse `NAME=AMOUNT`.

    Raises:
        ValueError: it is something else, or no corruption has that name.
    """
    name, separator, amount = text.partition("=")
    try:
        if separator and name in corruptions.CORRUPTIONS:
            return name, float(amount)
    except ValueError:
        pass
    known = ", ".join(sorted(corruptions.CORRUPTIONS))
    raise ValueError(f"--shift must be NAME=AMOUNT such as brightness=0.4, got {text!r}; names are {known}")
