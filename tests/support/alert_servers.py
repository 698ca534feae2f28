"""A webhook and a mail server on the loopback, which take what alerts send, or fail as they are told to."""

import base64
import contextlib
import datetime
import email
import email.policy
import ipaddress
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fashion.config.drift import AlertsConfig
from fashion.drift import alerts
from fashion.drift.alert_channels import Channel
from fashion.drift.alerts import Alert
from fashion.storage.blobs import Store

from .log_rows import MODEL_NAME

SECRET = "x0xb-S3cr3t"
"""In the address of each server; no message may hold it."""
FOUND = Alert("Drift: version 3", "The pictures are brighter.\nReport: 20270115T080000Z-v3")
OTHER = Alert("Accuracy fell: version 3", "81.0% of 200 rows with feedback are right.")
SETTINGS = AlertsConfig(on=("drift", "decline"), cooldown_hours=24, attempts=3, timeout_s=5)


def status(code: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {code} So", "content-length: 0", *headers, "", ""]).encode()


class WebhookServer(ThreadingHTTPServer):
    """A webhook on the loopback that gives one answer to each POST, and stores what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebhookRequest)
        self.answer: bytes | None = status(200)
        """None: it hangs."""
        self.requests: list[WebhookRequest] = []
        self.contents: list[dict[str, Any]] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}?token={SECRET}"

    @property
    def kinds(self) -> list[str]:
        return [content["kind"] for content in self.contents]

    @property
    def titles(self) -> list[str]:
        return [content["title"] for content in self.contents]


class WebhookRequest(BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        self.server.requests.append(self)
        content = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.answer is None:
            self.server.stopped.wait(10)
            return
        if self.server.answer.startswith(b"HTTP/1.1 200"):
            self.server.contents.append(content)
        self.wfile.write(self.server.answer)

    def do_GET(self) -> None:
        self.wfile.write(status(200))

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class ReceivedMail:
    """A mail that the server took."""

    sender: str
    recipients: list[str]
    message: EmailMessage


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server on the loopback."""

    daemon_threads = True

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        implicit_tls: bool = False,
        password: str | None = None,
        supports_ehlo: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", 0), MailSession)
        self.tls, self.implicit_tls, self.password, self.supports_ehlo = (
            tls,
            implicit_tls,
            password,
            supports_ehlo,
        )
        self.unknown_recipients: set[str] = set()
        """Recipients that it takes no mail for."""
        self.mails: list[ReceivedMail] = []
        self.verbs: list[str] = []
        self.logins: list[tuple[str, str, bool]] = []
        """User, password, and True if the connection was encrypted."""

    def address(self, query: str = "from=me@example.org&to=you@example.org", *, login: str = "") -> str:
        scheme, port = "smtps" if self.implicit_tls else "smtp", self.server_address[1]
        return f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{port}?{query}"


class MailSession(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.encrypted = False
        self.sender, self.recipients = "", list[str]()
        with contextlib.suppress(OSError):  # also where the client does not like the certificate
            if self.server.implicit_tls:
                self.encrypt()
            self.say("220 ready")
            while line := self.rfile.readline():
                verb, _, rest = line.decode().strip().partition(" ")
                self.server.verbs.append(verb.upper())
                if verb.upper() == "QUIT":
                    return self.say("221 bye")
                getattr(self, f"on_{verb.lower()}", self.on_unknown)(rest)

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def encrypt(self) -> None:
        assert self.server.tls is not None
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.encrypted = True

    def on_ehlo(self, _: str) -> None:
        if not self.server.supports_ehlo:
            return self.say("502 what?")
        is_open = self.server.tls is None or self.encrypted
        offers = ["AUTH PLAIN"] * (self.server.password is not None and is_open) + ["STARTTLS"] * (not is_open)
        self.say(*(f"250-{each}" for each in ["hello", *offers]), "250 8BITMIME")

    def on_helo(self, _: str) -> None:
        self.say("250 hello")

    def on_starttls(self, _: str) -> None:
        self.say("220 go on")
        self.encrypt()

    def on_auth(self, rest: str) -> None:
        _, user, password = base64.b64decode(rest.removeprefix("PLAIN ")).decode().split("\0")
        self.server.logins.append((user, password, self.encrypted))
        self.say("235 welcome" if password == self.server.password else "535 wrong password")

    def on_mail(self, rest: str) -> None:
        self.sender, self.recipients = rest.partition("<")[2].partition(">")[0], []
        self.say("250 ok")

    def on_rcpt(self, rest: str) -> None:
        recipient = rest.partition("<")[2].partition(">")[0]
        if recipient in self.server.unknown_recipients:
            return self.say("550 no such mailbox")
        self.recipients.append(recipient)
        self.say("250 ok")

    def on_data(self, _: str) -> None:
        self.say("354 go on")
        lines = list(iter(self.rfile.readline, b".\r\n"))
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        self.server.mails.append(ReceivedMail(self.sender, self.recipients, message))
        self.say("250 taken")

    def on_rset(self, _: str) -> None:
        self.say("250 ok")

    def on_unknown(self, _: str) -> None:
        self.say("502 what?")


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_certificate(path: Path) -> None:
    """Write a self-signed certificate of the loopback, and its key, to one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    uses = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **uses), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@dataclass
class Runs:
    """Runs of a flow, one after another: only the store and the clock go on."""

    store: Store
    channels: Sequence[Channel]
    settings: AlertsConfig = SETTINGS
    now: float = 1_800_000_000.0
    pauses: list[float] = field(default_factory=list)

    def notify(self, *, hours_later: float = 0.0, **conditions: Alert | None) -> list[str]:
        return self.run(conditions, hours_later=hours_later)

    def run(self, conditions: Mapping[str, Alert | None], *, hours_later: float = 0.0, **more: Any) -> list[str]:
        """As `notify`, for conditions of versions, whose names are no words."""
        self.now += 3600 * hours_later
        return alerts.notify(
            conditions,
            self.channels,
            self.settings,
            self.store,
            model_name=MODEL_NAME,
            clock=lambda: self.now,
            pause=self.pauses.append,
            **more,
        )
