"""The nodes of one training: they start together, and one that ends is known to the others. Independent of torch.

Node 0 listens and the others connect to it. A node that is killed closes its connection, wherever in the training.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from fashion.training.ranks import RankLost, Ranks

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RETRY_SECONDS = 0.2
"""Between two attempts to reach node 0."""
GOODBYE_SECONDS = 10.0
"""How long node 0 waits for the others to have read why a training ended."""

Check = Callable[[], str | None]
"""Returns why another node will never come, if that is known here."""


@dataclass
class Nodes:
    """The other nodes, as one of them sees them."""

    store_port: int
    """Where the ranks find one another on node 0."""
    store: socket.socket | None = None
    """Node 0's listening socket of that port; rank 0 gets it."""
    links: dict[int, Connection] = field(default_factory=dict)
    """Node -> connection: on node 0 to every other one, elsewhere to node 0."""

    def failure(self, ready: Sequence[object]) -> str | None:
        """Read the connections that are ready, and return why another node ended before the training did."""
        for node, link in list(self.links.items()):
            if link in ready:
                try:
                    message = json.loads(link.recv_bytes())
                except (EOFError, OSError):
                    del self.links[node]
                    return f"node {node} ended"
                if message["failed"] is not None:
                    return str(message["failed"])
                del self.links[node]  # it finished
        return None

    def end(self, failed: str | None = None) -> None:
        """Say goodbye.

        Args:
            failed: why the training failed here, for the others to end with the same sentence.
        """
        is_first = self.store is not None
        for link in self.links.values():
            with contextlib.suppress(OSError):
                link.send_bytes(json.dumps({"failed": failed}).encode())
        deadline = time.monotonic() + GOODBYE_SECONDS
        for link in self.links.values():
            with contextlib.suppress(EOFError, OSError):
                while is_first and link.poll(max(0.0, deadline - time.monotonic())):
                    link.recv_bytes()
            link.close()
        self.links.clear()
        if self.store is not None:
            self.store.close()


def meet(ranks: Ranks, check: Check = lambda: None) -> Nodes:
    """Wait until all nodes are there.

    Raises:
        RankLost: one did not come in time, or never will.
    """
    if ranks.node:
        return _join(ranks, check)
    host = "127.0.0.1" if ranks.num_nodes == 1 or ranks.address in LOOPBACK else ""
    store = socket.create_server((host, 0))
    nodes = Nodes(store.getsockname()[1], store)
    if ranks.num_nodes > 1:
        try:
            server = socket.create_server((host, ranks.port))
        except OSError as error:
            raise RankLost(f"port {ranks.port} of node 0 cannot be used: {error.strerror}") from error
        with server:
            _welcome(server, nodes, ranks, check)
    return nodes


def _welcome(server: socket.socket, nodes: Nodes, ranks: Ranks, check: Check) -> None:
    server.settimeout(RETRY_SECONDS)
    deadline = time.monotonic() + ranks.timeout_seconds
    while len(nodes.links) < ranks.num_nodes - 1:
        reason = check()
        if reason is None and time.monotonic() > deadline:
            came = ", ".join(map(str, sorted([0, *nodes.links])))
            reason = (
                f"of {ranks.num_nodes} nodes only {came} started within {ranks.timeout_seconds:g} seconds; "
                "see the logs of the others, or raise resources.rank_timeout_minutes"
            )
        if reason is not None:
            nodes.end(reason)
            raise RankLost(reason)
        with contextlib.suppress(TimeoutError, EOFError, OSError, ValueError):
            accepted, _ = server.accept()
            accepted.setblocking(True)
            link = Connection(accepted.detach())
            if link.poll(1.0):
                nodes.links[int(json.loads(link.recv_bytes())["node"])] = link
    for link in nodes.links.values():
        link.send_bytes(json.dumps({"failed": None, "store_port": nodes.store_port}).encode())


def _join(ranks: Ranks, check: Check) -> Nodes:
    deadline = time.monotonic() + ranks.timeout_seconds
    absent = f"node 0 did not answer at {ranks.address}:{ranks.port} within {ranks.timeout_seconds:g} seconds"
    while True:
        if (reason := check()) is not None:
            raise RankLost(reason)
        if time.monotonic() > deadline:
            raise RankLost(f"{absent}; see its log, or raise resources.rank_timeout_minutes")
        try:
            link = Connection(socket.create_connection((ranks.address, ranks.port), timeout=5).detach())
            break
        except OSError:
            time.sleep(RETRY_SECONDS)
    try:
        link.send_bytes(json.dumps({"node": ranks.node}).encode())
        if not link.poll(max(1.0, deadline - time.monotonic())):
            raise RankLost(absent)
        message = json.loads(link.recv_bytes())
    except (EOFError, OSError) as error:
        raise RankLost("node 0 ended before the training started") from error
    if message["failed"] is not None:
        raise RankLost(message["failed"])
    return Nodes(message["store_port"], links={0: link})
