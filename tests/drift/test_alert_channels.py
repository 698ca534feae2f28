"""What each channel sends, what it reports when it fails, and that it never shows its secrets."""

import logging
import re
import socket
import ssl
import subprocess
import sys

import pytest
from apprise import NotifyBase
from apprise.manager_plugins import NotificationManager
from support.alert_servers import FOUND, OTHER, SECRET, SETTINGS, MailServer, Runs, WebhookServer, serving, status
from support.log_rows import MODEL_NAME

from fashion.drift import alert_channels, alerts
from fashion.drift.alert_channels import Channel, Console, Mail, Webhook
from fashion.drift.reports import state_of
from fashion.storage.blobs import Store

# Webhooks and the flow's output


def test_a_webhook_gets_the_fields_of_slack_and_more(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.notify(drift=FOUND._replace(title="Drift: Größe \N{WARNING SIGN}"))
    (request,) = webhook_server.requests
    assert (request.command, request.path) == ("POST", f"/services/{SECRET}?token={SECRET}")
    assert request.headers["content-type"] == "application/json"
    assert webhook_server.contents == [
        {
            "text": f"*Drift: Größe \N{WARNING SIGN}*\n{FOUND[1]}",
            "title": "Drift: Größe \N{WARNING SIGN}",
            "kind": "begun",
            "time": 1_800_000_000.0,
        }
    ]


def test_the_console_prints_title_and_text(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Runs(store, [Console()]).notify(drift=FOUND)
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
        ({"FASHION_ALERTS": ""}, ["log"]),
        ({"FASHION_ALERTS": "json://example.org/x"}, ["log", "apprise json"]),
        (
            {
                "FASHION_ALERTS": " jsons://u:p@example.org, json://[::1]:80/x?+a=b,c  mailto://b.de?from=a@b.de&to=c@d.de,e@f.de\n"
            },
            ["log", "apprise jsons", "apprise json", "apprise mailto"],
        ),
        (
            {"FASHION_ALERTS": "json://a.org json://b.org", "FASHION_WEBHOOK": "https://example.org/x"},
            ["log", "webhook", "apprise json", "apprise json 2"],
        ),
    ],
)
def test_the_environment_names_the_channels(environment: dict[str, str], names: list[str]) -> None:
    assert [channel.name for channel in alert_channels.from_environment(environment, timeout_s=1).usable] == names


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
        ("FASHION_ALERTS", f"example.org/{SECRET}"),
        ("FASHION_ALERTS", f"https://user:{SECRET}@"),
        ("FASHION_ALERTS", f"unknown://{SECRET}"),
        ("FASHION_ALERTS", f"slack://{SECRET}"),
        ("FASHION_ALERTS", f"json://example.org/x, slack://{SECRET}"),
        ("FASHION_ALERTS", f"json://user:{SECRET}@example.org"),  # would go unencrypted
        ("FASHION_ALERTS", f"mailto://user:{SECRET}@example.org"),
    ],
)
def test_a_wrong_address_names_its_variable_and_keeps_its_secret(
    variable: str, address: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    _, (problem,) = alert_channels.from_environment({variable: address}, timeout_s=1)
    assert re.match(f"{variable} must (be|hold) ", problem)
    assert SECRET not in problem + caplog.text + "".join(capfd.readouterr())


@pytest.mark.fault("alert address that cannot be used")
def test_a_wrong_address_costs_no_other() -> None:
    wrong = {
        "FASHION_WEBHOOK": "example.org",
        "FASHION_SMTP": "smtp://host?to=me@example.org",
        "FASHION_ALERTS": "unknown://x json://example.org/x",
    }
    usable, problems = alert_channels.from_environment(wrong, timeout_s=1)
    assert [channel.name for channel in usable] == ["log", "mail", "apprise json"]
    assert [problem.split()[0] for problem in problems] == ["FASHION_WEBHOOK", "FASHION_ALERTS"]


# Failing webhooks


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
def test_a_failing_webhook_is_named_without_its_secret(
    answer: bytes | None, said: str, runs: Runs, webhook_server: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    webhook_server.answer = answer
    runs.channels = [Webhook(webhook_server.url, timeout_s=0.1)]
    (problem,) = runs.notify(drift=FOUND)
    assert problem.startswith(f"the webhook at 127.0.0.1 {said}")
    assert problem.endswith("; it is tried again in the next run")
    assert caplog.messages == [problem]
    assert SECRET not in caplog.text


@pytest.mark.fault("alert address that cannot be reached")
def test_an_unreachable_webhook_is_named_without_its_secret(unused_url: str, runs: Runs) -> None:
    runs.channels = [Webhook(unused_url, timeout_s=5)]
    (problem,) = runs.notify(drift=FOUND)
    assert re.match(r"the webhook at 127\.0\.0\.1 cannot be reached: .*refused", problem)
    assert SECRET not in problem


@pytest.mark.fault("half an answer to an alert")
def test_a_truncated_response_does_not_fail_the_caller(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok"
    assert SECRET not in "".join(runs.notify(drift=FOUND))
    assert webhook_server.titles[0] == FOUND[0]


def test_a_redirect_does_not_count_as_a_delivery(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(302, "location: /login")
    (problem,) = runs.notify(drift=FOUND)
    assert problem.startswith("the webhook at 127.0.0.1 ")
    webhook_server.answer = status(200)
    runs.notify()
    assert webhook_server.titles == [FOUND[0]]


# Apprise


def apprise(server: WebhookServer, *, timeout_s: float = 5) -> list[Channel]:
    url = server.url.replace("http://", "json://").replace("?", "?-")  # of a parameter with - Apprise sends the rest
    channels, _ = alert_channels.apprise_channels(url, timeout_s=timeout_s)
    return channels


def test_apprise_sends_title_and_text(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.channels = apprise(webhook_server)
    assert runs.notify(drift=FOUND._replace(title="Drift: Größe \N{WARNING SIGN}")) == []
    (request,) = webhook_server.requests
    assert (request.command, request.path) == ("POST", f"/services/{SECRET}?token={SECRET}")
    (content,) = webhook_server.contents
    assert (content["title"], content["message"]) == ("Drift: Größe \N{WARNING SIGN}", FOUND[1])
    assert content["type"] == "warning"


def test_apprise_sends_each_condition_once_and_its_end_as_a_success(runs: Runs, webhook_server: WebhookServer) -> None:
    runs.channels = apprise(webhook_server)
    runs.notify(drift=FOUND)
    runs.notify(drift=FOUND)
    runs.notify(drift=None)
    assert [(each["title"], each["type"]) for each in webhook_server.contents] == [
        (FOUND[0], "warning"),
        (f"Over: {FOUND[0]}", "success"),
    ]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (status(500), "error=500"),
        (status(404), "error=404"),
        (status(302, "location: /elsewhere"), "error=302"),
        (status(307, "location: /elsewhere"), "error=307"),
        (b"", "A Connection error occurred sending JSON notification to 127.0.0.1"),
        (None, "A Connection error occurred sending JSON notification to 127.0.0.1"),
    ],
)
def test_a_failing_apprise_service_is_named_without_its_secret(
    answer: bytes | None,
    cause: str,
    runs: Runs,
    webhook_server: WebhookServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG", "apprise")
    webhook_server.answer = answer
    runs.channels = apprise(webhook_server, timeout_s=0.2)
    (problem,) = runs.notify(drift=FOUND)
    assert problem.startswith("the alert channel 'apprise json' did not take it: ")
    assert cause in problem
    assert len(webhook_server.requests) == SETTINGS.attempts
    assert caplog.messages == [problem]
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_redirect_is_not_followed_though_the_address_asks_for_it(runs: Runs, webhook_server: WebhookServer) -> None:
    webhook_server.answer = status(302, "location: /elsewhere")
    url = webhook_server.url.replace("http://", "json://") + "&redirect=yes"
    runs.channels = alert_channels.apprise_channels(url, timeout_s=5).usable
    assert len(runs.notify(drift=FOUND)) == 1


def test_an_undelivered_apprise_alert_is_sent_by_the_next_run(
    runs: Runs, webhook_server: WebhookServer, store: Store
) -> None:
    webhook_server.answer = status(503)
    runs.channels = apprise(webhook_server)
    assert len(runs.notify(drift=FOUND, decline=OTHER)) == 1
    assert SECRET not in store.get(state_of(alerts.STATE, MODEL_NAME)).decode()
    webhook_server.answer = status(200)
    runs.channels = apprise(webhook_server)
    assert runs.notify(hours_later=1) == []
    assert webhook_server.titles == [FOUND[0], OTHER[0]]


def test_of_two_apprise_services_one_may_fail(runs: Runs, webhook_server: WebhookServer, unused_url: str) -> None:
    urls = f"{unused_url.replace('http', 'json')} {webhook_server.url.replace('http', 'json')}"
    runs.channels = alert_channels.apprise_channels(urls, timeout_s=5).usable
    (problem,) = runs.notify(drift=FOUND)
    assert problem.startswith("the alert channel 'apprise json' did not take it")
    assert SECRET not in problem
    assert webhook_server.titles == [FOUND[0]]


def test_a_warning_of_apprise_that_holds_a_secret_is_not_passed_on(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    class Talkative(NotifyBase):  # type: ignore[misc]
        service_name = "talkative"
        protocol = "talkative"

        def url(self, privacy: bool = False, *args: object, **kwargs: object) -> str:
            return f"talkative://{self.host}"

        def send(self, body: str, **_: object) -> bool:
            logging.getLogger("apprise").warning("cannot log in with %s", SECRET)
            return False

    services = NotificationManager()
    services.add(Talkative, schemas="talkative")
    try:
        runs.channels = alert_channels.apprise_channels(f"talkative://example.org/{SECRET}", timeout_s=1).usable
        (problem,) = runs.notify(drift=FOUND)
    finally:
        services.remove("talkative")
    assert problem == "the alert channel 'apprise talkative' did not take it; it is tried again in the next run"
    assert SECRET not in caplog.text


def test_apprise_mails_plain_text(runs: Runs, mail_server: MailServer) -> None:
    url = f"mailto://127.0.0.1:{mail_server.server_address[1]}?from=me@example.org&to=you@example.org"
    runs.channels = alert_channels.apprise_channels(url, timeout_s=5).usable
    assert runs.notify(drift=FOUND) == []
    (mail,) = mail_server.mails
    assert (mail.recipients, mail.message["subject"]) == (["you@example.org"], FOUND[0])


def test_apprise_is_imported_only_for_its_own_addresses() -> None:
    code = (
        "import sys; from fashion.drift import alert_channels as a;"
        "a.from_environment({'FASHION_WEBHOOK': 'https://example.org/x'}, timeout_s=1);"
        "print('apprise' in sys.modules);"
        "a.from_environment({'FASHION_ALERTS': 'json://example.org/x'}, timeout_s=1);"
        "print('apprise' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


# Mail


def test_an_alert_is_mailed(store: Store, mail_server: MailServer) -> None:
    channel = Mail(
        mail_server.address("from=me@example.org&to=you@example.org,her@example.org&to=him@example.org"), timeout_s=5
    )
    assert Runs(store, [channel]).notify(drift=FOUND._replace(title="Drift: Größe")) == []
    (mail,) = mail_server.mails
    assert mail.sender == mail.message["from"] == "me@example.org"
    assert mail.recipients == ["you@example.org", "her@example.org", "him@example.org"]
    assert mail.message["to"] == "you@example.org, her@example.org, him@example.org"
    assert mail.message["subject"] == "Drift: Größe"
    assert mail.message.get_content().splitlines() == FOUND[1].split("\n")


def test_an_address_with_a_plus_is_kept(store: Store, mail_server: MailServer) -> None:
    Runs(store, [Mail(mail_server.address("from=me@example.org&to=me+alerts@example.org"), timeout_s=5)]).notify(
        drift=FOUND
    )
    assert mail_server.mails[0].recipients == ["me+alerts@example.org"]


def test_the_default_sender_is_the_first_recipient(store: Store, mail_server: MailServer) -> None:
    Runs(store, [Mail(mail_server.address("to=you@example.org,her@example.org"), timeout_s=5)]).notify(drift=FOUND)
    assert mail_server.mails[0].sender == "you@example.org"


def test_a_mail_server_without_ehlo_takes_it(store: Store) -> None:
    mail_server = MailServer(supports_ehlo=False)
    with serving(mail_server):
        assert Runs(store, [Mail(mail_server.address(), timeout_s=5)]).notify(drift=FOUND) == []
    assert [mail.message["subject"] for mail in mail_server.mails] == [FOUND[0]]
    assert "HELO" in mail_server.verbs


def test_mail_for_an_unknown_recipient_waits_until_the_recipient_is_known(
    store: Store, mail_server: MailServer
) -> None:
    mail_server.unknown_recipients = {"you@example.org"}
    runs = Runs(store, [Mail(mail_server.address(), timeout_s=5)])
    (problem,) = runs.notify(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*no such mailbox", problem)
    assert (mail_server.mails, runs.pauses) == ([], [1, 2])
    mail_server.unknown_recipients = set()
    assert runs.notify(drift=None) == []
    assert [mail.message["subject"] for mail in mail_server.mails] == [FOUND[0], f"Over: {FOUND[0]}"]


def test_a_known_recipient_gets_the_mail_if_another_is_unknown(store: Store, mail_server: MailServer) -> None:
    mail_server.unknown_recipients = {"you@example.org"}
    channel = Mail(mail_server.address("from=me@example.org&to=you@example.org,her@example.org"), timeout_s=5)
    Runs(store, [channel]).notify(drift=FOUND)
    assert [mail.recipients for mail in mail_server.mails] == [["her@example.org"]]


def test_an_unreachable_mail_server_is_named_without_its_password(unused_url: str, store: Store) -> None:
    port = unused_url.split(":")[2].split("/")[0]
    channel = Mail(f"smtp://user:{SECRET}@127.0.0.1:{port}?to=you@example.org", timeout_s=5)
    (problem,) = Runs(store, [channel]).notify(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*refused", problem)
    assert SECRET not in problem


def test_a_silent_mail_server_times_out(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = Mail(f"smtp://127.0.0.1:{silent.getsockname()[1]}?to=you@example.org", timeout_s=0.1)
        (problem,) = Runs(store, [channel]).notify(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*timed out", problem)


def test_an_impossible_host_name_is_a_problem_but_no_failure(store: Store) -> None:
    (problem,) = Runs(store, [Mail("smtp://mail..example.org?to=you@example.org", timeout_s=5)]).notify(drift=FOUND)
    assert problem.startswith("the mail server mail..example.org did not take it: ")


def test_no_password_is_sent_to_a_server_without_encryption(store: Store, mail_server: MailServer) -> None:
    channel = Mail(mail_server.address(login=f"user:{SECRET}"), timeout_s=5)
    (problem,) = Runs(store, [channel]).notify(drift=FOUND)
    assert problem.startswith("the mail server 127.0.0.1 takes no password over an encrypted connection")
    assert SECRET not in problem
    assert "AUTH" not in mail_server.verbs
    assert mail_server.mails == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("implicit_tls", [False, True])
def test_a_password_goes_over_an_encrypted_connection(implicit_tls: bool, tls: ssl.SSLContext, store: Store) -> None:
    mail_server = MailServer(tls, implicit_tls=implicit_tls, password="a/b @:+")
    with serving(mail_server):
        channel = Mail(mail_server.address(login="me%40example.org:a%2Fb%20%40%3A+"), timeout_s=5)
        assert Runs(store, [channel]).notify(drift=FOUND) == []
    assert mail_server.logins == [("me@example.org", "a/b @:+", True)]
    assert len(mail_server.mails) == 1


@pytest.mark.usefixtures("trusted")
def test_mail_without_a_password_is_encrypted_if_the_server_can(tls: ssl.SSLContext, store: Store) -> None:
    mail_server = MailServer(tls)
    with serving(mail_server):
        assert Runs(store, [Mail(mail_server.address(), timeout_s=5)]).notify(drift=FOUND) == []
    assert "STARTTLS" in mail_server.verbs
    assert len(mail_server.mails) == 1


@pytest.mark.parametrize("implicit_tls", [False, True])
def test_a_server_with_an_untrusted_certificate_gets_no_password_and_no_mail(
    implicit_tls: bool, tls: ssl.SSLContext, store: Store
) -> None:
    mail_server = MailServer(tls, implicit_tls=implicit_tls, password=SECRET)
    with serving(mail_server):
        (problem,) = Runs(store, [Mail(mail_server.address(login=f"user:{SECRET}"), timeout_s=5)]).notify(drift=FOUND)
    assert re.match(r"the mail server 127\.0\.0\.1 did not take it: .*certificate", problem, re.IGNORECASE)
    assert (mail_server.logins, mail_server.mails) == ([], [])


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("password", [SECRET, f"{SECRET}%C3%A4"])
def test_a_rejected_password_is_not_shown(
    password: str, tls: ssl.SSLContext, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    mail_server = MailServer(tls, implicit_tls=True, password="another")
    with serving(mail_server):
        (problem,) = Runs(store, [Mail(mail_server.address(login=f"user:{password}"), timeout_s=5)]).notify(drift=FOUND)
    assert problem.startswith("the mail server 127.0.0.1 did not take it: ")
    assert SECRET not in problem + caplog.text
    assert mail_server.mails == []
