"""Images as the network saw them, stored once under the sha256 of their pixels. Knows no predictions."""

import hashlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fashion.images.transform import Images
from fashion.storage.blobs import Store

PREFIX = "sha256/"


class DamagedImage(ValueError):
    """A stored image does not have the pixels that its name promises."""


def digest(image: Images) -> str:
    """Return the sha256 of one image's pixels, `(H, W)` or `(H, W, C)` uint8."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()


def put(store: Store, image: Images, sha256: str) -> bool:
    """Store an image as PNG; return True if it was not there yet.

    Args:
        store: where images are stored.
        image: `(H, W)` or `(H, W, C)` uint8.
        sha256: its digest.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    return store.put_if_absent(_name(sha256), to_png(image))


def get(store: Store, sha256: str) -> Images:
    """Return a stored image.

    Raises:
        fashion.storage.blobs.BlobNotFound: the image was not stored.
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
        DamagedImage: the stored file is not a PNG, or has other pixels.
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


def is_stored(store: Store, sha256: str) -> bool:
    """Return True if an image is stored.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    return store.exists(_name(sha256))


def delete(store: Store, sha256: str) -> None:
    """Delete an image; one that is not stored changes nothing.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    store.delete(_name(sha256))


def stored(store: Store) -> Iterator[str]:
    """Yield the digests of all stored images.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    for name in store.list(PREFIX):
        sha256 = name.rpartition("/")[2].removesuffix(".png")
        if name == _name(sha256):
            yield sha256


def to_png(image: Images) -> bytes:
    """Encode one image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _name(sha256: str) -> str:
    # 256 folders: one folder of millions of files is slow on most disks.
    return f"{PREFIX}{sha256[:2]}/{sha256}.png"
