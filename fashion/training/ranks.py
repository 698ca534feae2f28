"""Which processes train one model together, and which rows each of them has. Independent of how they start and talk.

A rank is one process with one device; a node is a machine, or a pod, with one or more ranks. Ranks are numbered over
all nodes from 0.
"""

from dataclasses import dataclass


class RankLost(RuntimeError):
    """A rank or a node ended or hangs, so that the others cannot go on. What was stored is sound: resume from it."""


@dataclass(frozen=True)
class Ranks:
    """All ranks of one training, seen from one of its nodes."""

    num_nodes: int = 1
    per_node: int = 1
    """Ranks on each node."""
    node: int = 0
    """Number of this node, from 0."""
    address: str = "127.0.0.1"
    """Where the other nodes reach node 0."""
    port: int = 0
    """Of node 0; 0 for any free one, which only a training on one node can use."""
    timeout_seconds: float = 600.0
    """How long a node waits for the others to start, and a rank for the others in a step."""

    @property
    def world_size(self) -> int:
        """Ranks of all nodes."""
        return self.num_nodes * self.per_node

    def __post_init__(self) -> None:
        if self.num_nodes < 1 or self.per_node < 1:
            raise ValueError(f"there must be at least 1 node and 1 rank, got {self.num_nodes} and {self.per_node}")
        if not 0 <= self.node < self.num_nodes:
            raise ValueError(f"node must be in [0, {self.num_nodes}), got {self.node}")


@dataclass(frozen=True)
class Rank:
    """One rank."""

    ranks: Ranks
    local_rank: int
    """Number on its node, from 0."""

    @property
    def number(self) -> int:
        """Number over all nodes, from 0."""
        return self.ranks.node * self.ranks.per_node + self.local_rank

    @property
    def rows(self) -> slice:
        """The rows of a batch, or of a split, that this rank has: of all ranks together each row once.

        Rows are dealt like cards, so that shares differ by one row at most.
        """
        return slice(self.number, None, self.ranks.world_size)

    def __str__(self) -> str:
        return f"rank {self.number} of {self.ranks.world_size}"


ALONE = Rank(Ranks(), 0)
"""The only rank of a training."""
