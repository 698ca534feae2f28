"""Whether a server can listen on a port, asked before it starts: its own errors are pages of traceback."""

import errno
import socket

from fashion.commands.errors import CommandError


def require_free(host: str, port: int) -> None:
    """Check that a server can listen on a port.

    Args:
        host: address that it is to listen on.
        port: of that address.

    Raises:
        CommandError: naming who listens there, where this user may know it, and what to do.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"port {port} of {host} is in use{_listener(port)}: end that program, or give --port {port + 1}"
            ) from None
        raise CommandError(
            f"no server can listen on port {port} of {host} ({error.strerror or error}): give another --host or --port"
        ) from None


def _listener(port: int) -> str:
    """Who listens, as part of a sentence; empty where it is another user's."""
    import psutil

    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                command = " ".join(psutil.Process(each.pid).cmdline())[:100]
                return f" by process {each.pid} ({command})"
    except (psutil.Error, OSError):
        pass
    return ""
