"""A service account for clients of emulators: a key file, and a server that gives everybody a token.

Google's clients ask for credentials even where `STORAGE_EMULATOR_HOST` names an emulator. These are worth nothing.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Path]:
    """Write a key file to `folder`, and yield its path for `GOOGLE_APPLICATION_CREDENTIALS`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenRequest)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield _write_key(folder / "service-account.json", f"http://127.0.0.1:{server.server_port}/token")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TokenRequest(BaseHTTPRequestHandler):
    """Answers each request with a token of an hour."""

    def do_POST(self) -> None:
        content = json.dumps({"access_token": "none", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def _write_key(path: Path, token_server: str) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "project_id": "none", "client_email": "nobody@none.example", "client_id": "0"}
    account |= {"private_key": key.decode(), "private_key_id": "0", "token_uri": token_server}
    path.write_text(json.dumps(account))
    return path
