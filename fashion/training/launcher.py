"""Train one model with several ranks: start those of this node, hear of them, and end them all when one fails.

The launching process takes no part in the training, so that it is never stuck in it: whatever ends a rank, the caller
gets one exception with one sentence. Knows nothing of flows.
"""

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from torch import nn

from fashion.config.schema import ConfigError
from fashion.config.train import ResourcesConfig, TrainConfig
from fashion.data.dataset import Dataset
from fashion.state.faults import LESS_MEMORY
from fashion.storage.address import open_store
from fashion.training import nodes, recipe
from fashion.training.fit import FitResult, OnEpoch, OnRestored, OnStep
from fashion.training.messages import EpochDone, Failed, Finished, Place, Restored, Step, Work
from fashion.training.nodes import Check, Nodes
from fashion.training.ranks import ALONE, Rank, RankLost, Ranks

CHECK_SECONDS = 0.5
"""Between two looks at what other nodes do."""
GRACE_SECONDS = 2.0
"""After a failure, how long to wait for a better reason: the ranks that lost the others often end first."""

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    dataset: Dataset,
    *,
    ranks: Ranks = ALONE.ranks,
    checkpoints: str | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_restored: OnRestored | None = None,
    check: Check = lambda: None,
) -> tuple[nn.Module, FitResult] | None:
    """Build and train a network: in this process if there is one rank only, else with a process for each rank.

    Args:
        config: of the training.
        dataset: the same on each node.
        ranks: all of them; each node calls this once.
        checkpoints: address of the store; see `fit`. All nodes need to give it, and rank 0 uses it.
        on_epoch: see `fit`; called on node 0.
        on_step: see `fit`; called on node 0.
        on_restored: see `fit`; called on node 0.
        check: called now and then; returns why another node will never come, if that is known.

    Returns:
        What `recipe.train` returns; None on other nodes than 0.

    Raises:
        ConfigError: the network cannot be built, or a batch is too small to be shared.
        Diverged: on all nodes alike.
        RankLost: a rank or a node ended, or hangs.
    """
    if ranks.world_size == 1:
        store = None if checkpoints is None else open_store(checkpoints)
        callbacks = {"on_epoch": on_epoch, "on_step": on_step, "on_restored": on_restored}
        return recipe.train(config, dataset, checkpoints=store, **callbacks)  # type: ignore[arg-type]
    check_batch_size(config, dataset, ranks)
    model = recipe.build(config)
    heard = Listener(model, on_epoch, on_step, on_restored)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.write_bytes(pickle.dumps(Work(config, dataset, checkpoints)))
        met = nodes.meet(ranks, check)
        failed: str | None = "another node was interrupted"
        processes: list[Process] = []
        try:
            processes.extend(start(ranks, met, work))
            supervise(processes, met, heard, check)
            failed = None
        except Exception as error:
            failed = str(error)
            raise
        finally:
            for process in processes:
                process.end()
            met.end(failed)
    return None if heard.result is None else (model, heard.result)


def check_batch_size(config: TrainConfig, dataset: Dataset, ranks: Ranks) -> None:
    """Refuse batches of which a rank would get less than two images: batch norm needs two.

    Raises:
        ConfigError: there are too few.
    """
    rows = min(config.training.batch_size, len(dataset.train))
    if rows < 2 * ranks.world_size:
        raise ConfigError(
            f"a batch of {rows} images (training.batch_size={config.training.batch_size}) is too small for "
            f"{ranks.world_size} ranks: each needs two; use a larger batch, or fewer resources.nodes or resources.gpu"
        )


def ranks_per_node(resources: ResourcesConfig) -> int:
    """How many ranks this machine can have: one for each requested GPU, where torch finds GPUs at all.

    Raises:
        ConfigError: there are GPUs, but fewer than requested.
    """
    found = torch.cuda.device_count()
    if found and resources.gpu > found:
        raise ConfigError(f"resources.gpu={resources.gpu}, but this machine has {found}: set it to {found} or less")
    if resources.gpu and not found:
        logger.warning(
            "resources.gpu=%d, but torch %s finds no GPU here: training takes the CPU", resources.gpu, torch.__version__
        )
    return max(1, resources.gpu) if found else 1


@dataclass
class Process:
    """A started rank."""

    rank: Rank
    popen: subprocess.Popen[bytes]
    connection: Connection
    is_finished: bool = False

    def end(self) -> None:
        """Kill it, unless it ended. It holds nothing: checkpoints are stored as a whole."""
        self.popen.kill()
        self.popen.wait()
        self.connection.close()

    def ending(self) -> RankLost:
        """Why it ended without a message."""
        code = self.popen.wait()
        if code < 0:
            why = f", probably because memory ran out: {LESS_MEMORY}" if code == -signal.SIGKILL else ""
            return RankLost(f"{self.rank} was killed by signal {-code} ({signal.Signals(-code).name}){why}")
        return RankLost(f"{self.rank} ended with exit code {code}; see the lines above")


class Listener:
    """Calls the caller's functions for what rank 0 reports, and holds its result."""

    def __init__(
        self, model: nn.Module, on_epoch: OnEpoch | None, on_step: OnStep | None, on_restored: OnRestored | None
    ) -> None:
        self._model, self._on_epoch, self._on_step, self._on_restored = model.eval(), on_epoch, on_step, on_restored
        self.result: FitResult | None = None

    def hear(self, process: Process, message: object) -> Failed | None:
        """Act on a message of a rank; return it if it is a failure."""
        match message:
            case Step(done, total, loss):
                if self._on_step is not None:
                    self._on_step(done, total, loss)
            case Restored(history):
                if self._on_restored is not None:
                    self._on_restored(history)
            case EpochDone(epoch, weights):
                if self._on_epoch is not None:
                    self._model.load_state_dict(weights)
                    self._on_epoch(epoch, self._model)
                with contextlib.suppress(OSError):  # it ended meanwhile, which is heard next
                    process.connection.send_bytes(b"go on")
            case Finished(result, weights):
                process.is_finished = True
                if result is not None:
                    self._model.load_state_dict(weights)
                    self.result = result
            case Failed():
                return message
        return None


def start(ranks: Ranks, met: Nodes, work: Path) -> Iterator[Process]:
    """Start the ranks of this node.

    Args:
        ranks: all of them.
        met: the other nodes.
        work: a file with pickled `Work`.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # in a pod, the code is where the flow is
        "TORCH_CPP_LOG_LEVEL": "FATAL",  # a lost rank is one sentence here, and pages of stack frames there
    }
    if ranks.address in nodes.LOOPBACK:  # else gloo resolves the host's name, which some laptops cannot
        loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    for local_rank in range(ranks.per_node):
        rank = Rank(ranks, local_rank)
        ours, theirs = Pipe()
        store = met.store.fileno() if met.store is not None and rank.number == 0 else None
        place = Place(rank, met.store_port, store, theirs.fileno(), work)
        popen = subprocess.Popen(
            [sys.executable, "-m", "fashion.training.worker"],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[theirs.fileno()] if store is None else [theirs.fileno(), store],
        )
        theirs.close()
        assert popen.stdin is not None
        with popen.stdin as stdin:
            stdin.write(pickle.dumps(place))
        yield Process(rank, popen, ours)


def supervise(processes: list[Process], met: Nodes, heard: Listener, check: Check) -> None:
    """Listen until all ranks of this node have finished.

    Raises:
        RankLost: a rank or another node ended.
        Exception: what a rank, or a function that is called for it, raised.
    """
    while running := {process.connection: process for process in processes if not process.is_finished}:
        ready = wait([*running, *met.links.values()], CHECK_SECONDS)
        failures = list(_failures(running, ready, heard))
        elsewhere = met.failure(ready) or check()
        if failures or elsewhere:
            raise _cause(running, failures, elsewhere, met, heard)


def _failures(running: dict[Connection, Process], ready: Sequence[object], heard: Listener) -> Iterator[Failed]:
    for connection, process in list(running.items()):
        if connection in ready:
            try:
                message = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError):
                del running[connection]
                yield Failed(process.ending(), is_consequence=False)
                continue
            failed = heard.hear(process, message)
            if failed is not None or process.is_finished:
                del running[connection]
            if failed is not None:
                yield failed


def _cause(
    running: dict[Connection, Process], failures: list[Failed], elsewhere: str | None, met: Nodes, heard: Listener
) -> Exception:
    """The error to raise: that of the rank that failed first, not of those that lost it, which often end before."""
    deadline = time.monotonic() + GRACE_SECONDS
    while all(failed.is_consequence for failed in failures) and (left := deadline - time.monotonic()) > 0:
        ready = wait([*running, *met.links.values()], left)
        failures.extend(_failures(running, ready, heard))
        elsewhere = elsewhere or met.failure(ready)
        if not running:
            break
    if causes := [failed.error for failed in failures if not failed.is_consequence]:
        return causes[0]
    return failures[0].error if elsewhere is None else RankLost(elsewhere)
