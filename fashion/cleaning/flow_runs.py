"""Metaflow's local runs: their folders, cards, and the artifacts that no other run shares. Knows no Metaflow."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from fashion.cleaning.candidates import Candidate, candidate, is_due
from fashion.state.flow_runs import latest_run, newest_run

DIGEST = re.compile(r"\b[0-9a-f]{40}\b")
"""How metadata names an artifact."""
DATA, CARDS = "data", "mf.cards"


def find(store: Path, days: float, *, needed: Collection[str]) -> Iterator[Candidate]:
    """Yield runs, each with the artifacts that only runs before it and itself use.

    Args:
        store: Metaflow's datastore.
        days: age from which a run goes.
        needed: runs that stay, as `TrainFlow/12`; so does each flow's latest.
    """
    for flow in sorted(path for path in store.glob("*") if path.is_dir() and path.name != CARDS):
        kept = {latest_run(flow) or newest_run(flow)}
        runs = {path.name: path for path in sorted(flow.glob("[0-9]*")) if path.is_dir()}
        old = {
            name: path
            for name, path in runs.items()
            if name not in kept and f"{flow.name}/{name}" not in needed and is_due(candidate("", "", [path]), days)
        }
        used = {name: _artifacts(path) for name, path in runs.items()}
        staying = {digest for name in runs if name not in old for digest in used[name]}
        for name, path in old.items():
            own = used[name] - staying
            staying |= own  # of several runs that share an artifact and go, one takes it along
            paths = [path, store / CARDS / flow.name / "runs" / name]
            paths += [flow / DATA / digest[:2] / digest for digest in sorted(own)]
            age = candidate("", "", [path]).age_days
            yield dataclasses.replace(candidate("flow run", f"{flow.name}/{name}", paths), age_days=age)


def _artifacts(run: Path) -> set[str]:
    """Digests of all artifacts that a run's metadata names, those of its code package included."""
    found: set[str] = set()
    for path in run.rglob("*"):
        if path.suffix == ".json" or path.name.endswith(("task_begin", "runtime")):
            try:
                found.update(DIGEST.findall(path.read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError):
                continue
    return found
