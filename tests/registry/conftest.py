"""The tracking store of this room's tests: a SQLite file, and after that a server on PostgreSQL."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import mlflow_server, postgres

from fashion.home import Home, current_home
from fashion.registry import tracking


@dataclass(frozen=True)
class TeamServer:
    """An MLflow server and its database."""

    address: str
    database: str

    def clear(self) -> None:
        """Empty every table but those that are not empty on a new server."""
        import psycopg

        with psycopg.connect(self.database) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            tables = ", ".join(f'"{name}"' for (name,) in found if name not in ("alembic_version", "workspaces"))
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())


@pytest.fixture(scope="session")
def team_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    """A server that keeps artifacts in a folder, and takes them from its clients."""
    folder = tmp_path_factory.mktemp("artifacts")
    with postgres.serve() as server:
        database = postgres.create_database(server, "mlflow")
        with mlflow_server.serve(database, folder.as_uri()) as address:
            yield TeamServer(address, database)


@pytest.fixture(params=["sqlite", pytest.param("server", marks=[pytest.mark.slow, pytest.mark.ci])])
def mlflow_home(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Home:
    """A new home with an empty tracking store, connected."""
    root = tmp_path / "var"
    root.mkdir()
    monkeypatch.setenv("FASHION_HOME", str(root))
    if request.param == "sqlite":
        shutil.copy(migrated_database, root / "mlflow.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    else:
        server: TeamServer = request.getfixturevalue("team_server")
        server.clear()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    home = current_home()
    tracking.connect(home)
    return home
