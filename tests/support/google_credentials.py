"""A service account for clients of emulators: a key file, and a server that gives everybody a token.

Google's clients ask for credentials even where `STORAGE_EMULATOR_HOST` names an emulator. These are worth nothing.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from support.web import QuietHandler, serving


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Path]:
    """Write a key file to `folder`, and yield its path for `GOOGLE_APPLICATION_CREDENTIALS`."""
    with serving(TokenRequest) as url:
        yield _write_key(folder / "service-account.json", f"{url}/token")


class TokenRequest(QuietHandler):
    """Answers each request with a token of an hour."""

    def do_POST(self) -> None:
        self.read_body()
        self.respond(200, json.dumps({"access_token": "none", "expires_in": 3600, "token_type": "Bearer"}).encode())


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
