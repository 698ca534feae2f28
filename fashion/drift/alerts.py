"""Tell people of what was found: once, again after a while, and when it is over. Knows channels, not what they carry.

What a channel could not deliver waits in the state and is tried again in the next run; nothing that fails here fails
the caller.
"""

import contextlib
import http.client
import json
import logging
import re
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from fashion.config.drift import AlertsConfig
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/alerts.json"
MOST_WAITING = 100
"""Undelivered notices that are kept, the latest ones."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """One message."""

    title: str
    """A line."""
    text: str
    """Sentences, in lines."""
    kind: str
    """begun | lasts | over"""
    time_us: int


class Undelivered(Exception):
    """A channel did not take a notice. The message is one sentence that names the channel, without its secrets."""


class Channel(Protocol):
    """Somewhere that notices go."""

    name: str

    def send(self, notice: Notice) -> None:
        """Deliver, or raise Undelivered."""


class Printed:
    """The flow's own output."""

    name = "log"

    def send(self, notice: Notice) -> None:
        """Print it."""
        print(f"ALERT {notice.title}\n  " + notice.text.replace("\n", "\n  "), flush=True)


class Webhook:
    """A URL that takes JSON as Slack does: `text`, and for others `title`, `kind` and `time`."""

    name = "webhook"

    def __init__(self, url: str, *, timeout_s: float) -> None:
        parts = _parts("FASHION_WEBHOOK", url, ("http", "https"), "an http or https address")
        self._url, self._timeout_s, self._host = url, timeout_s, parts.hostname
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, notice: Notice) -> None:
        """Post it."""
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
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Undelivered(f"the webhook at {self._host} answered {error.code}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # the address itself may be a secret
            raise Undelivered(f"the webhook at {self._host} cannot be reached: {_cause(error)}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would go on as a GET that carries nothing, and count as delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


class Mail:
    """A mail server: `smtp://user:password@host:587?from=a@b&to=c@d`; smtps for TLS from the start.

    A password goes over an encrypted connection or not at all.
    """

    name = "mail"

    def __init__(self, address: str, *, timeout_s: float) -> None:
        form = "smtp://user:password@host:587?from=me@example.org&to=you@example.org, with / in a password as %2F"
        parts = _parts("FASHION_SMTP", address, ("smtp", "smtps"), form)
        asked = parse_qs(parts.query.replace("+", "%2B"))  # in an address it is no space
        if not asked.get("to"):
            raise ValueError(f"FASHION_SMTP must be {form}")
        self._host, self._timeout_s, self._secure = parts.hostname or "", timeout_s, parts.scheme == "smtps"
        self._port = parts.port or (465 if self._secure else 587)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._to = [each for group in asked["to"] for each in group.split(",")]
        self._from = asked.get("from", [self._user or self._to[0]])[0]

    def send(self, notice: Notice) -> None:
        """Mail it."""
        try:
            message = EmailMessage()
            message["Subject"], message["From"], message["To"] = notice.title, self._from, ", ".join(self._to)
            message.set_content(notice.text)
            server = self._connected()
            try:
                refused = server.send_message(message)
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    server.quit()  # it has the mail, whatever it says now
            finally:
                server.close()
        except Undelivered:
            raise
        except (OSError, ValueError, smtplib.SMTPException) as error:
            raise Undelivered(f"the mail server {self._host} did not take it: {_cause(error)}") from None
        for reader in refused:
            _logger.warning("the mail server %s does not know %s", self._host, reader)

    def _connected(self) -> smtplib.SMTP:
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
                raise Undelivered(f"the mail server {self._host} takes no password over an encrypted connection")
            if self._user:
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server


def channels(environment: Mapping[str, str], *, timeout_s: float) -> list[Channel]:
    """The channels that the environment names, and the flow's output.

    Raises:
        ValueError: an address is none.
    """
    found: list[Channel] = [Printed()]
    if environment.get("FASHION_WEBHOOK"):
        found.append(Webhook(environment["FASHION_WEBHOOK"], timeout_s=timeout_s))
    if environment.get("FASHION_SMTP"):
        found.append(Mail(environment["FASHION_SMTP"], timeout_s=timeout_s))
    return found


def tell(
    conditions: Mapping[str, tuple[str, str] | None],
    told_to: Sequence[Channel],
    settings: AlertsConfig,
    store: Store,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Send what is new, what lasts beyond the cooldown, what is over, and what could not be sent before.

    Args:
        conditions: name -> title and text where it holds now; None where it was looked for and does not. A condition
            that is not named stays as it was: a window with too few rows ends nothing.
        told_to: the channels.
        store: where the state is kept between runs.
        clock: seconds since 1970.

    Returns:
        Sentences on what went wrong.
    """
    now = clock()
    state, problems = _load(store)
    for name, found in conditions.items():
        notice = _due(name, found, state, settings, now)
        if notice is not None:
            state["waiting"] += [{"channel": channel.name, **asdict(notice)} for channel in told_to]
    problems += _deliver(state, told_to, settings.attempts, pause)
    try:
        store.put(STATE, json.dumps(state, indent=1).encode())
    except OSError as error:
        problems.append(f"what was told cannot be remembered, and may be told again: {error}")
    for problem in problems:
        _logger.warning(problem)
    return problems


def _due(
    name: str, found: tuple[str, str] | None, state: dict[str, Any], settings: AlertsConfig, now: float
) -> Notice | None:
    """The notice that a condition asks for now, if any; remembers it."""
    known = state["open"].get(name)
    if found is None:
        if known is None:
            return None
        del state["open"][name]
        hours = max(0.0, now - known["since"]) / 3600
        return Notice(f"Over: {known['title']}", f"It lasted {hours:.1f} hours.", "over", int(now * 1e6))
    title, text = found
    if known is None:
        state["open"][name] = {"since": now, "told": now, "title": title}
        return Notice(title, text, "begun", int(now * 1e6))
    # A clock that was set back would otherwise keep quiet until it has caught up.
    if 0 <= now - known["told"] < 3600 * settings.cooldown_hours:
        return None
    state["open"][name] = {**known, "told": now, "title": title}
    return Notice(f"Still: {title}", text, "lasts", int(now * 1e6))


def _deliver(
    state: dict[str, Any], told_to: Sequence[Channel], attempts: int, pause: Callable[[float], None]
) -> list[str]:
    by_name = {channel.name: channel for channel in told_to}
    waiting, problems = [], []
    broken: set[str] = set()
    for entry in state["waiting"]:
        channel = by_name.get(entry["channel"])
        if channel is None:  # no longer configured
            continue
        notice = Notice(**{key: entry[key] for key in ("title", "text", "kind", "time_us")})
        failure = "" if channel.name in broken else _attempt(channel, notice, attempts, pause)
        if failure is not None:
            waiting.append(entry)
            if failure:
                problems.append(f"{failure}; it is tried again in the next run")
            broken.add(channel.name)
    state["waiting"] = waiting[-MOST_WAITING:]
    return problems


def _attempt(channel: Channel, notice: Notice, attempts: int, pause: Callable[[float], None]) -> str | None:
    """Send, and return why it failed at last, or None."""
    failure = ""
    for attempt in range(attempts):
        if attempt:
            pause(min(2.0 ** (attempt - 1), 30.0))
        try:
            channel.send(notice)
            return None
        except Undelivered as error:
            failure = str(error)
    return failure


def _load(store: Store) -> tuple[dict[str, Any], list[str]]:
    try:
        state = json.loads(store.get(STATE))
        if _is_state(state):
            return state, []
        problem = "it has another form"
    except BlobNotFound:
        return {"open": {}, "waiting": []}, []
    except (OSError, ValueError) as error:
        problem = str(error)
    return {"open": {}, "waiting": []}, [f"what was told before cannot be read ({problem}): it may be told again"]


def _is_state(state: Any) -> bool:
    def has(entry: Any, **kinds: Any) -> bool:
        return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())

    number = (int, float)
    return (
        has(state, open=dict, waiting=list)
        and all(has(entry, since=number, told=number, title=str) for entry in state["open"].values())
        and all(has(entry, channel=str, title=str, text=str, kind=str, time_us=int) for entry in state["waiting"])
    )


def _parts(variable: str, address: str, schemes: Sequence[str], form: str) -> SplitResult:
    """An address in parts. What is wrong with one is not told: it may hold a password."""
    try:
        parts = urlsplit(address)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s\x00-\x1f]", address) or (variable == "FASHION_WEBHOOK" and "@" in parts.netloc):
        raise ValueError(f"{variable} must be {form}")
    return parts


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
