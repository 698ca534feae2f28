"""Where alerts go: the flow's output, a webhook, a mail server, and every service that Apprise supports.

Knows how to deliver one message, not when one is due. No error message or log line holds an address's secrets.
"""

import contextlib
import http.client
import json
import logging
import re
import smtplib
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """One message."""

    title: str
    """One line."""
    text: str
    """One or more lines."""
    kind: str
    """begun, worse, lasts, over, or event: something that happened once."""
    time_us: int
    """Microseconds since 1970."""


class DeliveryError(Exception):
    """A channel did not take a message. The text is one sentence that names the channel without its secrets."""


class Channel(Protocol):
    """Somewhere to send messages."""

    name: str
    """The same in every run: undelivered messages are stored under it."""

    def send(self, notice: Notice) -> None:
        """Deliver a message.

        Raises:
            DeliveryError: it was not taken.
        """


class Channels(NamedTuple):
    """What the environment names."""

    usable: list[Channel]
    """The flow's output first."""
    problems: list[str]
    """One sentence for each address that cannot be used, without its secrets."""


def from_environment(environment: Mapping[str, str], *, timeout_s: float) -> Channels:
    """The flow's output, and the channels that environment variables name. A wrong address costs no other.

    Args:
        environment: FASHION_WEBHOOK is one URL, FASHION_SMTP one mail server, FASHION_ALERTS one or more Apprise
            URLs, separated by spaces or commas. Each may be missing or empty.
        timeout_s: seconds to wait for a connection or an answer.
    """
    found = Channels([Console()], [])
    makers: dict[str, Callable[[str], Channel]] = {
        "FASHION_WEBHOOK": lambda address: Webhook(address, timeout_s=timeout_s),
        "FASHION_SMTP": lambda address: Mail(address, timeout_s=timeout_s),
    }
    for variable, make in makers.items():
        if address := environment.get(variable):
            try:
                found.usable.append(make(address))
            except ValueError as error:
                found.problems.append(str(error))
    if addresses := environment.get("FASHION_ALERTS"):
        channels, problems = apprise_channels(addresses, timeout_s=timeout_s)
        return Channels([*found.usable, *channels], [*found.problems, *problems])
    return found


class Console:
    """The flow's own output."""

    name = "log"

    def send(self, notice: Notice) -> None:
        """Print a message."""
        print(f"ALERT {notice.title}\n  " + notice.text.replace("\n", "\n  "), flush=True)


# Not by Apprise: its JSON lacks the fields of Slack; its mail is encrypted only if the address says so, not whenever
# the server can; and if one recipient is rejected, all others get the mail again with each attempt.


class Webhook:
    """A URL that takes JSON as Slack does: `text`, and for other readers `title`, `kind` and `time` (seconds)."""

    name = "webhook"

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """
        Raises:
            ValueError: `url` is not http or https, or holds a user.
        """
        parts = _parse_address("FASHION_WEBHOOK", url, ("http", "https"), "an http or https address")
        self._url, self._timeout_s, self._host = url, timeout_s, parts.hostname
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, notice: Notice) -> None:
        """Post a message.

        Raises:
            DeliveryError: the webhook cannot be reached, or answers anything but success.
        """
        content = {
            "text": f"*{notice.title}*\n{notice.text}",
            "title": notice.title,
            "kind": notice.kind,
            "time": notice.time_us / 1e6,
        }
        request = urllib.request.Request(
            self._url, json.dumps(content).encode(), {"content-type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise DeliveryError(f"the webhook at {self._host} answered {error.code}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            # `from None`: the cause may hold the address, which may be a secret.
            raise DeliveryError(f"the webhook at {self._host} cannot be reached: {_cause(error)}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would go on as an empty GET, and count as delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


class Mail:
    """A mail server: `smtp://user:password@host:587?from=a@b&to=c@d`, or smtps for TLS from the start.

    A password is sent over an encrypted connection or not at all.
    """

    name = "mail"

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """
        Raises:
            ValueError: `address` is not of this form, or names no recipient.
        """
        form = "smtp://user:password@host:587?from=me@example.org&to=you@example.org, with / in a password as %2F"
        parts = _parse_address("FASHION_SMTP", address, ("smtp", "smtps"), form)
        options = parse_qs(parts.query.replace("+", "%2B"))  # in a mail address a plus is no space
        if not options.get("to"):
            raise ValueError(f"FASHION_SMTP must be {form}")
        self._host, self._timeout_s, self._secure = parts.hostname or "", timeout_s, parts.scheme == "smtps"
        self._port = parts.port or (465 if self._secure else 587)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._to = [recipient for group in options["to"] for recipient in group.split(",")]
        self._from = options.get("from", [self._user or self._to[0]])[0]

    def send(self, notice: Notice) -> None:
        """Mail a message.

        Raises:
            DeliveryError: the server cannot be reached, offers no encryption for a password, or takes the mail for
                no recipient.
        """
        try:
            message = EmailMessage()
            message["Subject"], message["From"], message["To"] = notice.title, self._from, ", ".join(self._to)
            message.set_content(notice.text)
            server = self._connect()
            try:
                rejected = server.send_message(message)
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    server.quit()  # the mail is taken, whatever the server answers now
            finally:
                server.close()
        except (OSError, ValueError, smtplib.SMTPException) as error:
            raise DeliveryError(f"the mail server {self._host} did not take it: {_cause(error)}") from None
        for recipient in rejected:
            _logger.warning("the mail server %s does not know %s", self._host, recipient)

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._secure:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)
        try:
            server.ehlo_or_helo_if_needed()
            encrypted = self._secure
            if not encrypted and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
                encrypted = True
            if self._user and not encrypted:
                raise DeliveryError(f"the mail server {self._host} takes no password over an encrypted connection")
            if self._user:
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server


class AppriseChannel:
    """A service that Apprise supports, such as `slack://...`, `msteams://...`, `mailtos://...` or `json://...`.

    A password is sent over an encrypted connection or not at all, and no redirect is followed.
    """

    def __init__(self, url: str, *, name: str, timeout_s: float) -> None:
        """
        Args:
            url: the service's address in the form that Apprise documents.
            name: how the channel is called in messages and in the stored state.
            timeout_s: seconds to wait for a connection or an answer.

        Raises:
            ValueError: Apprise does not support it, or the address would send a password unencrypted. The message
                is the end of a sentence, and does not hold the address.
        """
        import apprise

        with _quiet_apprise():
            # Apprise otherwise writes files of its own, and leaves threads behind after a timeout.
            asset = apprise.AppriseAsset(storage_mode="memory", async_mode=False, pem_autogen=False, service_timeout=0)
            service = apprise.Apprise.instantiate(url, asset=asset)
            if service is None:
                raise ValueError("is not one that Apprise understands")
            if service.password and service.protocol and not service.secure:
                raise ValueError("sends its password unencrypted: use a form such as jsons:// or mailtos://")
            service.redirects = False
            service.socket_connect_timeout = service.socket_read_timeout = timeout_s
            self._sender = apprise.Apprise(service, asset=asset)
        self.name = name
        self._secrets = _parts_of_url(url)

    def send(self, notice: Notice) -> None:
        """Send a message.

        Raises:
            DeliveryError: the service cannot be reached, or did not take it.
        """
        with _quiet_apprise() as warnings:
            delivered = self._sender.notify(
                title=notice.title,
                body=notice.text,
                notify_type={"over": "success", "event": "info"}.get(notice.kind, "warning"),
                body_format="text",
            )
        if delivered:
            return
        # Services word their own warnings; one that repeats a part of the address is not passed on.
        safe = [each for each in warnings if not any(secret in each for secret in self._secrets)]
        cause = f": {' '.join(safe[0].split())[:200]}" if safe else ""
        raise DeliveryError(f"the alert channel {self.name!r} did not take it{cause}")


def apprise_channels(urls: str, *, timeout_s: float) -> Channels:
    """The channels of FASHION_ALERTS, named by their schemes.

    Args:
        urls: Apprise URLs, separated by spaces or commas.
        timeout_s: seconds to wait for a connection or an answer.

    Returns:
        Those that Apprise understands, and a sentence for each that it does not, or that would send a password
        unencrypted.
    """
    found = Channels([], [])
    count: Counter[str] = Counter()
    for number, url in enumerate(re.split(r"[\s,]+(?=[A-Za-z0-9]+://)", urls.strip(" ,\n\t")), start=1):
        scheme = url.partition("://")[0].lower()
        count[scheme] += 1
        name = f"apprise {scheme}" + (f" {count[scheme]}" if count[scheme] > 1 else "")
        try:
            found.usable.append(AppriseChannel(url, name=name, timeout_s=timeout_s))
        except ValueError as error:
            found.problems.append(
                "FASHION_ALERTS must hold Apprise URLs such as slack://... or mailtos://..., separated by spaces or "
                f"commas, but address {number} {error}"
            )
    return found


@contextlib.contextmanager
def _quiet_apprise() -> Iterator[list[str]]:
    """Keep Apprise's log, which may hold addresses, from all other handlers; yield its warnings."""
    logger, warnings = logging.getLogger("apprise"), list[str]()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    collector, earlier = Collector(logging.WARNING), (logger.handlers, logger.propagate)
    logger.handlers, logger.propagate = [collector], False
    try:
        yield warnings
    finally:
        logger.handlers, logger.propagate = earlier


def _parts_of_url(url: str) -> set[str]:
    """The parts of a URL that may be secret: all but its scheme, host and short words, as written and as meant."""
    rest = url.partition("://")[2]
    host = rest.split("/")[0].split("?")[0].rpartition("@")[2].partition(":")[0]
    parts = {part for part in re.split(r"[/:@?&=,]", rest) if len(part) > 3}
    return (parts | {unquote(part) for part in parts}) - {host}


def _parse_address(variable: str, address: str, schemes: Sequence[str], form: str) -> SplitResult:
    """Split an address. The error does not say what is wrong with it: that may be its password."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s\x00-\x1f]", address) or (variable == "FASHION_WEBHOOK" and "@" in parts.netloc):
        raise ValueError(f"{variable} must be {form}")
    return parts


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
