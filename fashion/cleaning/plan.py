"""Everything of a home that may go, and the removal of each. Knows where each kind is."""

from collections.abc import Iterator
from pathlib import Path

from fashion.cleaning import bentos, candidates, flow_runs, processes, stored, studies
from fashion.cleaning.candidates import Candidate, candidate, is_due
from fashion.config.gc import GcConfig
from fashion.home import Home
from fashion.registry import cleanup
from fashion.state import relocation
from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable
from fashion.storage.servers import is_database

FAILED_RUN = "failed run"


def find(home: Home, settings: GcConfig) -> list[Candidate]:
    """Look at everything of this home, and change nothing.

    What champions, their predecessors and challengers are of stays, and so does what a process on this machine uses.

    Args:
        home: of this machine, connected to its registry. Of what addresses name elsewhere, checkpoints, studies and
            archives of bentos are looked at.
        settings: the ages.

    Raises:
        fashion.storage.blobs.StoreUnavailable: one of their stores cannot be listed, or its address is none.
        OSError: the database of studies cannot be used.
    """
    needed = cleanup.needed()
    running = processes.look(home.root)
    found = [*bentos.find(home.bentos, settings, versions=needed.versions, running=running.commands)]
    if home.bento_archives is not None:
        archives = _open(home.bento_archives, "FASHION_BENTOS")
        found += stored.archives(archives, settings, versions=needed.versions)
    if not running.has_flow:  # it may be about to use what an earlier run stored
        metaflow = home.root / relocation.METAFLOW
        found += _checkpoints(home, settings)
        found += studies.find(home.studies, settings)
        found += _failed_runs(home, settings, needed)
        found += flow_runs.find(metaflow, settings.flow_runs_days, needed=needed.flow_runs)
    return found


def remove(home: Home, found: Candidate) -> None:
    """Remove one of them.

    Raises:
        OSError: a part of it cannot be removed.
    """
    if found.kind == FAILED_RUN:
        cleanup.remove(home, found.name.partition(" ")[0].split(","))
        return
    if found.kind == studies.IN_DATABASE:
        studies.remove(home.studies, found)
        return
    candidates.remove(found)
    if found.kind in ("bento", "model copy"):
        bentos.point_to_newest(home.bentos)


def _open(address: str, variable: str) -> Store:
    try:
        return open_store(address)
    except ValueError as error:
        raise StoreUnavailable(f"{variable}: {error}") from None


def _checkpoints(home: Home, settings: GcConfig) -> Iterator[Candidate]:
    if "://" in home.checkpoints:
        yield from stored.checkpoints(_open(home.checkpoints, "FASHION_CHECKPOINTS"), settings)
        return
    for path in sorted(Path(home.checkpoints).glob("*/*")):
        found = candidate("checkpoint", f"{path.parent.name}/{path.name}", [path])
        if is_due(found, settings.checkpoints_days):
            yield found


def _failed_runs(home: Home, settings: GcConfig, needed: cleanup.NeededVersions) -> Iterator[Candidate]:
    if not is_database(home.tracking_uri):
        return
    days = max(settings.failed_runs_days, candidates.RECENT_SECONDS / candidates.DAY_SECONDS)
    for run in cleanup.failed_runs(home, days, keep=needed.mlflow_runs):
        measured = candidate("", "", run.folders)
        name = f"{','.join(run.run_ids)} {run.name}"
        yield Candidate(FAILED_RUN, name, measured.paths, measured.num_bytes, run.age_days)
