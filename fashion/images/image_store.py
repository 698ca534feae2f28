"""What the network saw, kept under the sha256 of its pixels: the same picture once. Knows no predictions."""

import hashlib
import io

import numpy as np
from PIL import Image

from fashion.images.transform import Images
from fashion.storage.blobs import Store

PREFIX = "sha256/"


class DamagedImage(ValueError):
    """A kept picture that is not what its name says."""


def digest(image: Images) -> str:
    """sha256 of one image's pixels: `(H, W)` or `(H, W, C)` uint8."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()


def put(store: Store, image: Images, sha256: str) -> bool:
    """Keep an image, as PNG; tell whether it is new."""
    return store.put_if_absent(_name(sha256), to_png(image))


def get(store: Store, sha256: str) -> Images:
    """A kept image.

    Raises:
        fashion.storage.blobs.BlobNotFound: it was not kept.
        DamagedImage: what is there has other pixels.
    """
    data = store.get(_name(sha256))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            image = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedImage(f"{store.address}/{_name(sha256)} is damaged: {error}") from None
    if digest(image) != sha256:
        raise DamagedImage(f"{store.address}/{_name(sha256)} is damaged: it holds other pixels")
    return image


def to_png(image: Images) -> bytes:
    """One image as PNG, losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _name(sha256: str) -> str:
    # Folders of 256: a folder of millions of files is slow on most disks.
    return f"{PREFIX}{sha256[:2]}/{sha256}.png"
