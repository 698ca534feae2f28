"""Checkpoints of one training: what is in them, and reading them back."""

import io
from typing import Any

import torch

from fashion.storage.blobs import BlobNotFound, Store

CHECKPOINT = "checkpoint.pt"


def load_checkpoint(checkpoints: Store | None, device: torch.device) -> dict[str, Any] | None:
    if checkpoints is None:
        return None
    try:
        stored = checkpoints.get(CHECKPOINT)
    except BlobNotFound:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(stored), map_location=device, weights_only=True)
    return state


def random_state() -> dict[str, Any]:
    """Dropout and stochastic depth draw from torch's global generators; Fabric does not store them."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
