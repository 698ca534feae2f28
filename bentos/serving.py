"""Serve a bento of this machine's store; `fashion serve` starts this program.

With `--follow` a newer bento replaces the one that is served: promoting or rolling back a version and building its
bento deploys it. Nothing answers during the few seconds between the two.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from bentos import archives
from bentos.building import NAME
from fashion.home import prepare_environment

LOOK_SECONDS = 2.0
"""Time between two looks for a newer bento."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Become BentoML's server, or watch over it; returns the exit code.

    Args:
        arguments: as `fashion serve` passes them, which also checks and explains them.
    """
    parser = argparse.ArgumentParser(prog="python -m bentos.serving", description="What `fashion serve` runs.")
    parser.add_argument("--bento", default=f"{NAME}:latest")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--follow", action="store_true")
    options = parser.parse_args(arguments)
    home = prepare_environment()
    try:
        tag = archives.import_archive(options.bento) if archives.is_archive(options.bento) else find(options.bento)
    except archives.ArchiveError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if tag is None:
        print(f"error: there is no bento {options.bento} in {home.bentos}: run `make bento` first", file=sys.stderr)
        return 1
    if options.follow and not archives.is_archive(options.bento):
        return follow(options.bento, tag, options.host, options.port)
    print(announcement(tag, options.host, options.port), flush=True)
    os.environ.update(environment())
    os.execv(sys.executable, command(tag, options.host, options.port))


def announcement(tag: str, host: str, port: int) -> str:
    """Return lines that say what is served, where, and what to type next.

    Args:
        tag: of the bento.
        host: address that the server listens on.
        port: of that address.
    """
    url = f"http://{host}:{port}"
    option = "" if url == "http://127.0.0.1:3000" else f" --url {url}"
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


def command(tag: str, host: str, port: int) -> list[str]:
    """Return the command line of BentoML's server.

    Args:
        tag: of the bento.
        host: address to listen on.
        port: of that address.
    """
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]


def environment() -> dict[str, str]:
    """Return variables for the service's processes: memory of a large picture goes back to the system at once."""
    return {"MALLOC_MMAP_THRESHOLD_": os.environ.get("MALLOC_MMAP_THRESHOLD_", str(1024 * 1024))}


def follow(bento: str, tag: str, host: str, port: int) -> int:
    """Serve a bento, and each newer one in its place, until a signal.

    Args:
        bento: tag that may come to mean a newer bento, such as `name:latest`.
        tag: what it means now.
        host: address to listen on.
        port: of that address.

    Returns:
        The exit code of the last server.
    """
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    while True:
        print(announcement(tag, host, port), flush=True)
        # A session of its own: Ctrl-C in a terminal reaches the watcher alone, which ends the service in order.
        served = subprocess.Popen(command(tag, host, port), env={**os.environ, **environment()}, start_new_session=True)
        newer = tag
        while not ending and served.poll() is None and newer == tag:
            time.sleep(LOOK_SECONDS)
            newer = find(bento) or tag  # while the store is being written to, it may hold none
        if served.poll() is None:
            served.send_signal(signal.SIGTERM)
        code = served.wait()
        if ending or newer == tag:
            return code
        tag = newer


if __name__ == "__main__":
    sys.exit(main())
