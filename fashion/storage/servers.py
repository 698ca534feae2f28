"""Addresses of servers: what is wrong with one, said in a sentence without its password. The one home of SQLAlchemy.

Knows no tables, and nothing of what a server is used for.
"""

import contextlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

DATABASES = ("postgresql", "mysql", "mariadb", "mssql", "oracle", "sqlite")
"""How the addresses of databases begin, before `://` or `+driver://`."""


class ServerUnavailable(OSError):
    """A server cannot be used. The message is one sentence with its address and what to do."""


def server_seconds() -> float:
    """How long a server may take before it counts as away: FASHION_SERVER_SECONDS, 15 by default.

    Raises:
        ValueError: it is not a number of seconds from 1 to 3600.
    """
    text = os.environ.get("FASHION_SERVER_SECONDS") or "15"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise ValueError(f"FASHION_SERVER_SECONDS must be a number of seconds from 1 to 3600, got {text!r}")
    return seconds


def is_database(address: str) -> bool:
    """True if an address is that of an SQL database, a SQLite file included."""
    return address.partition(":")[0].partition("+")[0] in DATABASES


def without_password(address: str) -> str:
    """The address with `***` in place of its password. Whatever else it holds stays."""
    return re.sub(r"(?<=://)([^/?#@]*?):[^/?#]*@", r"\1:***@", address)


def check_database(address: str, *, variable: str) -> None:
    """Log in to a database, and log out again.

    Args:
        address: in SQLAlchemy's form, `postgresql://user:password@host:port/database`.
        variable: the environment variable that holds it, named in the error.

    Raises:
        ServerUnavailable: its driver is not installed, or no server answers, or it refuses the user, or it has no such
            database.
    """
    with _connected(address, variable):
        pass


def has_table(address: str, table: str, *, variable: str) -> bool:
    """Log in to a database, and return True if it has a table of this name.

    Args:
        address: as for `check_database`.
        table: in the schema that is found without naming one.
        variable: as for `check_database`.

    Raises:
        ServerUnavailable: as for `check_database`.
    """
    import sqlalchemy

    limit_requests()
    with _connected(address, variable) as connection:
        return bool(sqlalchemy.inspect(connection).has_table(table))


@contextlib.contextmanager
def _connected(address: str, variable: str) -> Iterator[Any]:
    """A connection of SQLAlchemy's. Raises what `check_database` does."""
    import sqlalchemy
    from sqlalchemy import exc

    shown = without_password(address)
    try:
        url = sqlalchemy.make_url(address)
        is_postgres = url.get_backend_name() == "postgresql"
        limits = {"connect_timeout": max(2, int(server_seconds()))} if is_postgres else {}
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, connect_args=limits)
    except exc.NoSuchModuleError:
        kind = address.partition(":")[0]
        raise ServerUnavailable(
            f"{shown} cannot be used: {kind!r} is no database that is known here; set {variable} to "
            "postgresql://user:password@host/database"
        ) from None
    except (exc.ArgumentError, ValueError):
        raise ServerUnavailable(
            f"{shown} is not the address of a database: set {variable} to postgresql://user:password@host/database"
        ) from None
    except ImportError as error:
        raise ServerUnavailable(f"{shown} cannot be used: {_missing(error, is_postgres=is_postgres)}") from None
    try:
        with engine.connect() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        reason = _reason(error)
        raise ServerUnavailable(f"{shown} cannot be used: {reason}; {_remedy(reason, url, variable)}") from None


def limit_requests() -> None:
    """Let every request to PostgreSQL that any library makes through SQLAlchemy take `server_seconds()` at most.

    MLflow and Optuna set no limit: a server that hangs would hold them for ever.
    """
    import sqlalchemy

    if not sqlalchemy.event.contains(sqlalchemy.Engine, "do_connect", _connect):
        sqlalchemy.event.listen(sqlalchemy.Engine, "do_connect", _connect)


def _connect(dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """Open a connection in SQLAlchemy's place; None leaves it to the dialect."""
    if dialect.driver != "psycopg":
        return None
    from fashion.storage import postgres  # which needs an extra

    return postgres.connect(*arguments, seconds=server_seconds(), **options)


def is_database_error(error: BaseException) -> bool:
    """True if SQLAlchemy or a driver raised it."""
    return any(kind.__module__.partition(".")[0] in ("sqlalchemy", "psycopg") for kind in type(error).__mro__)


def reason_of(error: BaseException) -> str:
    """The part of a database's error that a person can use, without a line break or a full stop at its end."""
    return _reason(error)


def _missing(error: ImportError, *, is_postgres: bool) -> str:
    if is_postgres:
        return "the package psycopg is missing: install the extra `fashion[postgres]`"
    return f"its driver is missing ({error}): install it"


def _reason(error: BaseException) -> str:
    """The part of a driver's message that a person can use."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    # libpq: `connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  database ...`
    return re.sub(r"^.*(?:failed|FATAL): +", "", lines[0])[:200].rstrip(".")


def remedy_of(reason: str, variable: str) -> str:
    """What to do about a reason of `reason_of` why a database cannot be used.

    Args:
        reason: in the words of PostgreSQL or its driver.
        variable: the environment variable with the address.
    """
    if "too many" in reason or "remaining connection slots" in reason:
        return "it has too many connections: try again later, or raise its limit of them"
    if re.search(r"password|authentication|role |permission denied", reason):
        return f"check user and password in {variable}"
    return f"check {variable}, and that its server is up"


def _remedy(reason: str, url: Any, variable: str) -> str:
    if "does not exist" in reason and "role " not in reason:
        server = f"--host {url.host} --port {url.port or 5432} --username {url.username or 'postgres'}"
        return f"create it with `createdb {server} {urllib.parse.quote(url.database or '')}`, or correct {variable}"
    return remedy_of(reason, variable)
