"""What ranks say to one another: Fabric over torch.distributed. With one rank each function returns what it was given.

Gradients are averaged by DistributedDataParallel. Here is the rest: sums of losses, statistics of batch norm, states.
"""

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from fashion.training.ranks import Rank, RankLost


class LaunchedRank(ClusterEnvironment):
    """Tells Fabric which rank this process is: it starts none by itself."""

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._rank.ranks.address

    @property
    def main_port(self) -> int:
        return self._rank.ranks.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._rank.ranks.world_size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._rank.number

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._rank.local_rank

    def node_rank(self) -> int:
        return self._rank.ranks.node


def connect(rank: Rank, precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
    """Return Fabric on this rank's device, in the process group of `process_group` if there are several ranks."""
    if rank.ranks.world_size == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    # Buffers are averaged after each epoch, which is exact for means; to broadcast rank 0's at each step is neither.
    strategy = DDPStrategy(forward_sync_buffers=False, timeout=timedelta(seconds=rank.ranks.timeout_seconds))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=rank.ranks.per_node,
        num_nodes=rank.ranks.num_nodes,
        strategy=strategy,
        plugins=[LaunchedRank(rank)],
        precision=precision,
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def process_group(rank: Rank, store_port: int, store: socket.socket | None = None) -> Iterator[None]:
    """Connect the ranks while the block runs: by nccl where there are GPUs, by gloo where there are none.

    Args:
        rank: of this process.
        store_port: where rank 0 listens.
        store: the listening socket, on rank 0.

    Raises:
        RankLost: the ranks did not find one another in time.
    """
    ranks, timeout = rank.ranks, timedelta(seconds=rank.ranks.timeout_seconds)
    on_gpu = torch.cuda.is_available()
    try:
        found = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1" if ranks.node == 0 else ranks.address,
            store_port,
            is_master=store is not None,
            wait_for_workers=False,
            timeout=timeout,
            master_listen_fd=None if store is None else store.detach(),
        )
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=found,
            rank=rank.number,
            world_size=ranks.world_size,
            timeout=timeout,
            device_id=torch.device("cuda", rank.local_rank) if on_gpu else None,
        )
    except dist.DistError as error:
        raise RankLost(f"{rank} did not find the others within {ranks.timeout_seconds:g} seconds") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def synchronized(fabric: Fabric, model: nn.Module) -> nn.Module:
    """The model with batch norm over the whole batch of all ranks, where torch can do that: on GPUs.

    On CPUs each rank normalises by its own rows, which costs no measurable accuracy; see tests/benchmarks/distributed.
    """
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        return model
    from timm.layers.norm_act import convert_sync_batchnorm  # torch's own would drop the activations of timm's norms

    converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def mean(fabric: Fabric, value: Tensor) -> Tensor:
    """The mean over the ranks."""
    return value if fabric.world_size == 1 else _reduced(fabric, value.clone(), "mean")


def total(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum over the ranks."""
    return value if fabric.world_size == 1 else _reduced(fabric, value.clone(), "sum")


def _reduced(fabric: Fabric, value: Tensor, operation: str) -> Tensor:
    reduced = fabric.all_reduce(value, reduce_op=operation)
    assert isinstance(reduced, Tensor)
    return reduced


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """The values of all ranks, in their order, on every rank."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value)
    return values


def average_buffers(fabric: Fabric, *models: nn.Module) -> None:
    """Give all ranks the same batch norm statistics: the mean of theirs. Counts are equal already."""
    if fabric.world_size == 1:
        return
    for model in models:
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if buffers:
            flat = _reduced(fabric, torch.cat([buffer.flatten() for buffer in buffers]), "mean")
            parts = torch.split(flat, [buffer.numel() for buffer in buffers])
            for buffer, value in zip(buffers, parts, strict=True):
                buffer.copy_(value.view_as(buffer))


def check_same_weights(fabric: Fabric, model: nn.Module) -> None:
    """Compare the weights and buffers of all ranks, by their hashes.

    Raises:
        RankLost: they differ.
    """
    if fabric.world_size == 1:
        return
    digests = gather(fabric, weights_digest(model))
    if len(set(digests)) > 1:
        raise RankLost(f"the weights of the ranks differ ({', '.join(digests)}): a device computes wrong, or a bug")


def weights_digest(model: nn.Module) -> str:
    """A hash of all weights and buffers, bit for bit."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
