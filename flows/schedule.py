"""Run the drift flow by the clock on one machine, where Metaflow's @schedule does nothing.

python flows/schedule.py          # write a systemd timer, and say how to start it; a cron line for where there is none
python flows/schedule.py check    # is what was written sound, and when will it run
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

from fashion import config, home
from fashion.drift_config import DriftConfig

NAME = "fashion-drift"
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FLOW = home.REPOSITORY / "flows" / "drift_flow.py"
LIMITS = {"minute": (0, 59), "hour": (0, 23), "day of the month": (1, 31), "month": (1, 12), "day of the week": (0, 7)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python flows/schedule.py", description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", metavar="check | KEY=VALUE", help="configuration words, kept in the timer")
    options = parser.parse_args(arguments)
    folder = home.current().root / "schedule"
    try:
        if options.words == ["check"]:
            return check(folder)
        words = [*config.parse_overrides(os.environ.get("HYDRA_ARGS", "")), *options.words]
        settings = config.load_as(DriftConfig, config.compose(words, root=DriftConfig.root))
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
Environment={_quoted(f"FASHION_HOME={home.current().root}")}
# Secrets and addresses, NAME=value in lines: FASHION_WEBHOOK, FASHION_SMTP, FASHION_FIRESTORE. May be missing.
EnvironmentFile=-{str(home.current().root / "schedule" / "environment").replace("%", "%%")}
ExecStart={" ".join(map(_quoted, command(words)))}
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
    folder = home.current().root / "schedule"
    addresses, said = (shlex.quote(str(folder / name)) for name in ("environment", "drift.log"))
    script = f"[ ! -f {addresses} ] || {{ set -a; . {addresses}; }}; exec {shlex.join(command(words))}"
    line = shlex.join(["env", f"FASHION_HOME={home.current().root}", "sh", "-c", script])
    # To cron a percent sign is the end of the line.
    escaped = f"{line} >> {said} 2>&1".replace("%", "\\%")
    return f"CRON_TZ=UTC\n{cron_line} {escaped}\n"


def command(words: Sequence[str]) -> list[str]:
    """The flow under a lock: what still runs from before is left alone."""
    lock = home.current().root / "schedule" / "lock"
    return [shutil.which("flock") or "/usr/bin/flock", "-n", str(lock), sys.executable, str(FLOW), "run", *words]


def calendar(cron_line: str) -> str:
    """Five fields of cron as systemd writes them.

    Raises:
        ValueError: a field is none, or both days are restricted: cron then means either, and systemd both.
    """
    fields = cron_line.split()
    if len(fields) != len(LIMITS):
        raise ValueError(f"cron must have five fields, got {cron_line!r}")
    minute, hour, day, month, weekday = (
        _field(text, name, *LIMITS[name]) for text, name in zip(fields, LIMITS, strict=True)
    )
    if day != "*" and weekday != "*":
        raise ValueError(f"cron {cron_line!r} restricts days of the month and of the week: choose one of them")
    days = "" if weekday == "*" else re.sub(r"\d", lambda match: DAYS[int(match[0])], weekday) + " "
    return f"{days}*-{month}-{day} {hour}:{minute}:00 UTC"


def _field(text: str, name: str, low: int, high: int) -> str:
    parts = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:(\*)|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        numbers = [int(number) for number in (match.groups()[1:3] if match else ()) if number is not None]
        step = int(match[4]) if match and match[4] else None
        if match is None or step == 0 or not all(low <= number <= high for number in numbers):
            raise ValueError(f"cron: {part!r} is no {name}: numbers are {low} to {high}, as in 5, 1-5, 1,3 or */2")
        if match[1]:
            parts.append(f"{low}/{step}" if step else "*")
        else:
            span = "..".join(f"{number:02d}" if high > 12 else str(number) for number in numbers)
            parts.append(f"{span}/{step}" if step else span)
    return ",".join(parts)


def _quoted(word: str) -> str:
    """A word as systemd reads it, for which a percent sign and a dollar begin something."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if re.search(r"[\s\"';]", word) else plain


def explained(folder: Path, cron_line: str) -> str:
    """How to start what was written."""
    units = " ".join(str(folder / f"{NAME}.{kind}") for kind in ("service", "timer"))
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
  (crontab -l; cat {folder / "crontab"}) | crontab -      # a cron that ignores CRON_TZ takes it as local time
Addresses and secrets (FASHION_WEBHOOK=..., FASHION_SMTP=...) go into {folder / "environment"}.
`make schedule-check` looks whether it is sound."""


def check(folder: Path) -> int:
    """Say of each part whether it is sound; 0 when all are."""
    missing = [name for name in (f"{NAME}.service", f"{NAME}.timer", "crontab") if not (folder / name).is_file()]
    if missing:
        print(f"error: {folder} has no {', '.join(missing)}: run `make schedule` first", file=sys.stderr)
        return 1
    text = (folder / f"{NAME}.service").read_text()
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1]
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]
    problems = [f"{word} is not there" for word in (words[0], words[3], words[4]) if not Path(word).exists()]
    try:
        settings = config.compose(words[6:], root=DriftConfig.root)
        line = (folder / "crontab").read_text().splitlines()[1]
        asked = config.load_as(DriftConfig, settings).cron
        if (
            line.split()[:5] != asked.split()
            or f"OnCalendar={calendar(asked)}" not in (folder / f"{NAME}.timer").read_text()
        ):
            problems.append(f"timer, crontab and configuration ({asked}) do not agree: run `make schedule` again")
    except ValueError as error:
        problems.append(str(error))
    if shutil.which("systemd-analyze"):
        problems += _verified(folder)
    else:
        print("systemd-analyze is not on this machine: the timer's syntax was not checked")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"sound: {NAME}.timer, {NAME}.service and crontab in {folder}")
    return 1 if problems else 0


def _verified(folder: Path) -> list[str]:
    units = [str(folder / f"{NAME}.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *units], capture_output=True, text=True)
    when = re.search(r"^OnCalendar=(.*)$", (folder / f"{NAME}.timer").read_text(), re.MULTILINE)[1]
    asked = subprocess.run(["systemd-analyze", "calendar", "--iterations=3", when], capture_output=True, text=True)
    if asked.returncode == 0:
        print("\n".join(line for line in asked.stdout.splitlines() if re.search(r"Next elapse|Iter|in UTC", line)))
    mine = [line for line in (done.stderr + done.stdout).splitlines() if NAME in line]
    return [*mine, *(asked.stderr.splitlines() if asked.returncode else [])]


if __name__ == "__main__":
    sys.exit(main())
