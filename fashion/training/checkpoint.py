"""Store and load the state of a training. Knows nothing of what the state holds besides random generators."""

import io
from typing import Any

import torch

from fashion.storage.blobs import BlobNotFound, Store

CHECKPOINT = "checkpoint.pt"


def save(store: Store, state: dict[str, Any]) -> None:
    """Store a state in the place of the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.put(CHECKPOINT, buffer.getvalue())


def load(store: Store | None, device: torch.device) -> dict[str, Any] | None:
    """The stored state, with its tensors on `device`; None if there is no store or no state."""
    if store is None:
        return None
    try:
        content = store.get(CHECKPOINT)
    except BlobNotFound:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def random_state() -> dict[str, Any]:
    """State of torch's global generators, which dropout and stochastic depth draw from; Fabric does not store it."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set torch's global generators as `random_state` found them."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
