"""`fashion status`: one screen on what there is, and the next thing to type."""

import dataclasses
import datetime
import json
import os
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from fashion.commands.arguments import AsJson, Overrides
from fashion.commands.errors import FAILED, failing_on
from fashion.config.names import URL

if TYPE_CHECKING:
    from fashion.commands.overview import DriftPart, Failure, LogPart, ModelsPart, ModelVersion, Overview, ServicePart

WIDTH = 100
INDENT = 14
REGISTRY_SECONDS = 3.0
"""How long an MLflow server may take, if FASHION_SERVER_SECONDS does not say less."""


def status(
    overrides: Overrides = None,
    url: Annotated[str, typer.Option(help="Address of the service.")] = URL,
    brief: Annotated[bool, typer.Option("--brief", help="Only model, service, drift and the next command.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what there is, and what to type next.

    Data, models, service, predictions, drift and disk use. Creates nothing. Exits with 1 where a part cannot be read.
    """
    from fashion.commands import overview
    from fashion.config.schema import ConfigError
    from fashion.data.manifest import DataError
    from fashion.data.requested import with_known
    from fashion.home import current_home, set_environment
    from fashion.storage.servers import server_seconds

    home = current_home()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(min(REGISTRY_SECONDS, server_seconds()))))
    set_environment(home)
    with failing_on(ConfigError, DataError):
        chosen = with_known(overrides or [])
    found = overview.collect(home, url.rstrip("/"), chosen)
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "failures": found.failures}, indent=1))
    else:
        print(format_brief(found) if brief else format_overview(found))
    if found.failures:
        raise typer.Exit(FAILED)


def format_overview(found: "Overview") -> str:
    """The whole screen."""
    from fashion.commands.overview import DataPart

    data, disk = found.data, found.disk
    if isinstance(data, DataPart):
        state = "cached" if data.cached else "not on this machine yet"
        data_lines = [f"{data.name} {data.digest[:12]}, {state}"]
    else:
        data_lines = _failed(data)
    if isinstance(disk, dict):
        disk_lines = [", ".join(f"{kind} {format_bytes(size)}" for kind, size in disk.items()) or "nothing yet"]
    else:
        disk_lines = _failed(disk)
    sections = {
        "home": [found.home],
        "data": data_lines,
        **_model_sections(found.models),
        "service": _service_lines(found.service),
        "predictions": _log_lines(found.log),
        "drift": _drift_lines(found.drift),
        "disk": disk_lines,
    }
    return f"{_format(sections)}\n\n{_next_line(found)}"


def format_brief(found: "Overview") -> str:
    """A few lines for the end of `make train`, `make bento` and `make drift`."""
    from fashion.commands.overview import DriftPart

    sections = {**_model_sections(found.models, brief=True), "service": _service_lines(found.service)}
    if isinstance(found.drift, DriftPart) and found.drift.report_id is not None:
        sections["drift"] = _drift_lines(found.drift)[:1]
    shortened = {
        name: [textwrap.shorten(line, WIDTH - INDENT, placeholder=" ...") for line in lines]
        for name, lines in sections.items()
    }
    return f"{_format(shortened)}\n{_next_line(found)}"


def _format(sections: dict[str, list[str]]) -> str:
    """Names on the left, lines on the right, wrapped to one width."""
    lines: list[str] = []
    for name, texts in sections.items():
        for index, text in enumerate(texts):
            head = name if index == 0 else ""
            wrapped = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False) or [""]
            lines += [f"{head if row == 0 else '':{INDENT}}{line}".rstrip() for row, line in enumerate(wrapped)]
    return "\n".join(lines)


def _next_line(found: "Overview") -> str:
    if found.next_command is None:
        return _format({"next": [found.next_reason]})
    return _format({"next": [found.next_command, found.next_reason]})


def _model_sections(models: "ModelsPart | Failure", *, brief: bool = False) -> dict[str, list[str]]:
    from fashion.commands.overview import ModelsPart

    if not isinstance(models, ModelsPart):
        return {"champion": _failed(models)}
    champion, challenger, latest = models.champion, models.challenger, models.latest
    sections = {"champion": ["none"] if champion is None else _model_lines(champion, brief=brief)}
    if challenger is not None:
        sections["challenger"] = _model_lines(challenger, brief=brief)
    elif latest is not None and latest not in (champion, challenger):
        sections["newest"] = _model_lines(latest, brief=brief)
    if models.canary is not None:
        sections["canary"] = [models.canary]
    return sections


def _model_lines(version: "ModelVersion", *, brief: bool) -> list[str]:
    """Accuracy, and since when and why the version has its place."""
    accuracy = version.summary or "accuracy unknown"
    if brief:  # the first part: accuracy and its interval
        accuracy = accuracy.replace("), ", ")\n").splitlines()[0]
    lines = [f"version {version.number}: {accuracy}"]
    if "champion" in version.aliases:
        since = f"since {_time(version.promoted)}" if version.promoted else f"registered {_time(version.created)}"
        return lines if brief else [*lines, f"{since}: {version.reason}" if version.reason else since]
    verdict = f", not promoted: {version.rejected}" if version.rejected else ""
    return [*lines, f"registered {_time(version.created)}{verdict}"]


def _service_lines(service: "ServicePart | Failure") -> list[str]:
    from fashion.commands.overview import ServicePart

    if not isinstance(service, ServicePart):
        return _failed(service)
    if not service.up:
        return [f"not up on {service.url}{f' ({service.problem})' if service.problem else ''}"]
    problem = f"; {service.problem}" if service.problem else ""
    return [f"up on {service.url}, version {service.version}{problem}"]


def _log_lines(log: "LogPart | Failure") -> list[str]:
    from fashion.commands.overview import LogPart

    if not isinstance(log, LogPart):
        return _failed(log)
    if not log.predictions:
        return ["none yet"]
    lines = [f"{log.last_day:,} in the last 24 hours, {log.predictions:,} in all"]
    if log.ships_to is not None:
        lines.append(f"{log.backlog_rows:,} rows wait for {log.ships_to}, {log.refused_rows:,} were refused")
    return lines


def _drift_lines(drift: "DriftPart | Failure") -> list[str]:
    from fashion.commands.overview import DriftPart

    if not isinstance(drift, DriftPart):
        return _failed(drift)
    if drift.report_id is None:
        lines = ["no report yet"]
    else:
        decision = (drift.decision or "unreadable").replace("_", " ")
        level = f", {drift.level}" if drift.level not in (None, "none") else ""
        reason = f": {drift.reason}" if drift.reason else ""
        when = _time(drift.time) if drift.time else drift.report_id
        lines = [f"{decision}{level} in the report of {when}{reason}"]
    if drift.next_run is not None:
        lines.append(f"next run by the timer: {_time(drift.next_run)}, where it is enabled")
    return lines


def _failed(part: "Failure | object") -> list[str]:
    return [f"cannot be read: {getattr(part, 'error', part)}"]


def _time(iso: str) -> str:
    moment = datetime.datetime.fromisoformat(iso).astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def format_bytes(count: int) -> str:
    """A number of bytes with its unit, such as 4.2 MB."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
