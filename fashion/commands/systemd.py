"""Timer units and a crontab that run the drift flow by the clock. Writes and checks files; starts nothing."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fashion.commands import timer_environment
from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.config.times import cron_times
from fashion.drift import alert_channels
from fashion.home import REPOSITORY, Home
from fashion.state import relocation

NAME = "fashion-drift"
FAILED = f"{NAME}-failed.service"
UNITS = (f"{NAME}.service", f"{NAME}.timer", FAILED, "crontab")
ENVIRONMENT = "environment"
"""The file of variables, beside the units."""
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
FLOW = REPOSITORY / "flows" / "drift_flow.py"
SCHEDULED = "FASHION_SCHEDULED"
"""Tells a run that there is a next one, which may be late: `flows/runtime/launch.py` reads it."""


@dataclass(frozen=True)
class CheckResult:
    """Whether what was written is valid."""

    notes: tuple[str, ...]
    """What a person may want to know: the next runs, or what was not checked."""
    problems: tuple[str, ...]
    """What is wrong, one sentence each; none when all is valid."""


def folder_of(home: Home) -> Path:
    """Where the units of a home are."""
    return home.root / "schedule"


def write_units(home: Home, overrides: Sequence[str]) -> str:
    """Write the units, in place of older ones, and return their cron line.

    Args:
        home: whose state the flow works on.
        overrides: of the drift flow's configuration; they are stored in the units.

    Raises:
        ValueError: an override or the cron line is wrong. Nothing is written then.
    """
    settings = load_as(DriftConfig, compose(overrides, root=DriftConfig.root))
    texts = (
        service(home, overrides),
        timer(settings.cron),
        failed_service(home, overrides),
        crontab(home, settings.cron, overrides),
    )
    folder = folder_of(home)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(UNITS, texts, strict=True):
        (folder / name).write_text(text)
    return settings.cron


def service(home: Home, overrides: Sequence[str]) -> str:
    """The service unit: the flow under a lock."""
    return f"""[Unit]
Description=Look for drift in what the classifier was asked
# A run that was killed, or could not begin, has sent no alert.
OnFailure={FAILED}

[Service]
Type=oneshot
# Metaflow stops its tasks on SIGINT; on SIGTERM it would leave them running.
KillSignal=SIGINT
TimeoutStartSec=6h
{_environment(home)}
ExecStart={_command_line(command(home, overrides))}
"""


def failed_service(home: Home, overrides: Sequence[str]) -> str:
    """The unit that sends an alert when the flow has failed, unless the flow has sent one itself."""
    return f"""[Unit]
Description=Say that looking for drift has failed

[Service]
Type=oneshot
{_environment(home)}
ExecStart={_command_line(failed_command(overrides))}
"""


def timer(cron_line: str) -> str:
    """The timer unit."""
    return f"""[Unit]
Description=When to look for drift

[Timer]
OnCalendar={calendar(cron_line)}
# After a time without power it runs once, late.
Persistent=true

[Install]
WantedBy=timers.target
"""


def crontab(home: Home, cron_line: str, overrides: Sequence[str]) -> str:
    """Return the lines of a crontab that run the drift flow: a time zone and one entry.

    Args:
        home: whose state the flow uses.
        cron_line: five fields that say when, in UTC.
        overrides: of the flow's configuration.
    """
    environment, log = (shlex.quote(str(folder_of(home) / name)) for name in (ENVIRONMENT, "drift.log"))
    # Line by line, as systemd reads it: a shell that sources the file would end an address at its first &.
    read = 'while IFS= read -r each || [ -n "$each" ]; do case $each in [A-Za-z_]*=*) export "$each";; esac; done'
    run, failed = shlex.join(command(home, overrides)), shlex.join(failed_command(overrides))
    script = f"[ ! -f {environment} ] || {read} < {environment}; {run}; code=$?; [ $code = 0 ] || {failed}; exit $code"
    line = shlex.join(["env", f"FASHION_HOME={home.root}", f"{SCHEDULED}=1", "sh", "-c", script])
    # To cron a percent sign is the end of the line.
    escaped = f"{line} >> {log} 2>&1".replace("%", "\\%")
    return f"CRON_TZ=UTC\n{cron_line} {escaped}\n"


def command(home: Home, overrides: Sequence[str]) -> list[str]:
    """The flow under a lock: nothing is started while an earlier run goes on, which counts as success."""
    flock = [shutil.which("flock") or "/usr/bin/flock", "-n", "-E", "0", str(folder_of(home) / "lock")]
    return [*flock, sys.executable, str(FLOW), "run", *overrides]


def failed_command(overrides: Sequence[str]) -> list[str]:
    """What says that the flow has failed."""
    return [sys.executable, "-m", "fashion", "drift", "failed", *overrides]


def calendar(cron_line: str) -> str:
    """A cron line as systemd's OnCalendar.

    Raises:
        ValueError: a field is malformed, or both days are restricted: cron then means either, and systemd both.
    """
    minute, hour, day, month, weekday = cron_times(cron_line)
    if len(day) < 31 and len(weekday) < 7:
        raise ValueError(f"cron {cron_line!r} restricts days of the month and of the week: choose one of them")
    days = "" if len(weekday) == 7 else ",".join(DAYS[each] for each in weekday) + " "
    date = f"*-{_list(month, 12)}-{_list(day, 31)}"
    return f"{days}{date} {_list(hour, 24)}:{_list(minute, 60)}:00 UTC"


def read_cron(home: Home) -> str | None:
    """The cron line of the units of a home; None where none were written."""
    try:
        *_, line = (folder_of(home) / "crontab").read_text().splitlines()
    except (OSError, ValueError):
        return None
    return " ".join(line.split()[:5])


def explain(home: Home, cron_line: str) -> str:
    """How to start what was written."""
    folder = folder_of(home)
    units = shlex.join(str(folder / name) for name in UNITS[:3])
    return f"""In {folder}:
  {NAME}.service   what runs: the drift flow, under a lock, so that two never overlap
  {NAME}.timer     when: {calendar(cron_line)}
  {FAILED}    sends an alert when it fails
  crontab                 the same for cron

Start it, for yourself:
  systemctl --user link {units}
  systemctl --user enable --now {NAME}.timer
  loginctl enable-linger                       # go on when you are logged out
See and end it:
  systemctl --user list-timers {NAME}.timer
  journalctl --user -u {NAME}
  systemctl --user disable --now {NAME}.timer
Without systemd:
  (crontab -l; cat {shlex.quote(str(folder / "crontab"))}) | crontab -      # local time, where cron ignores CRON_TZ
Where alerts go, and secrets, are NAME=value lines in {folder / ENVIRONMENT}.
`make schedule-check` checks all of it."""


def check_units(home: Home) -> CheckResult:
    """Check that the units are there, agree with each other, and are valid for systemd."""
    folder = folder_of(home)
    missing = [name for name in UNITS if not (folder / name).is_file()]
    if missing:
        return CheckResult((), (f"{folder} has no {', '.join(missing)}: run `make schedule` first",))
    problems = _find_disagreements(folder)
    if _home_and_schedule(home) not in _values(folder / f"{NAME}.service", "Environment"):
        problems.append(f"{NAME}.service was written where this home was before: run `make schedule` again")
    problems += _find_missing(home)
    if shutil.which("systemd-analyze") is None:
        notes = ["systemd-analyze is not on this machine: the timer's syntax was not checked"]
    else:
        notes, complaints = _analyze(folder)
        problems += complaints
    return CheckResult(tuple(notes), tuple(problems))


def _home_and_schedule(home: Home) -> str:
    return f"{_quote(f'FASHION_HOME={home.root}')} {SCHEDULED}=1"


def _environment(home: Home) -> str:
    path = str(folder_of(home) / ENVIRONMENT).replace("%", "%%")
    return (
        f"Environment={_home_and_schedule(home)}\n"
        f"# Secrets and addresses, one NAME=value per line. May be missing.\nEnvironmentFile=-{path}"
    )


def _command_line(words: Sequence[str]) -> str:
    return " ".join(_quote(word).replace("$", "$$") for word in words)


def _list(numbers: Sequence[int], count: int) -> str:
    return "*" if len(numbers) == count else ",".join(f"{number:02d}" for number in numbers)


def _quote(word: str) -> str:
    """Quote a word for systemd, where a percent sign begins a specifier."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"' if re.search(r"[\s\"';]", word) else plain


def _find_disagreements(folder: Path) -> list[str]:
    """How the three files differ from what the overrides in the service ask for."""
    again = "run `make schedule` again"
    commands = _values(folder / f"{NAME}.service", "ExecStart")
    try:
        words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(" ".join(commands))]
    except ValueError as error:
        return [f"{NAME}.service: ExecStart cannot be read ({error}): {again}"]
    if len(commands) != 1 or "run" not in words:
        return [f"{NAME}.service: ExecStart is not the drift flow: {again}"]
    overrides, files = words[words.index("run") + 1 :], words[: words.index("run")]
    problems = [f"{word} is not there: {again}" for word in (files[0], *files[-2:]) if not Path(word).exists()]
    try:
        line = load_as(DriftConfig, compose(overrides, root=DriftConfig.root)).cron
        zone, *entries = [*(folder / "crontab").read_text().splitlines(), ""]
        is_same = _values(folder / f"{NAME}.timer", "OnCalendar") == [calendar(line)]
        if not is_same or zone != "CRON_TZ=UTC" or not entries or entries[0].split()[:5] != line.split():
            problems.append(f"timer, crontab and configuration ({line}) do not agree: {again}")
    except ValueError as error:
        problems.append(f"{error}: {again}")
    return problems


def _find_missing(home: Home) -> list[str]:
    """Why each run would fail in this home, though the units are valid."""
    variables = timer_environment.read(folder_of(home) / ENVIRONMENT)
    problems = alert_channels.from_environment(variables, timeout_s=1).problems
    line = " ".join(_values(folder_of(home) / f"{NAME}.service", "ExecStart"))
    reads_local = " source=" not in line or "source=local" in line
    is_shared = "source=local" not in line and any(variables.get(name) for name in ("FASHION_LOG", "FASHION_FIRESTORE"))
    if reads_local and not is_shared and not home.predictions.exists():
        problems.append(f"{home.predictions} is not there: each run will fail until `make serve` begins a log")
    if not variables.get("MLFLOW_TRACKING_URI") and not (home.root / relocation.DATABASE).exists():
        problems.append(f"{home.root / relocation.DATABASE} is not there: `make train` registers a first version")
    return problems


def _values(unit: Path, key: str) -> list[str]:
    """Values of a key in a unit file, in order."""
    lines = [line.strip() for line in unit.read_text().splitlines()]
    return [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == key]


def _analyze(folder: Path) -> tuple[list[str], list[str]]:
    """The next runs, and complaints, of systemd itself."""
    units = [str(folder / f"{NAME}.{kind}") for kind in ("service", "timer")]
    verified = subprocess.run(["systemd-analyze", "--man=no", "verify", *units], capture_output=True, text=True)
    when = _values(folder / f"{NAME}.timer", "OnCalendar")[:1]
    times = subprocess.run(["systemd-analyze", "calendar", "--iterations=3", *when], capture_output=True, text=True)
    lines = times.stdout.splitlines() if times.returncode == 0 else []
    notes = [line for line in lines if re.search(r"Next elapse|Iter|in UTC", line)]
    complaints = [line for line in (verified.stderr + verified.stdout).splitlines() if NAME in line]
    return notes, [*complaints, *(times.stderr.splitlines() if times.returncode else [])]
