"""`fashion serve`: serve the latest bento of this machine's store, on loopback unless told otherwise.

With `--follow` a newer bento takes the place of the one that is served: whoever promotes or rolls back a version, and
builds its bento, has deployed it. Between the two nobody answers for the few seconds that a start takes.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from bentos.building import NAME
from fashion.home import prepare_environment

LOOK_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Become BentoML's server, or watch over it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fashion serve", description="Serve the classifier.")
    parser.add_argument("--bento", default=f"{NAME}:latest", help="tag of the bento; the latest if not said")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; only this machine sees the default")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--follow", action="store_true", help="serve each new bento in place of the one before")
    options = parser.parse_args(arguments)
    home = prepare_environment()
    tag = find(options.bento)
    if tag is None:
        print(f"error: there is no bento {options.bento} in {home.bentos}: run `make bento` first", file=sys.stderr)
        return 1
    if options.follow:
        return follow(options.bento, tag, options.host, options.port)
    print(f"{tag} on http://{options.host}:{options.port} (Ctrl-C ends it)", flush=True)
    os.environ.update(environment())
    os.execv(sys.executable, command(tag, options.host, options.port))


def find(bento: str) -> str | None:
    """The full tag of a bento in the store; None where there is none."""
    from bentoml.bentos import get
    from bentoml.exceptions import BentoMLException

    try:
        return str(get(bento).tag)
    except BentoMLException:
        return None


def command(tag: str, host: str, port: int) -> list[str]:
    """How BentoML serves it."""
    return [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]


def environment() -> dict[str, str]:
    """What the service's processes are given: memory of a large picture goes back to the system at once."""
    return {"MALLOC_MMAP_THRESHOLD_": os.environ.get("MALLOC_MMAP_THRESHOLD_", str(1024 * 1024))}


def follow(bento: str, tag: str, host: str, port: int) -> int:
    """Serve `tag`, and whatever `bento` comes to mean, until told to end; returns the exit code of the last one."""
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    while True:
        print(f"{tag} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
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
