"""What there is on this machine, part by part, and the next thing to do. Reads only: creates nothing.

Each part is read on its own: one that cannot be read says so, and the others are not affected.
"""

import dataclasses
import datetime
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

from fashion.commands.arguments import model_of
from fashion.commands.errors import first_line
from fashion.config.next_command import of_data
from fashion.home import Home
from fashion.state import faults
from fashion.storage import sqlite

Part = TypeVar("Part")

DEADLINE_SECONDS = 30.0
"""Time for all parts; what has not been read by then is reported as such."""
SERVICE_SECONDS = 5.0
"""How long the service may take to answer."""
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class DataPart:
    """The version of the data that the configuration names."""

    name: str
    digest: str
    cached: bool
    """True if all files are in the cache, with the sizes of the manifest."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    number: int
    aliases: tuple[str, ...]
    created: str
    """ISO time, UTC."""
    summary: str
    """Accuracy with its 95 % interval, as evaluated before registration."""
    promoted: str | None
    """ISO time, UTC."""
    reason: str | None
    """Why it was promoted."""
    rejected: str | None = None
    """Why the gate did not promote it."""


@dataclass(frozen=True)
class ModelsPart:
    """The registry."""

    champion: ModelVersion | None = None
    challenger: ModelVersion | None = None
    latest: ModelVersion | None = None
    """The newest version; the champion or the challenger, or one that was rejected."""
    canary: str | None = None
    """What becomes of the canary that was deployed last beside the champion."""


@dataclass(frozen=True)
class ServicePart:
    """The service at one address."""

    url: str
    up: bool
    version: str | None = None
    """Model version that answers."""
    problem: str | None = None
    """Why it is up and not ready."""


@dataclass(frozen=True)
class LogPart:
    """The prediction log of this machine."""

    predictions: int = 0
    """All predictions, without those of shadows."""
    last_day: int = 0
    """Of the last 24 hours."""
    since_report: int = 0
    """Made since the last drift report."""
    ships_to: str | None = None
    backlog_rows: int = 0
    """Rows that wait to be shipped."""
    refused_rows: int = 0
    """Rows that the destination does not take."""


@dataclass(frozen=True)
class DriftPart:
    """The last drift report, and when the next is due."""

    report_id: str | None = None
    time: str | None = None
    """ISO time, UTC."""
    decision: str | None = None
    level: str | None = None
    reason: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    rows: int | None = None
    next_run: str | None = None
    """ISO time, UTC; None where no timer was written."""


@dataclass(frozen=True)
class Failure:
    """A part that cannot be read."""

    error: str


@dataclass(frozen=True)
class Overview:
    """All parts. A part is a Failure where it cannot be read."""

    home: str
    data: DataPart | Failure
    models: ModelsPart | Failure
    service: ServicePart | Failure
    log: LogPart | Failure
    drift: DriftPart | Failure
    disk: dict[str, int] | Failure
    """Bytes by kind; only kinds that are on this machine and not empty."""
    next_command: str | None = None
    """What to type next; None when there is nothing to do."""
    next_reason: str = field(default="")
    data_name: str | None = None
    """Of the data config, where it is not the usual one."""

    @property
    def failures(self) -> dict[str, str]:
        """Error by part, of those that cannot be read."""
        parts = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: part.error for name, part in parts.items() if isinstance(part, Failure)}


def collect(home: Home, url: str, overrides: Sequence[str] = (), *, deadline_s: float = DEADLINE_SECONDS) -> Overview:
    """Read every part at once.

    Args:
        home: where the state is.
        url: address of the service.
        overrides: of the configuration, such as `data=NAME`.
        deadline_s: seconds for all of it.
    """
    readers: dict[str, Callable[[], Any]] = {
        "data": lambda: read_data(home, overrides),
        "models": lambda: read_models(home, overrides),
        "service": lambda: read_service(url),
        "drift": lambda: read_drift(home),
        "log": lambda: read_log(home),
        "disk": lambda: measure_disk(home),
    }
    parts: dict[str, Any] = {}

    def read(name: str) -> None:
        try:
            parts[name] = readers[name]()
        except Exception as error:  # whatever a part raises, the others are shown
            is_own = type(error).__module__.startswith("fashion.")
            fault = None if is_own else faults.find(error, home.root)
            parts[name] = Failure(first_line(error) if fault is None else fault.sentence)

    threads = [threading.Thread(target=read, args=(name,), daemon=True) for name in readers]
    until = time.monotonic() + deadline_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = Failure(f"no answer within {deadline_s:.0f} s")
    name = next((text.removeprefix("data=") for text in overrides if text.startswith("data=")), None)
    found = Overview(home=str(home.root), **{name: parts.get(name, late) for name in readers}, data_name=name)
    command, reason = choose_next(found)
    if command is not None and name is not None:
        command = of_data(command, name, model=model_of(overrides))
    return dataclasses.replace(found, next_command=command, next_reason=reason)


def read_data(home: Home, overrides: Sequence[str] = ()) -> DataPart:
    """The version of the data, and whether it is cached. Looks at sizes; `fashion data verify` reads the files."""
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config
    from fashion.data import manifest

    version = manifest.read(load_train_config(compose(overrides)).data)
    folder = manifest.folder_of(version, home.data)
    paths = [(folder / entry.path, entry.size) for entry in version.files]
    return DataPart(version.name, version.digest, all(p.is_file() and p.stat().st_size == size for p, size in paths))


def read_models(home: Home, overrides: Sequence[str] = ()) -> ModelsPart:
    """Champion, challenger and the newest version."""
    if _is_absent(home.tracking_uri):
        return ModelsPart()
    from fashion.evaluation import canary
    from fashion.registry import tracking, versions

    tracking.connect(home)
    name = model_of(overrides)
    found = versions.list_versions(name)
    by_alias = {alias: version for version in reversed(found) for alias in version.aliases}
    champion, challenger = by_alias.get(versions.CHAMPION), by_alias.get(versions.CHALLENGER)
    latest = found[0] if found else None
    shown = [None if each is None else _model(each) for each in (champion, challenger, latest)]
    return ModelsPart(shown[0], shown[1], shown[2], canary.describe_last(name))


def read_service(url: str) -> ServicePart:
    """Whether the service answers, and which version it has loaded."""
    try:
        model = _get_json(f"{url}/model")
    except OSError as error:  # a service that hangs is not one that was never started
        hangs = isinstance(getattr(error, "reason", error), TimeoutError)
        return ServicePart(url, up=False, problem=f"no answer in {SERVICE_SECONDS:g} s" if hangs else None)
    if not isinstance(model, dict) or "version" not in model:
        return ServicePart(url, up=False, problem="another program answers there")
    try:
        ready = _get_json(f"{url}/readyz")
        problem = ready["log"]["problem"]
    except (OSError, KeyError, TypeError):
        problem = "not ready"
    return ServicePart(url, up=True, version=str(model["version"]), problem=problem)


def read_log(home: Home) -> LogPart:
    """Counts of the prediction log."""
    from fashion.predictions.log import PredictionLog

    if not home.predictions.exists():
        return LogPart()
    report_us = _report_us(home)
    with PredictionLog(home.predictions) as log:
        backlog = log.outbox.backlog()
        return LogPart(
            predictions=log.count(role="champion"),
            last_day=log.count(time.time_ns() // 1000 - DAY_US, role="champion"),
            since_report=log.count(report_us, role="champion"),
            ships_to=backlog.destination,
            backlog_rows=backlog.rows,
            refused_rows=backlog.refused,
        )


def read_drift(home: Home) -> DriftPart:
    """The last report, and the next run by the timer where one was written."""
    from fashion.commands import systemd
    from fashion.config.times import next_time

    cron_line = systemd.read_cron(home)
    now = datetime.datetime.now(datetime.UTC)
    next_run = None if cron_line is None else _iso(next_time(cron_line, now))
    latest = _latest_report(home)
    if latest is None:
        return DriftPart(next_run=next_run)
    moment = _report_time(latest["id"])
    return DriftPart(
        report_id=latest["id"],
        time=None if moment is None else _iso(moment),
        **{key: latest.get(key) for key in ("decision", "level", "reason", "model_name", "model_version", "rows")},
        next_run=next_run,
    )


def measure_disk(home: Home) -> dict[str, int]:
    """Bytes by kind of what is on this machine."""
    kinds: dict[str, list[Path | str]] = {
        "data": [home.data],
        "models": [home.root / "mlflow.db", home.root / "mlflow-artifacts"],
        "checkpoints": [home.checkpoints, home.studies if "://" not in home.studies else ""],
        "bentos": [home.bentos],
        "images": [home.images],
        "reports": [home.reports],
        "metaflow": [home.root / "metaflow"],
        "log": [*home.root.glob(f"{home.predictions.name}*")],
    }
    sizes = {kind: sum(_size(_local_path(path)) for path in paths if _is_local(path)) for kind, paths in kinds.items()}
    return {kind: size for kind, size in sizes.items() if size}


def choose_next(found: Overview) -> tuple[str | None, str]:
    """The one command to type next, and why; None and a sentence when there is nothing to do."""
    models, service, log, drift = found.models, found.service, found.log, found.drift
    broken = [
        name for name, part in (("registry", models), ("log", log), ("reports", drift)) if isinstance(part, Failure)
    ]
    if broken:
        return None, f"repair what cannot be read first: {', '.join(broken)}"
    if isinstance(models, ModelsPart) and models.champion is None:
        if models.latest is None:
            return "make train", "no model is trained yet"
        number = models.latest.number
        return f'fashion registry promote {number} --reason "..."', "versions are registered, and none is champion"
    if isinstance(log, LogPart) and log.refused_rows:
        return "fashion log status", f"{log.ships_to} refused {log.refused_rows:,} rows"
    if isinstance(service, ServicePart):
        if not service.up:
            why = f" ({service.problem})" if service.problem else ""
            return "make serve", f"no service is up on {service.url}{why}"
        champion = models.champion if isinstance(models, ModelsPart) else None
        if champion is not None and service.version != str(champion.number):
            return "make bento", f"version {service.version} is served, and version {champion.number} is the champion"
    if isinstance(log, LogPart) and isinstance(drift, DriftPart):
        if not log.predictions:
            return "fashion traffic --rows 500", "nothing has been predicted yet"
        if log.since_report:
            return "make drift", f"{log.since_report:,} predictions have come in since the last drift report"
        if drift.level == "harmful":
            return 'make drift ARGS="retrain.enabled=true"', "the last report found harmful drift"
        if drift.next_run is None:
            return "make schedule", "no timer looks for drift"
    return None, "nothing to do"


def _model(version: Any) -> ModelVersion:
    tags = version.tags
    return ModelVersion(
        number=version.number,
        aliases=version.aliases,
        created=_iso(version.created),
        summary=tags.get("summary", ""),
        promoted=tags.get("promoted.time"),
        reason=tags.get("promoted.reason"),
        rejected=tags.get("refused.reason"),
    )


def _latest_report(home: Home) -> dict[str, Any] | None:
    from fashion.drift import reports
    from fashion.storage.address import open_store

    latest: Sequence[dict[str, Any]] = [] if _is_absent(home.reports) else reports.latest(open_store(home.reports), 1)
    return latest[0] if latest else None


def _report_us(home: Home) -> int:
    """When the last drift report was made, in microseconds since 1970; 0 without one."""
    try:
        latest = _latest_report(home)
    except Exception:  # reported where the reports are read
        return 0
    moment = None if latest is None else _report_time(latest["id"])
    return 0 if moment is None else int(moment.timestamp() * 1e6)


def _report_time(report_id: str) -> datetime.datetime | None:
    """The time in a report's name, such as 20261126T060000Z-v3."""
    try:
        moment = datetime.datetime.strptime(report_id.partition("-")[0], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.UTC)


def _get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=SERVICE_SECONDS) as response:
        try:
            return json.load(response)
        except ValueError:
            return None


def _is_local(address: Path | str) -> bool:
    return str(address) != "" and ("://" not in str(address) or str(address).startswith("file://"))


def _local_path(address: Path | str) -> Path:
    text = str(address)
    return Path(unquote(urlparse(text).path) if text.startswith("file://") else text)


def _is_absent(address: str) -> bool:
    """True if an address is a file or folder of this machine that is not there: reading it would create it."""
    if (database := sqlite.path_of(address)) is not None:
        return not database.exists()
    return _is_local(address) and not _local_path(address).expanduser().exists()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links within are not followed."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  # twice as fast as Path
            except OSError:  # removed meanwhile
                continue
    return total


def _iso(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
