"""The process of one rank: `python -m fashion.training.worker`, which `launcher` starts. Knows nothing of flows."""

import os
import pickle
import socket
import sys
import traceback
from multiprocessing.connection import Connection

from torch import nn

from fashion.config.schema import ConfigError
from fashion.storage.address import open_store
from fashion.training import distributed, recipe
from fashion.training.divergence import Diverged
from fashion.training.messages import Channel, EpochDone, Failed, Finished, Place, Restored, Step, Work
from fashion.training.ranks import RankLost
from fashion.training.state import Epoch

LOST = ("gloo", "Connection closed", "Connection reset", "NCCL", "Socket", "store")
"""Words in the errors of torch's collectives, whose class says nothing."""


def main() -> None:
    """Train as the rank that standard input names."""
    place: Place = pickle.load(sys.stdin.buffer)
    channel = Channel(Connection(place.connection))
    work: Work = pickle.loads(place.work.read_bytes())
    store = None if place.store is None else socket.socket(fileno=place.store)
    try:
        with distributed.process_group(place.rank, place.store_port, store):
            finished = _train(place, work, channel)
    except Exception as error:
        channel.send(failure(error, place))
        code = 1
    else:
        channel.send(finished)
        code = 0
    sys.stdout.flush()
    os._exit(code)  # threads of a broken process group may wait for ever


def _train(place: Place, work: Work, channel: Channel) -> Finished:
    def on_epoch(epoch: Epoch, model: nn.Module) -> None:
        channel.ask(EpochDone(epoch, {name: value.cpu() for name, value in model.state_dict().items()}))

    model, result = recipe.train(
        work.config,
        work.dataset,
        rank=place.rank,
        checkpoints=None if work.checkpoints is None else open_store(work.checkpoints),
        on_epoch=on_epoch,
        on_step=lambda done, total, loss: channel.send(Step(done, total, loss)),
        on_restored=lambda history: channel.send(Restored(list(history))),
    )
    return Finished(result, dict(model.state_dict())) if place.rank.number == 0 else Finished(None, {})


def failure(error: Exception, place: Place) -> Failed:
    """How to tell the launcher of an error: expected ones as they are, others with a traceback in this log."""
    if isinstance(error, (ConfigError, Diverged, RankLost)):
        return Failed(error, is_consequence=False)
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and any(word in text for word in LOST):
        waited = "Timed out" in text or "timeout" in text.lower()
        reason = (
            f"{place.rank} waited {place.rank.ranks.timeout_seconds:g} seconds for another one, which hangs"
            if waited
            else f"{place.rank} lost the connection to another one"
        )
        return Failed(RankLost(reason), is_consequence=True)
    traceback.print_exception(error)
    return Failed(RankLost(f"{place.rank} failed: {type(error).__name__}: {text[:300]}"), is_consequence=False)


if __name__ == "__main__":
    main()
