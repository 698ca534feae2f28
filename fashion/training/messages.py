"""What the process of a rank and its launcher send each other. Knows no training.

Messages are pickled here and not by Connection.send: torch would then share tensors through files of its own.
"""

import os
import pickle
import queue
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch import Tensor

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset
from fashion.training.fit import FitResult
from fashion.training.ranks import Rank
from fashion.training.state import Epoch

LAUNCHER_ENDED = 3
"""Exit code of a rank whose launcher is gone."""


@dataclass(frozen=True)
class Work:
    """What the process of a rank is started for."""

    config: TrainConfig
    dataset: Dataset
    checkpoints: str | None
    """Address of the store."""


@dataclass(frozen=True)
class Place:
    """Which rank a process is, and where it finds the others."""

    rank: Rank
    store_port: int
    store: int | None
    """File descriptor of the listening socket, on rank 0."""
    connection: int
    """File descriptor of the connection to the launcher."""
    work: Path
    """A file with pickled `Work`: several ranks of a node read it."""


@dataclass(frozen=True)
class Restored:
    """A checkpoint was loaded."""

    history: list[Epoch]


@dataclass(frozen=True)
class Step:
    """A step was done; see `fit.OnStep`."""

    done: int
    total: int
    loss: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch was done. The rank goes on once this is answered."""

    epoch: Epoch
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Finished:
    """The training is done."""

    result: FitResult | None
    """Rank 0's."""
    weights: dict[str, Tensor]
    """Rank 0's; empty elsewhere."""


@dataclass(frozen=True)
class Failed:
    """The rank ends with an error."""

    error: Exception
    """What a caller knows how to handle, or a RuntimeError with its sentence."""
    is_consequence: bool
    """It lost the others: the cause is likely to be known elsewhere."""


class Channel:
    """A rank's end of the connection. The process ends when its launcher does, wherever it is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a message."""
        self._connection.send_bytes(pickle.dumps(message))

    def ask(self, message: Any) -> None:
        """Send a message, and wait until it is answered."""
        self.send(message)
        self._answers.get()

    def _listen(self) -> None:
        while True:
            try:
                self._answers.put(self._connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(LAUNCHER_ENDED)
