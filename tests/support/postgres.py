"""A PostgreSQL server on loopback, from Debian's package `postgresql`, with its data in a temporary folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .served import free_port

SETTINGS = ("fsync=off", "full_page_writes=off", "unix_socket_directories=", "listen_addresses=127.0.0.1")
"""Nothing that a test writes has to outlive the machine."""


def programs() -> Path | None:
    """The folder of the newest installed server's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Serve a new cluster; yields `postgresql://fashion@127.0.0.1:port`, to which `/database` is appended.

    Skips the test where PostgreSQL is not installed, except in CI.
    """
    folder = programs()
    if folder is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is missing: apt-get install postgresql")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="fashion-postgres-") as root:
        data = Path(root, "data")
        user: list[str] = []
        if os.geteuid() == 0:  # the server does not run as root
            shutil.chown(root, "postgres", "postgres")
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": root}
        initdb = [*user, str(folder / "initdb"), "-D", str(data), "-U", "fashion", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, env=environment, cwd=root)
        options = [word for setting in SETTINGS for word in ("-c", setting)]
        with Path(root, "log").open("wb") as log:
            server = subprocess.Popen(
                [*user, str(folder / "postgres"), "-D", str(data), "-p", str(port), *options],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=root,
            )
        try:
            address = f"postgresql://fashion@127.0.0.1:{port}"
            ready = [str(folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "fashion"]
            for _ in range(300):
                if subprocess.run(ready, env=environment).returncode == 0:
                    break
                assert server.poll() is None, Path(root, "log").read_text()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(0.1)
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # a shutdown that does not wait for clients
            server.wait(30)


def create_database(server: str, name: str) -> str:
    """Create a database, and return its address.

    Args:
        server: what `serve` yielded.
        name: lower-case letters, digits and underscores.
    """
    import psycopg

    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{server}/{name}"
