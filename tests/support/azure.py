"""Azurite, Microsoft's emulator of Azure's storage, in a process of its own. Knows nothing of what is stored."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the account: every Azurite has this one."""
STARTS_SECONDS = 60.0


class Server:
    """The address of an emulator.

    Attributes:
        environment: variables with which clients find it.
    """

    def __init__(self, url: str) -> None:
        self._host = urllib.parse.urlsplit(url).netloc
        self.environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"{url}/{ACCOUNT}",
        }

    def create(self, bucket: str) -> str:
        """Create a container and return its address."""
        headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in headers.items())
        signed += f"/{ACCOUNT}/{ACCOUNT}/{bucket}\nrestype:container"
        signature = hmac.digest(base64.b64decode(KEY), signed.encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        connection = http.client.HTTPConnection(self._host, timeout=20)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{ACCOUNT}/{bucket}?restype=container", headers=headers)
            response = connection.getresponse()
            assert response.status == 201, response.read()
        return f"az://{bucket}"


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Serve an account without containers on a free loopback port.

    Skips the test where Azurite is not installed, except in CI.
    """
    program = shutil.which("azurite-blob")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Azurite is missing: npm install --global azurite")
    with tempfile.TemporaryDirectory(prefix="fashion-azurite-") as folder:
        options = ("--blobPort=0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
        output = Path(folder, "output")
        with output.open("wb") as file:
            process = subprocess.Popen([program, *options], cwd=folder, stdout=file, stderr=file)
        try:
            deadline = time.monotonic() + STARTS_SECONDS
            while not (found := re.search(r"listen\w+ (?:at|on) (http://\S+)", output.read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Azurite did not start:\n{output.read_text()}")
                time.sleep(0.05)
            yield Server(found[1])
        finally:
            process.kill()
            process.wait()
