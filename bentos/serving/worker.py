"""One of BentoML's workers, which answers on the service's port when its supervisor tells it to, and ends with it.

Run as a script, not as a module: in this process `bentos` is the copy inside the bento. The worker first listens on an
address of its own, where it is checked.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import Any

LISTEN = b"l"
"""The supervisor's command, and the answer once it is done."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


def main(arguments: Sequence[str]) -> None:
    """Become BentoML's worker.

    Args:
        arguments: file descriptors of the supervisor's end of a socket pair and of the service's listening socket, then
            the arguments of BentoML's worker.
    """
    control = socket.socket(fileno=int(arguments[0]))
    public = socket.socket(fileno=int(arguments[1]))
    sys.argv[1:] = arguments[2:]

    import uvicorn

    # BentoML makes the server in its worker, and uvicorn tells nobody that one has started.
    original = uvicorn.Server.startup

    async def startup(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        await original(server, sockets=sockets)
        server.obeying = asyncio.create_task(obey(server, control, public))  # type: ignore[attr-defined]

    uvicorn.Server.startup = startup  # type: ignore[method-assign, assignment]

    # What BentoML's own supervisor runs; there is no public name for it.
    from _bentoml_impl.worker.service import main as bentoml_worker

    bentoml_worker()


async def obey(server: Any, control: socket.socket, public: socket.socket) -> None:
    """Do what the supervisor says; end the worker, in order, when the supervisor has gone.

    Args:
        server: uvicorn's, which has started.
        control: connected to the supervisor.
        public: the service's listening socket, which other workers listen on too.
    """
    loop = asyncio.get_running_loop()
    control.setblocking(False)
    with contextlib.suppress(OSError):
        while await loop.sock_recv(control, 1) == LISTEN:
            checked = list(server.servers)
            server.servers.append(
                await loop.create_server(
                    lambda: server.config.http_protocol_class(
                        config=server.config, server_state=server.server_state, app_state=server.lifespan.state
                    ),
                    sock=public,
                    backlog=BACKLOG,
                )
            )
            for each in checked:
                each.close()
            await loop.sock_sendall(control, LISTEN)
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1:])
