"""The shared log that an address names. Knows the forms of addresses; a password stays out of every message."""

import re

from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.record import LogUnavailable
from fashion.predictions.shared_log import SharedLog, SharedLogUnavailable
from fashion.storage.servers import server_seconds

FORMS = "firestore://project[/database] or postgresql://user:password@host[:port]/database"

_FIRESTORE = re.compile(r"firestore://([^/@?#\s]+)(?:/([^/@?#\s]+))?/?")
# libpq takes what follows an unescaped `@`, `/` or `?` of a password for a host, a port or a database, and its
# messages and log.address would show it: an address of any other form is refused without a word of it.
_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]*)(?::\d+)?"
_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?:[^/@?#:\s]+(?::[^/@?#\s]*)?@)?{_HOST}(?:,{_HOST})*/[^/@?#\s]+(?:\?[^?#@\s]*)?"
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


def open_shared_log(address: str, *, expire_days: float | None = None, timeout_s: float | None = None) -> SharedLog:
    """Return the client of the log that an address names. Connects to nothing yet.

    Args:
        address: of one of the FORMS.
        expire_days: let predictions expire this many days after they were made.
        timeout_s: how long one call may take, all its attempts together, in seconds; by default FASHION_SERVER_SECONDS.

    Raises:
        LogUnavailable: the address has another form, or FASHION_SERVER_SECONDS is no number of seconds.
        SharedLogUnavailable: the database's library is not installed.
    """
    if timeout_s is None:
        try:
            timeout_s = server_seconds()
        except ValueError as error:
            raise LogUnavailable(str(error)) from None
    if found := _FIRESTORE.fullmatch(address):
        database = found[2] or "(default)"
        return FirestoreLog(found[1], database=database, timeout_s=timeout_s, expire_days=expire_days)
    if _POSTGRES.fullmatch(address):
        try:
            from fashion.predictions.postgres import PostgresLog
        except ModuleNotFoundError as error:
            if error.name != "psycopg":
                raise
            raise SharedLogUnavailable(
                "a shared log in PostgreSQL needs the package psycopg: install the extra `fashion[postgres]`"
            ) from None
        return PostgresLog(address, timeout_s=timeout_s, expire_days=expire_days)
    scheme = _SCHEME.match(address)
    if scheme and scheme[1] in ("postgresql", "postgres"):
        raise LogUnavailable(
            "FASHION_LOG must be postgresql://user:password@host[:port]/database with `@`, `/`, `?`, `#` and `%` in "
            "user and password percent-encoded (`@` as %40), and is not; its value is not shown, for it may hold a "
            "password"
        )
    named = f"an address that begins with {scheme[1]}://" if scheme else "one without a scheme"
    raise LogUnavailable(f"FASHION_LOG must be {FORMS}, got {named}")
