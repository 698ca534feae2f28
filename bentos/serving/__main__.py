"""Serve a bento of this machine's store; `fashion serve` starts this program.

With `--follow` a newer bento replaces the one that is served: promoting or rolling back a version and building its
bento deploys it.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE

from bentos import archives
from bentos.serving.state import StateFile, is_alive
from bentos.serving.supervisor import Supervisor
from bentos.serving.worker import BACKLOG
from fashion.config.names import MODEL_NAME, PORT, URL
from fashion.home import current_home, prepare_environment

ORPHAN_SECONDS = 20.0
"""How long to wait for a port that workers of a killed supervisor still hold: they end once their requests are done."""


class CannotListen(RuntimeError):
    """The address cannot be listened on. The message is one sentence with the remedy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        arguments: as `fashion serve` passes them, which also checks and explains them.
    """
    parser = argparse.ArgumentParser(prog="python -m bentos.serving", description="What `fashion serve` runs.")
    parser.add_argument("--bento", default=f"{MODEL_NAME}:latest")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--follow", action="store_true")
    options = parser.parse_args(arguments)
    home = prepare_environment()
    state = StateFile(home.root, options.port)
    try:
        is_archive = archives.is_archive(options.bento)
        tag = archives.import_archive(options.bento) if is_archive else find(options.bento)
        if tag is None:
            print(f"error: there is no bento {options.bento} in {home.bentos}: run `make bento` first", file=sys.stderr)
            return 1
        with listen(options.host, options.port, state) as listener:
            supervisor = Supervisor(
                listener,
                state,
                {**os.environ, "BENTOML_HOST": options.host},  # workers close what is for loopback
                announce=lambda served: announcement(served, options.host, options.port),
                newest=lambda: find(options.bento) if options.follow and not is_archive else None,
                is_stored=lambda stored: find(stored) is not None,
            )
            is_latest = not is_archive and options.bento.partition(":")[2] in ("", "latest")
            return supervisor.serve(tag, may_fall_back=is_latest)
    except (archives.ArchiveError, CannotListen) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or home.root} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1


def announcement(tag: str, host: str, port: int) -> str:
    """Return lines that say what is served, where, and what to type next.

    Args:
        tag: of the bento.
        host: address that the server listens on.
        port: of that address.
    """
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    option = "" if url == URL else f" --url {url}"
    return f"""{tag} on {url} (Ctrl-C ends it)
  open        {url} for the page, {url}/docs for the API, {url}/monitoring for recent traffic
  send        fashion traffic --rows 500{option}
  then type   fashion status{option}"""


def find(bento: str) -> str | None:
    """Return the full tag of a bento in the store; None where there is none."""
    from bentoml.bentos import get
    from bentoml.exceptions import BentoMLException

    try:
        return str(get(bento).tag)
    except BentoMLException:
        return None
    except Exception:  # a damaged bento.yaml raises almost any type; starting that bento says which
        name, _, version = bento.partition(":")
        if version not in ("", "latest"):
            return bento
        latest = current_home().bentos / "bentos" / name / "latest"
        return f"{name}:{latest.read_text().strip()}" if latest.is_file() else None


def listen(host: str, port: int, state: StateFile) -> socket.socket:
    """Listen on an address; wait a little where workers of a killed supervisor still do.

    Args:
        host: address of this machine.
        port: of that address.
        state: of the service on this port.

    Raises:
        CannotListen: the port is in use or reserved, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    until = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            remembered = state.read()
            is_orphaned = remembered.pid is not None and not is_alive(remembered)
            if error.errno == EADDRINUSE and is_orphaned and time.monotonic() < until:
                time.sleep(0.2)
                continue
            raise CannotListen(_explain(error, host, port)) from None


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == EADDRINUSE:
        other = port + 1 if port < 65_535 else 3001
        return (
            f"port {port} of {host} is in use by another program: end that one, or choose another port, such as "
            f"`fashion serve --follow --port {other}`"
        )
    if error.errno == EACCES:
        return f"port {port} needs the rights of root: choose one above 1023, such as `fashion serve --port 3000`"
    return f"{host} is not an address of this machine ({error.strerror or error}): choose one such as 127.0.0.1"


if __name__ == "__main__":
    sys.exit(main())
