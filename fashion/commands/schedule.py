"""Run the drift flow by the clock on one machine, where Metaflow's @schedule does nothing.

fashion schedule          # write a systemd timer, and say how to start it; a cron line for where there is none
fashion schedule check    # is what was written sound, and when will it run
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fashion.config.compose import compose, load_as, parse_overrides
from fashion.config.drift import DriftConfig
from fashion.config.times import cron_times
from fashion.home import REPOSITORY, current_home

NAME = "fashion-drift"
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
FLOW = REPOSITORY / "flows" / "drift_flow.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fashion schedule", description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="check | KEY=VALUE", help="configuration words, kept in the timer")
    options = parser.parse_args(arguments)
    folder = current_home().root / "schedule"
    try:
        if options.words == ["check"]:
            return check(folder)
        words = [*parse_overrides(os.environ.get("HYDRA_ARGS", "")), *options.words]
        settings = load_as(DriftConfig, compose(words, root=DriftConfig.root))
        units = {
            f"{NAME}.service": service(words),
            f"{NAME}.timer": timer(settings.cron),
            "crontab": cron(settings.cron, words),
        }
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in units.items():
        (folder / name).write_text(text)
    print(explained(folder, settings.cron))
    return 0


def service(words: Sequence[str]) -> str:
    """What runs: the flow, unless it still runs from before."""
    return f"""[Unit]
Description=Look for drift in what the classifier was asked

[Service]
Type=oneshot
# Metaflow stops its tasks on SIGINT; on SIGTERM it would leave them running.
KillSignal=SIGINT
TimeoutStartSec=6h
Environment={_quoted(f"FASHION_HOME={current_home().root}")}
# Secrets and addresses, NAME=value in lines: FASHION_WEBHOOK, FASHION_SMTP, FASHION_FIRESTORE. May be missing.
EnvironmentFile=-{str(current_home().root / "schedule" / "environment").replace("%", "%%")}
ExecStart={" ".join(_quoted(word).replace("$", "$$") for word in command(words))}
"""


def timer(cron_line: str) -> str:
    """When it runs."""
    return f"""[Unit]
Description=When to look for drift

[Timer]
OnCalendar={calendar(cron_line)}
# After a time without power it runs once, late.
Persistent=true

[Install]
WantedBy=timers.target
"""


def cron(cron_line: str, words: Sequence[str]) -> str:
    """The same for cron."""
    folder = current_home().root / "schedule"
    addresses, said = (shlex.quote(str(folder / name)) for name in ("environment", "drift.log"))
    # Line by line, as systemd reads it: to a shell that sources it, an & in an address would be the end.
    read = 'while IFS= read -r each || [ -n "$each" ]; do case $each in [A-Z]*=*) export "$each";; esac; done'
    script = f"[ ! -f {addresses} ] || {read} < {addresses}; exec {shlex.join(command(words))}"
    line = shlex.join(["env", f"FASHION_HOME={current_home().root}", "sh", "-c", script])
    # To cron a percent sign is the end of the line.
    escaped = f"{line} >> {said} 2>&1".replace("%", "\\%")
    return f"CRON_TZ=UTC\n{cron_line} {escaped}\n"


def command(words: Sequence[str]) -> list[str]:
    """The flow under a lock: what still runs from before is left alone."""
    lock = current_home().root / "schedule" / "lock"
    flock = [
        shutil.which("flock") or "/usr/bin/flock",
        "-n",
        "-E",
        "0",
        str(lock),
    ]  # one that is left out is no failure
    return [*flock, sys.executable, str(FLOW), "run", *words]


def calendar(cron_line: str) -> str:
    """Five fields of cron as systemd writes them.

    Raises:
        ValueError: a field is none, or both days are restricted: cron then means either, and systemd both.
    """
    minute, hour, day, month, weekday = cron_times(cron_line)
    if len(day) < 31 and len(weekday) < 7:
        raise ValueError(f"cron {cron_line!r} restricts days of the month and of the week: choose one of them")
    days = "" if len(weekday) == 7 else ",".join(DAYS[each] for each in weekday) + " "
    date = f"*-{_listed(month, 12)}-{_listed(day, 31)}"
    return f"{days}{date} {_listed(hour, 24)}:{_listed(minute, 60)}:00 UTC"


def _listed(numbers: Sequence[int], count: int) -> str:
    return "*" if len(numbers) == count else ",".join(f"{number:02d}" for number in numbers)


def _quoted(word: str) -> str:
    """A word as systemd reads it, for which a percent sign begins something, and a quote or a space ends it."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"' if re.search(r"[\s\"';]", word) else plain


def explained(folder: Path, cron_line: str) -> str:
    """How to start what was written."""
    units = shlex.join(str(folder / f"{NAME}.{kind}") for kind in ("service", "timer"))
    return f"""In {folder}:
  {NAME}.service   what runs: the drift flow, under a lock, so that two never overlap
  {NAME}.timer     when: {calendar(cron_line)}
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
Addresses and secrets (FASHION_WEBHOOK=..., FASHION_SMTP=...) go into {folder / "environment"}.
`make schedule-check` looks whether it is sound."""


def check(folder: Path) -> int:
    """Say of each part whether it is sound; 0 when all are."""
    missing = [name for name in (f"{NAME}.service", f"{NAME}.timer", "crontab") if not (folder / name).is_file()]
    if missing:
        print(f"error: {folder} has no {', '.join(missing)}: run `make schedule` first", file=sys.stderr)
        return 1
    problems = _disagreements(folder)
    if shutil.which("systemd-analyze"):
        problems += _verified(folder)
    else:
        print("systemd-analyze is not on this machine: the timer's syntax was not checked")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"sound: {NAME}.timer, {NAME}.service and crontab in {folder}")
    return 1 if problems else 0


def _disagreements(folder: Path) -> list[str]:
    """What of the three files is not as the words in the service ask for."""
    again = "run `make schedule` again"
    commands = _values(folder / f"{NAME}.service", "ExecStart")
    try:
        words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(" ".join(commands))]
    except ValueError as error:
        return [f"{NAME}.service: ExecStart cannot be read ({error}): {again}"]
    if len(commands) != 1 or "run" not in words:
        return [f"{NAME}.service: ExecStart is not the drift flow: {again}"]
    asked, files = words[words.index("run") + 1 :], words[: words.index("run")]
    problems = [f"{word} is not there" for word in (files[0], *files[-2:]) if not Path(word).exists()]
    try:
        line = load_as(DriftConfig, compose(asked, root=DriftConfig.root)).cron
        zone, *entries = [*(folder / "crontab").read_text().splitlines(), ""]
        same = _values(folder / f"{NAME}.timer", "OnCalendar") == [calendar(line)]
        if not same or zone != "CRON_TZ=UTC" or not entries or entries[0].split()[:5] != line.split():
            problems.append(f"timer, crontab and configuration ({line}) do not agree: {again}")
    except ValueError as error:
        problems.append(f"{error}: {again}")
    return problems


def _values(unit: Path, key: str) -> list[str]:
    """What a unit file says of a key, in order."""
    lines = [line.strip() for line in unit.read_text().splitlines()]
    return [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == key]


def _verified(folder: Path) -> list[str]:
    units = [str(folder / f"{NAME}.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *units], capture_output=True, text=True)
    when = _values(folder / f"{NAME}.timer", "OnCalendar")[:1]
    asked = subprocess.run(["systemd-analyze", "calendar", "--iterations=3", *when], capture_output=True, text=True)
    if asked.returncode == 0:
        print("\n".join(line for line in asked.stdout.splitlines() if re.search(r"Next elapse|Iter|in UTC", line)))
    mine = [line for line in (done.stderr + done.stdout).splitlines() if NAME in line]
    return [*mine, *(asked.stderr.splitlines() if asked.returncode else [])]
