"""Who is told of what, when, and how often; what a channel does not take waits, and fails nobody."""

import base64
import contextlib
import datetime
import email
import email.policy
import ipaddress
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fashion.config.drift import AlertsConfig
from fashion.drift import alerts
from fashion.drift.alerts import Channel, Mail, Printed, Webhook
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

FOUND = ("Drift: version 3", "The pictures are brighter.\nReport: 20270115T080000Z-v3")
OTHER = ("Accuracy fell: version 3", "81.0% of 200 rows with feedback are right.")
SECRET = "x0xb-S3cr3t"
SETTINGS = AlertsConfig(on=("drift", "decline"), cooldown_hours=24, attempts=3, timeout_s=5)


@dataclass
class Runs:
    """Runs of a flow, one after another: only the store and the clock go on."""

    store: Store
    told_to: Sequence[Channel]
    settings: AlertsConfig = SETTINGS
    now: float = 1_800_000_000.0
    pauses: list[float] = field(default_factory=list)

    def tell(self, *, hours_later: float = 0.0, **conditions: tuple[str, str] | None) -> list[str]:
        self.now += 3600 * hours_later
        return alerts.tell(
            conditions, self.told_to, self.settings, self.store, clock=lambda: self.now, pause=self.pauses.append
        )


def status(code: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {code} So", "content-length: 0", *headers, "", ""]).encode()


class Hook(ThreadingHTTPServer):
    """A webhook on the loopback that answers a POST as it is told to, and remembers what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookRequest)
        self.answer: bytes | None = status(200)
        """None: it hangs."""
        self.requests: list[HookRequest] = []
        self.contents: list[dict[str, Any]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}?token={SECRET}"

    @property
    def kinds(self) -> list[str]:
        return [content["kind"] for content in self.contents]

    @property
    def titles(self) -> list[str]:
        return [content["title"] for content in self.contents]


class HookRequest(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.requests.append(self)
        content = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.answer is None:
            self.server.over.wait(10)
            return
        if self.server.answer.startswith(b"HTTP/1.1 200"):
            self.server.contents.append(content)
        self.wfile.write(self.server.answer)

    def do_GET(self) -> None:
        self.wfile.write(status(200))

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Letter:
    """What a mail server took."""

    sender: str
    recipients: list[str]
    message: EmailMessage


class Post(socketserver.ThreadingTCPServer):
    """A mail server on the loopback."""

    daemon_threads = True

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        tls_from_the_start: bool = False,
        password: str | None = None,
        knows_ehlo: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.tls, self.tls_from_the_start, self.password, self.knows_ehlo = (
            tls,
            tls_from_the_start,
            password,
            knows_ehlo,
        )
        self.nobody: set[str] = set()
        """Whom it takes no mail for."""
        self.letters: list[Letter] = []
        self.verbs: list[str] = []
        self.logins: list[tuple[str, str, bool]] = []
        """User, password, and whether nobody else could read them."""

    def address(self, query: str = "from=me@example.org&to=you@example.org", *, login: str = "") -> str:
        scheme, port = "smtps" if self.tls_from_the_start else "smtp", self.server_address[1]
        return f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{port}?{query}"


class Conversation(socketserver.StreamRequestHandler):
    server: Post

    def handle(self) -> None:
        self.encrypted = False
        self.sender, self.recipients = "", list[str]()
        with contextlib.suppress(OSError):  # also where the client does not like the certificate
            if self.server.tls_from_the_start:
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
        if not self.server.knows_ehlo:
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
        if recipient in self.server.nobody:
            return self.say("550 no such mailbox")
        self.recipients.append(recipient)
        self.say("250 ok")

    def on_data(self, _: str) -> None:
        self.say("354 go on")
        lines = list(iter(self.rfile.readline, b".\r\n"))
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        self.server.letters.append(Letter(self.sender, self.recipients, message))
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


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback is not behind a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    with serving(hook):
        yield hook
        hook.over.set()


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    with serving(post):
        yield post


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "reports"))


@pytest.fixture
def runs(store: Store, hook: Hook) -> Runs:
    return Runs(store, [Webhook(hook.url, timeout_s=5)])


@pytest.fixture
def nobody_listens() -> str:
    """A URL at a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/services/{SECRET}?token={SECRET}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and key of the loopback, which vouch for themselves."""
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
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **uses), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "loopback.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
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


# What is told


def test_what_begins_is_told(runs: Runs, hook: Hook) -> None:
    assert runs.tell(drift=FOUND, decline=None) == []
    assert [(each["title"], each["kind"]) for each in hook.contents] == [(FOUND[0], "begun")]


def test_what_was_told_is_not_told_again_within_the_cooldown(runs: Runs, hook: Hook) -> None:
    for hours in (0, 0, 12, 11.9):
        runs.tell(hours_later=hours, drift=FOUND)
    assert hook.kinds == ["begun"]


def test_what_lasts_is_told_again_after_each_cooldown(runs: Runs, hook: Hook) -> None:
    for hours in (0, 24, 23, 1, 0):
        runs.tell(hours_later=hours, drift=FOUND)
    assert hook.kinds == ["begun", "lasts", "lasts"]
    assert hook.titles[1:] == [f"Still: {FOUND[0]}"] * 2


def test_without_a_cooldown_each_run_tells(store: Store, hook: Hook) -> None:
    settings = AlertsConfig(on=("drift",), cooldown_hours=0, attempts=1, timeout_s=5)
    runs = Runs(store, [Webhook(hook.url, timeout_s=5)], settings)
    for _ in range(3):
        runs.tell(drift=FOUND)
    assert hook.kinds == ["begun", "lasts", "lasts"]


def test_the_end_is_told_once_and_for_how_long_it_was(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=FOUND)
    runs.tell(hours_later=30, drift=FOUND)
    runs.tell(hours_later=1.5, drift=None)
    runs.tell(drift=None)
    assert hook.kinds == ["begun", "lasts", "over"]
    assert hook.titles[-1] == f"Over: {FOUND[0]}"
    assert "It lasted 31.5 hours." in hook.contents[-1]["text"]


def test_what_never_was_does_not_end(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=None)
    assert hook.contents == []


def test_what_comes_back_is_new_also_within_the_cooldown(runs: Runs, hook: Hook) -> None:
    for found in (FOUND, None, FOUND):
        runs.tell(hours_later=1, drift=found)
    assert hook.kinds == ["begun", "over", "begun"]


def test_what_was_not_looked_for_stays_open(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=FOUND)
    runs.tell(hours_later=1, decline=None)
    runs.tell(hours_later=1, drift=FOUND)
    runs.tell(hours_later=1)
    assert hook.kinds == ["begun"]
    runs.tell(hours_later=1, drift=None)
    assert "It lasted 4.0 hours." in hook.contents[-1]["text"]


def test_each_condition_has_a_cooldown_of_its_own(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=FOUND)
    runs.tell(hours_later=20, drift=FOUND, decline=OTHER)
    runs.tell(hours_later=20, drift=None, decline=OTHER)
    assert hook.titles == [FOUND[0], OTHER[0], f"Over: {FOUND[0]}"]


def test_a_clock_that_was_set_back_keeps_nobody_quiet(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=FOUND)
    runs.tell(hours_later=-1000, drift=FOUND)
    runs.tell(hours_later=1, drift=FOUND)
    assert hook.kinds == ["begun", "lasts"]
    runs.tell(hours_later=1, drift=None)
    assert "It lasted 0.0 hours." in hook.contents[-1]["text"]


# Webhooks and the flow's output


def test_a_webhook_gets_what_slack_takes_and_more(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=("Drift: Größe \N{WARNING SIGN}", FOUND[1]))
    (request,) = hook.requests
    assert (request.command, request.path) == ("POST", f"/services/{SECRET}?token={SECRET}")
    assert request.headers["content-type"] == "application/json"
    assert hook.contents == [
        {
            "text": f"*Drift: Größe \N{WARNING SIGN}*\n{FOUND[1]}",
            "title": "Drift: Größe \N{WARNING SIGN}",
            "kind": "begun",
            "time": 1_800_000_000.0,
        }
    ]


def test_the_flow_prints_what_it_tells(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Runs(store, [Printed()]).tell(drift=FOUND)
    title, (first, second) = FOUND[0], FOUND[1].split("\n")
    assert capsys.readouterr().out == f"ALERT {title}\n  {first}\n  {second}\n"


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ["log"]),
        ({"FASHION_WEBHOOK": "", "FASHION_SMTP": ""}, ["log"]),
        ({"FASHION_WEBHOOK": "https://example.org/x"}, ["log", "webhook"]),
        ({"FASHION_SMTP": "smtps://example.org?to=you@example.org"}, ["log", "mail"]),
        (
            {"FASHION_WEBHOOK": "http://[::1]:80/x", "FASHION_SMTP": "smtp://a:b@example.org:25?to=a@b"},
            ["log", "webhook", "mail"],
        ),
    ],
)
def test_the_environment_names_the_channels(environment: dict[str, str], names: list[str]) -> None:
    assert [channel.name for channel in alerts.channels(environment, timeout_s=1)] == names


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("FASHION_WEBHOOK", f"example.org/{SECRET}"),
        ("FASHION_WEBHOOK", f"ftp://example.org/{SECRET}"),
        ("FASHION_WEBHOOK", f"https:///{SECRET}"),
        ("FASHION_WEBHOOK", f"https://[::1/{SECRET}"),
        ("FASHION_WEBHOOK", f"https://example.org:http/{SECRET}"),
        ("FASHION_WEBHOOK", f"https://example.org:99999/{SECRET}"),
        ("FASHION_WEBHOOK", f"https://example.org/two words/{SECRET}"),
        ("FASHION_WEBHOOK", f"https://user:{SECRET}@example.org/"),  # urllib would take the password for a port
        ("FASHION_SMTP", f"user:{SECRET}@example.org?to=you@example.org"),
        ("FASHION_SMTP", f"https://user:{SECRET}@example.org?to=you@example.org"),
        ("FASHION_SMTP", f"smtp://user:{SECRET}@example.org"),
        ("FASHION_SMTP", f"smtp://user:{SECRET}@example.org?to="),
        ("FASHION_SMTP", f"smtp://user:{SECRET}@?to=you@example.org"),
        ("FASHION_SMTP", f"smtp://user:{SECRET}@example.org:smtp?to=you@example.org"),
        ("FASHION_SMTP", f"smtp://user:{SECRET}/+@example.org?to=you@example.org"),
        ("FASHION_SMTP", f"smtp://user:{SECRET}#+@example.org?to=you@example.org"),
    ],
)
def test_an_address_that_is_none_is_refused_by_its_variable_and_kept_secret(variable: str, address: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable} must be ") as caught:
        alerts.channels({variable: address}, timeout_s=1)
    assert SECRET not in str(caught.value)


# What a channel does not take


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(500), "answered 500"),
        (status(404), "answered 404"),
        (status(307, "location: /elsewhere"), "answered 307"),
        (b"", "cannot be reached: Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "cannot be reached"),
        (None, "cannot be reached: timed out"),
    ],
)
def test_a_webhook_that_does_not_take_it_is_named_without_its_secret(
    answer: bytes | None, said: str, runs: Runs, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answer = answer
    runs.told_to = [Webhook(hook.url, timeout_s=0.1)]
    (problem,) = runs.tell(drift=FOUND)
    assert problem.startswith(f"the webhook at 127.0.0.1 {said}")
    assert problem.endswith("; it is tried again in the next run")
    assert caplog.messages == [problem]
    assert SECRET not in caplog.text


def test_a_webhook_where_nobody_listens_is_named_without_its_secret(nobody_listens: str, runs: Runs) -> None:
    runs.told_to = [Webhook(nobody_listens, timeout_s=5)]
    (problem,) = runs.tell(drift=FOUND)
    assert re.match(r"the webhook at 127\.0\.0\.1 cannot be reached: .*refused", problem)
    assert SECRET not in problem


def test_an_answer_that_breaks_off_does_not_fail_the_caller(runs: Runs, hook: Hook) -> None:
    hook.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok"
    assert SECRET not in "".join(runs.tell(drift=FOUND))
    assert hook.titles[0] == FOUND[0]


def test_a_redirection_to_a_page_is_not_taken_for_a_delivery(runs: Runs, hook: Hook) -> None:
    hook.answer = status(302, "location: /login")
    (problem,) = runs.tell(drift=FOUND)
    assert problem.startswith("the webhook at 127.0.0.1 ")
    hook.answer = status(200)
    runs.tell()
    assert hook.titles == [FOUND[0]]


def test_a_channel_is_tried_a_few_times_with_growing_pauses(runs: Runs, hook: Hook) -> None:
    hook.answer = status(503)
    runs.settings = AlertsConfig(on=("drift",), cooldown_hours=24, attempts=8, timeout_s=5)
    runs.tell(drift=FOUND)
    assert len(hook.requests) == 8
    assert runs.pauses == [1, 2, 4, 8, 16, 30, 30]


def test_what_is_taken_at_once_costs_no_pause(runs: Runs, hook: Hook) -> None:
    runs.tell(drift=FOUND, decline=OTHER)
    assert (len(hook.requests), runs.pauses) == (2, [])


def test_a_channel_that_failed_is_left_alone_for_the_rest_of_the_run(runs: Runs, hook: Hook) -> None:
    hook.answer = status(503)
    assert len(runs.tell(drift=FOUND, decline=OTHER)) == 1
    assert len(hook.requests) == SETTINGS.attempts


def test_what_was_not_taken_comes_in_order_in_the_next_run(runs: Runs, hook: Hook) -> None:
    hook.answer = status(503)
    runs.tell(drift=FOUND, decline=OTHER)
    runs.tell(hours_later=1, drift=None)
    assert hook.contents == []
    hook.answer = status(200)
    assert runs.tell(hours_later=1, decline=None) == []
    assert hook.titles == [FOUND[0], OTHER[0], f"Over: {FOUND[0]}", f"Over: {OTHER[0]}"]
    assert [each["time"] - 1_800_000_000 for each in hook.contents] == [0, 0, 3600, 7200]
    runs.tell()
    assert len(hook.contents) == 4


def test_other_channels_get_theirs_though_one_fails(
    store: Store, nobody_listens: str, hook: Hook, post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Webhook(nobody_listens, timeout_s=5)
    runs = Runs(store, [broken, Mail(post.address(), timeout_s=5), Printed()])
    assert len(runs.tell(drift=FOUND)) == 1
    assert [letter.message["subject"] for letter in post.letters] == [FOUND[0]]
    assert FOUND[0] in capsys.readouterr().out
    runs.told_to = [Webhook(hook.url, timeout_s=5), *runs.told_to[1:]]
    assert runs.tell(drift=FOUND) == []
    assert hook.titles == [FOUND[0]]
    assert len(post.letters) == 1
    assert capsys.readouterr().out == ""


def test_only_so_many_wait_and_the_latest_do(runs: Runs, hook: Hook) -> None:
    hook.answer = status(503)
    more = alerts.MOST_WAITING + 20
    runs.tell(**{f"condition {number}": (str(number), "Text.") for number in range(more)})
    hook.answer = status(200)
    runs.tell()
    assert hook.titles == [str(number) for number in range(20, more)]


def test_nothing_waits_for_a_channel_that_is_no_more(runs: Runs, hook: Hook) -> None:
    hook.answer = status(503)
    runs.tell(drift=FOUND)
    webhook, runs.told_to = runs.told_to, []
    assert runs.tell() == []
    hook.answer, runs.told_to = status(200), webhook
    runs.tell()
    assert hook.contents == []


# What is remembered


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b'{"open": {"drift"',
        b"null",
        b"[]",
        b"{}",
        b'{"open": {}}',
        b'{"open": [], "waiting": []}',
        b'{"open": {}, "waiting": {}}',
        b'{"open": {"drift": 5}, "waiting": []}',
        b'{"open": {"drift": {}}, "waiting": []}',
        b'{"open": {"drift": {"since": "x", "told": "x", "title": "x"}}, "waiting": []}',
        b'{"open": {}, "waiting": [5]}',
        b'{"open": {}, "waiting": [{"channel": "webhook"}]}',
    ],
)
def test_a_damaged_state_is_told_and_begun_anew(damage: bytes, runs: Runs, hook: Hook, store: Store) -> None:
    store.put(alerts.STATE, damage)
    (problem,) = runs.tell(drift=FOUND)
    assert re.fullmatch(r"what was told before cannot be read \(.+\): it may be told again", problem, re.DOTALL)
    assert hook.kinds == ["begun"]
    assert runs.tell(drift=FOUND) == []
    assert hook.kinds == ["begun"]


def test_a_store_that_cannot_be_written_keeps_no_notice_back(tmp_path: Path, runs: Runs, hook: Hook) -> None:
    (tmp_path / "file").write_bytes(b"")
    runs.store = open_store(str(tmp_path / "file"))
    for _ in range(2):
        (problem,) = runs.tell(drift=FOUND)
        assert problem.startswith("what was told cannot be remembered, and may be told again: ")
        assert str(tmp_path / "file") in problem
    assert hook.kinds == ["begun", "begun"]


def test_a_store_that_cannot_be_read_keeps_no_notice_back(tmp_path: Path, runs: Runs, hook: Hook) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    runs.store = open_store(str(tmp_path / "loop"))
    problems = runs.tell(drift=FOUND)
    assert [problem.split(" (")[0].split(",")[0] for problem in problems] == [
        "what was told before cannot be read",
        "what was told cannot be remembered",
    ]
    assert hook.kinds == ["begun"]


def test_the_state_holds_no_secret(runs: Runs, hook: Hook, store: Store) -> None:
    hook.answer = status(503)
    runs.tell(drift=FOUND)
    state = store.get(alerts.STATE).decode()
    assert FOUND[0] in state
    assert SECRET not in state


# Mail


def test_a_notice_is_mailed(store: Store, post: Post) -> None:
    mail = Mail(post.address("from=me@example.org&to=you@example.org,her@example.org&to=him@example.org"), timeout_s=5)
    assert Runs(store, [mail]).tell(drift=("Drift: Größe", FOUND[1])) == []
    (letter,) = post.letters
    assert letter.sender == letter.message["from"] == "me@example.org"
    assert letter.recipients == ["you@example.org", "her@example.org", "him@example.org"]
    assert letter.message["to"] == "you@example.org, her@example.org, him@example.org"
    assert letter.message["subject"] == "Drift: Größe"
    assert letter.message.get_content().splitlines() == FOUND[1].split("\n")


def test_an_address_with_a_plus_is_kept(store: Store, post: Post) -> None:
    Runs(store, [Mail(post.address("from=me@example.org&to=me+alerts@example.org"), timeout_s=5)]).tell(drift=FOUND)
    assert post.letters[0].recipients == ["me+alerts@example.org"]


def test_mail_that_names_no_sender_is_from_its_first_reader(store: Store, post: Post) -> None:
    Runs(store, [Mail(post.address("to=you@example.org,her@example.org"), timeout_s=5)]).tell(drift=FOUND)
    assert post.letters[0].sender == "you@example.org"


def test_a_mail_server_that_knows_only_helo_takes_it(store: Store) -> None:
    post = Post(knows_ehlo=False)
    with serving(post):
        assert Runs(store, [Mail(post.address(), timeout_s=5)]).tell(drift=FOUND) == []
    assert [letter.message["subject"] for letter in post.letters] == [FOUND[0]]
    assert "HELO" in post.verbs


def test_mail_for_nobody_waits_until_somebody_is_there(store: Store, post: Post) -> None:
    post.nobody = {"you@example.org"}
    runs = Runs(store, [Mail(post.address(), timeout_s=5)])
    (problem,) = runs.tell(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*no such mailbox", problem)
    assert (post.letters, runs.pauses) == ([], [1, 2])
    post.nobody = set()
    assert runs.tell(drift=None) == []
    assert [letter.message["subject"] for letter in post.letters] == [FOUND[0], f"Over: {FOUND[0]}"]


def test_of_two_readers_one_gets_it_though_the_other_is_unknown(store: Store, post: Post) -> None:
    post.nobody = {"you@example.org"}
    mail = Mail(post.address("from=me@example.org&to=you@example.org,her@example.org"), timeout_s=5)
    Runs(store, [mail]).tell(drift=FOUND)
    assert [letter.recipients for letter in post.letters] == [["her@example.org"]]


def test_a_mail_server_where_nobody_listens_is_named_without_its_password(nobody_listens: str, store: Store) -> None:
    port = nobody_listens.split(":")[2].split("/")[0]
    mail = Mail(f"smtp://user:{SECRET}@127.0.0.1:{port}?to=you@example.org", timeout_s=5)
    (problem,) = Runs(store, [mail]).tell(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*refused", problem)
    assert SECRET not in problem


def test_a_mail_server_that_says_nothing_is_given_up(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail = Mail(f"smtp://127.0.0.1:{silent.getsockname()[1]}?to=you@example.org", timeout_s=0.1)
        (problem,) = Runs(store, [mail]).tell(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*timed out", problem)


def test_a_mail_server_that_no_name_can_be_is_a_problem_and_no_failure(store: Store) -> None:
    (problem,) = Runs(store, [Mail("smtp://mail..example.org?to=you@example.org", timeout_s=5)]).tell(drift=FOUND)
    assert problem.startswith("the mail server mail..example.org did not take it: ")


def test_a_server_that_asks_for_no_password_is_told_none(store: Store, post: Post) -> None:
    mail = Mail(post.address(login=f"user:{SECRET}"), timeout_s=5)
    (problem,) = Runs(store, [mail]).tell(drift=FOUND)
    assert problem.startswith("the mail server 127.0.0.1 takes no password over an encrypted connection")
    assert SECRET not in problem
    assert "AUTH" not in post.verbs
    assert post.letters == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls_from_the_start", [False, True])
def test_a_password_goes_over_an_encrypted_connection(
    tls_from_the_start: bool, tls: ssl.SSLContext, store: Store
) -> None:
    post = Post(tls, tls_from_the_start=tls_from_the_start, password="a/b @:+")
    with serving(post):
        mail = Mail(post.address(login="me%40example.org:a%2Fb%20%40%3A+"), timeout_s=5)
        assert Runs(store, [mail]).tell(drift=FOUND) == []
    assert post.logins == [("me@example.org", "a/b @:+", True)]
    assert len(post.letters) == 1


@pytest.mark.usefixtures("trusted")
def test_mail_without_a_password_is_encrypted_too_where_the_server_can(tls: ssl.SSLContext, store: Store) -> None:
    post = Post(tls)
    with serving(post):
        assert Runs(store, [Mail(post.address(), timeout_s=5)]).tell(drift=FOUND) == []
    assert "STARTTLS" in post.verbs
    assert len(post.letters) == 1


@pytest.mark.parametrize("tls_from_the_start", [False, True])
def test_a_server_that_nobody_vouches_for_gets_no_password_and_no_mail(
    tls_from_the_start: bool, tls: ssl.SSLContext, store: Store
) -> None:
    post = Post(tls, tls_from_the_start=tls_from_the_start, password=SECRET)
    with serving(post):
        (problem,) = Runs(store, [Mail(post.address(login=f"user:{SECRET}"), timeout_s=5)]).tell(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*certificate", problem, re.IGNORECASE)
    assert (post.logins, post.letters) == ([], [])


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("password", [SECRET, f"{SECRET}%C3%A4"])
def test_a_password_that_is_not_taken_is_not_told(
    password: str, tls: ssl.SSLContext, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    post = Post(tls, tls_from_the_start=True, password="another")
    with serving(post):
        (problem,) = Runs(store, [Mail(post.address(login=f"user:{password}"), timeout_s=5)]).tell(drift=FOUND)
    assert problem.startswith("the mail server 127.0.0.1 did not take it: ")
    assert SECRET not in problem + caplog.text
    assert post.letters == []
