"""Pictures kept by the sha256 of their pixels: what comes back is what was put, or an error that says so."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.pictures import stored_digests

from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound


@settings(max_examples=30)
@given(st.one_of(arrays(np.uint8, (28, 28)), arrays(np.uint8, (32, 32, 3))))
def test_a_picture_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> None:
    store = open_store(str(tmp_path_factory.mktemp("images")))
    sha256 = image_store.digest(image)
    assert image_store.put(store, image, sha256)
    assert not image_store.put(store, image, sha256)
    assert (image_store.get(store, sha256) == image).all()
    assert stored_digests(store) == {sha256}


def test_other_pixels_are_rejected(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    image = np.zeros((28, 28), np.uint8)
    image_store.put(store, image, "0" * 64)
    with pytest.raises(DamagedImage, match="other pixels"):
        image_store.get(store, "0" * 64)


def test_bytes_that_are_not_a_picture_are_rejected(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put(f"sha256/00/{'0' * 64}.png", b"no")
    with pytest.raises(DamagedImage, match="is damaged"):
        image_store.get(store, "0" * 64)


def test_a_picture_that_was_not_stored_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(BlobNotFound):
        image_store.get(open_store(str(tmp_path)), "0" * 64)


def test_the_digest_is_of_the_pixels_alone() -> None:
    image = np.arange(28 * 28, dtype=np.uint16).astype(np.uint8).reshape(28, 28)
    assert image_store.digest(image) == image_store.digest(np.asfortranarray(image))
    assert image_store.digest(image) != image_store.digest(image.T)
