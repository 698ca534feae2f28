"""Servers that alerts are sent to."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.alert_servers import SECRET, MailServer, Runs, WebhookServer, serving, write_certificate

from fashion.drift.alert_channels import Webhook
from fashion.storage.address import open_store
from fashion.storage.blobs import Store


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback is not behind a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def webhook_server() -> Iterator[WebhookServer]:
    webhook_server = WebhookServer()
    with serving(webhook_server):
        yield webhook_server
        webhook_server.stopped.set()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    mail_server = MailServer()
    with serving(mail_server):
        yield mail_server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "reports"))


@pytest.fixture
def runs(store: Store, webhook_server: WebhookServer) -> Runs:
    return Runs(store, [Webhook(webhook_server.url, timeout_s=5)])


@pytest.fixture
def unused_url() -> str:
    """A URL at a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/services/{SECRET}?token={SECRET}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "loopback.pem"
    write_certificate(path)
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an authority vouched for the loopback's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
