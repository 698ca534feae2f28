"""Addresses of shared logs: each form opens its client, and no message shows a password."""

import sys

import pytest
from support.served import free_port

from fashion.predictions.address import open_shared_log
from fashion.predictions.record import LogUnavailable
from fashion.predictions.shared_log import SharedLogUnavailable


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        ("firestore://project", "firestore", "firestore://project/(default)/predictions"),
        ("firestore://project/(default)", "firestore", "firestore://project/(default)/predictions"),
        ("firestore://project/other", "firestore", "firestore://project/other/predictions"),
        ("postgresql://u:secret@h/d", "postgresql", "postgresql://h/d"),
        ("postgres://u:secret@h:5433/d", "postgresql", "postgresql://h:5433/d"),
        ("postgresql://u:a%40secret%2F@a,b:6/d?sslmode=disable", "postgresql", "postgresql://a,b:6/d"),
        ("postgresql://u:secret@a:5,b:6/d", "postgresql", "postgresql://a:5,b:6/d"),
        ("postgresql:///d?host=/run/postgresql&password=secret", "postgresql", "postgresql:///run/postgresql/d"),
        ("postgresql://u:secret@[::1]:5433/d", "postgresql", "postgresql://[::1]:5433/d"),
    ],
)
def test_an_address_opens_its_log_and_is_shown_without_its_password(given: str, kind: str, shown: str) -> None:
    log = open_shared_log(given)
    assert (log.kind, log.address) == (kind, shown)
    assert "secret" not in repr(log)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://u:se@cret@h/d",
        "postgresql://u:se/cret@h/d",
        "postgresql://u:5/cret@h/d",
        "postgresql://u:se?cret@h/d",
        "postgresql://u:se#cret@h/d",
        "postgresql://u:se%zzcret@h/d",
        "postgresql://u:secret@h",
        "postgresql://u:secret@h/d?sslmod=secret",
        "postgresql://u:secret@h/d?secret",
        "postgresql://u:se cret@h/d",
    ],
)
def test_a_malformed_address_is_one_sentence_without_any_of_it(given: str) -> None:
    with pytest.raises(LogUnavailable) as raised:
        open_shared_log(given)
    message = str(raised.value)
    assert "FASHION_LOG" in message
    assert "it may hold a password" in message
    assert "cret" not in message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("mysql://u:secret@h/d", "an address that begins with mysql://"),
        ("postgresql+psycopg://u:secret@h/d", "an address that begins with postgresql+psycopg://"),
        ("firestore://", "an address that begins with firestore://"),
        ("firestore://p/d/c", "an address that begins with firestore://"),
        ("project-secret", "one without a scheme"),
    ],
)
def test_an_address_of_another_kind_names_the_two_there_are(given: str, named: str) -> None:
    with pytest.raises(LogUnavailable) as raised:
        open_shared_log(given)
    forms = "firestore://project[/database] or postgresql://user:password@host[:port]/database"
    assert str(raised.value) == f"FASHION_LOG must be {forms}, got {named}"


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    log = open_shared_log(f"postgresql://somebody:secret@127.0.0.1:{port}/team")
    with pytest.raises(SharedLogUnavailable, match=f"postgresql://127.0.0.1:{port}/team cannot be used: ") as raised:
        log.get("01a210f9-adec-7a93-8180-2b2d71881f13")
    assert "Connection refused" in str(raised.value)
    assert "secret" not in f"{raised.value} {raised.value.__cause__!r}"
    assert "\n" not in str(raised.value)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "psycopg" or name.startswith("fashion.predictions.postgres"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        SharedLogUnavailable, match=r"needs the package psycopg: install the extra `fashion\[postgres\]`"
    ):
        open_shared_log("postgresql://h/d")
