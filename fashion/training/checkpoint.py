"""Store and load the state of a training. Knows nothing of what the state holds besides random generators."""

import io
import logging
import zipfile
from collections.abc import Collection
from typing import Any

import torch

from fashion.storage.blobs import BlobNotFound, Store

CHECKPOINT = "checkpoint.pt"
DAMAGED = "checkpoint-damaged.pt"
"""Where one is put that cannot be used."""

logger = logging.getLogger(__name__)
SINCE_LATER = {"first"}
"""Fields that states of older versions lack."""


def save(store: Store, state: dict[str, Any]) -> None:
    """Store a state in the place of the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.put(CHECKPOINT, buffer.getvalue())


def read(store: Store | None, fields: Collection[str]) -> bytes | None:
    """The stored state as bytes; None if there is no store or no state.

    A damaged state, or one of another version of this program, is put aside, and there is none.

    Args:
        store: where it is.
        fields: what a state holds.
    """
    if store is None:
        return None
    try:
        content = store.get(CHECKPOINT)
    except BlobNotFound:
        return None
    try:
        broken = zipfile.ZipFile(io.BytesIO(content)).testzip()  # torch does not compare its checksums itself
        found = set() if broken else set(parse(content, torch.device("cpu")))
        is_whole = set(fields) - SINCE_LATER <= found <= set(fields)
        problem = None if is_whole else "it is of another version of this program"
        problem = f"the checksum of {broken} is wrong" if broken else problem
    except Exception as error:  # what torch raises depends on the byte that is wrong
        problem = f"{len(content):,} bytes, {type(error).__name__}"
    if problem is None:
        return content
    store.put(DAMAGED, content)
    logger.warning(
        "the checkpoint %s/%s cannot be used (%s): it is kept as %s, and training starts from the beginning",
        store.address,
        CHECKPOINT,
        problem,
        DAMAGED,
    )
    return None


def parse(content: bytes, device: torch.device) -> dict[str, Any]:
    """The state in such bytes, with its tensors on `device`."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def random_state(device: torch.device) -> dict[str, Any]:
    """State of torch's global generators, which dropout and stochastic depth draw from; Fabric does not store it."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set torch's global generators as `random_state` found them."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
