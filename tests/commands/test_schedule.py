"""A timer for one machine: systemd and cron run what was configured, and `check` finds what was changed."""

import datetime
import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from fashion.commands import systemd, timer_environment
from fashion.home import REPOSITORY

FLOW = REPOSITORY / "flows" / "drift_flow.py"
WORDS = [
    "window=7d",
    "retrain.overrides='tuning=off training.num_epochs=2'",
    "retrain.deploy_overrides='alias=champion'",
    "data.words.title='100% of $HOME'",
]
HOMES = ["plain", "with two spaces", "100%d sure %h", "$HOME of ${USER}", "it's", 'a "b"']
START = datetime.datetime(2026, 6, 3)  # a Wednesday

needs_flock = pytest.mark.skipif(shutil.which("flock") is None, reason="flock is of util-linux")


@pytest.fixture(scope="session")
def analyze() -> str:
    """`systemd-analyze`; on a CI machine with Linux it must be there."""
    found = shutil.which("systemd-analyze")
    if found is None:
        must = sys.platform == "linux" and os.environ.get("CI")
        (pytest.fail if must else pytest.skip)("systemd-analyze, of the package systemd, reads timers")
    return found


def call(verb: str, *overrides: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `fashion schedule` as from a shell, in a home of its own."""
    return call_words(["schedule", verb, *overrides], home=home, **environment)


def call_words(words: Sequence[str], *, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `fashion` likewise."""
    ours = (*timer_environment.PREFIXES, "HYDRA")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not {name, name.lower()} & set(timer_environment.NAMES)
    }
    return subprocess.run(
        [sys.executable, "-m", "fashion", *words],
        cwd="/",
        env={**kept, "FASHION_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write(home: Path, *words: str, **environment: str) -> Path:
    """Write the units of a home in which there are a log and a registry, and return their folder."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("predictions.db", "mlflow.db"):
        (home / name).touch()
    done = call("write", *words, home=home, **environment)
    assert done.returncode == 0, done.stderr
    return home / "schedule"


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    (sentence,) = done.stderr.splitlines()
    return sentence


def cron_line(folder: Path) -> tuple[str, str]:
    """The five fields, and the command as cron hands it to a shell: what follows a bare percent sign is its input."""
    *_, line = (folder / "crontab").read_text().splitlines()
    *fields, command = line.split(" ", 5)
    assert not re.search(r"(?<!\\)%", command)
    return " ".join(fields), command.replace("\\%", "%")


def run_by_cron(folder: Path, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the line's command as cron would, with a flow that only tells its words and its environment."""
    flow = tmp_path / "flow.py"
    flow.write_text("import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n")
    command = cron_line(folder)[1]
    assert str(FLOW) in command
    return subprocess.run(
        ["/bin/sh", "-c", command.replace(str(FLOW), str(flow))],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/", "SHELL": "/bin/sh", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_of_flow(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the flow that cron ran."""
    words, environment = json.loads((folder / "drift.log").read_text().splitlines()[-1])
    return words, environment


def settings(unit: Path, name: str) -> list[str]:
    """Values of a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def words_of_systemd(value: str, *, dollars: bool) -> list[str]:
    """Words as systemd reads them. A doubled percent sign is one everywhere; a doubled dollar only in a command."""
    words = [word.replace("%%", "%") for word in shlex.split(value)]
    return [word.replace("$$", "$") for word in words] if dollars else words


@pytest.fixture(scope="module", params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for which a timer was written."""
    home: Path = tmp_path_factory.mktemp("home") / request.param
    write(home, *WORDS)
    return home


class TestWrite:
    def test_units_and_a_crontab_are_written_and_the_way_to_start_them_is_told(self, tmp_path: Path) -> None:
        done = call("write", home=tmp_path / "var")
        assert done.returncode == 0
        assert done.stderr == ""
        folder = tmp_path / "var" / "schedule"
        names = {"fashion-drift.service", "fashion-drift.timer", "fashion-drift-failed.service", "crontab"}
        assert {path.name for path in folder.iterdir()} == names
        link = f"systemctl --user link {folder}/fashion-drift.service"
        for words in (*names, link, "crontab -", "make schedule-check"):
            assert words in done.stdout

    def test_what_is_told_to_start_it_can_be_pasted_into_a_shell(self, tmp_path: Path) -> None:
        home = tmp_path / "two words"
        said = call("write", home=home).stdout
        (link,) = re.findall(r"^ *systemctl --user link (.*)$", said, re.MULTILINE)
        folder = home / "schedule"
        names = ("fashion-drift.service", "fashion-drift.timer", "fashion-drift-failed.service")
        assert shlex.split(link) == [str(folder / name) for name in names]

    def test_it_runs_daily_when_nothing_else_is_asked_for(self, tmp_path: Path) -> None:
        folder = write(tmp_path)
        assert settings(folder / "fashion-drift.timer", "OnCalendar") == ["*-*-* 06:00:00 UTC"]
        assert (folder / "crontab").read_text().startswith("CRON_TZ=UTC\n0 6 * * * ")

    def test_when_it_runs_is_configured(self, tmp_path: Path) -> None:
        folder = write(tmp_path, "cron=30 8 * * 1-5")
        assert settings(folder / "fashion-drift.timer", "OnCalendar") == ["Mon,Tue,Wed,Thu,Fri *-*-* 08:30:00 UTC"]
        assert cron_line(folder)[0] == "30 8 * * 1-5"

    def test_words_of_the_environment_come_before_those_of_the_command_line(self, tmp_path: Path) -> None:
        folder = write(tmp_path, "window=7d", HYDRA_ARGS="rows=500 'data.name=two words'")
        (command,) = settings(folder / "fashion-drift.service", "ExecStart")
        words = ["run", "rows=500", "data.name=two words", "window=7d"]
        assert words_of_systemd(command, dollars=True)[7:] == words

    def test_written_again_it_is_replaced(self, tmp_path: Path) -> None:
        write(tmp_path, "cron=30 8 * * *", "window=7d")
        folder = write(tmp_path)
        assert "window" not in "".join(path.read_text() for path in folder.iterdir())
        assert call("check", home=tmp_path).returncode == 0

    @pytest.mark.parametrize(
        ("word", "sentence"),
        [
            ("windw=7d", "error: windw=7d: there is no key 'windw'"),
            ("window=7w", "error: window must be a number of minutes, hours or days"),
            ("cron=0 6 * *", "error: cron must have five fields, got '0 6 * *'"),
            ("cron=0 6 1 * 1", "error: cron '0 6 1 * 1' restricts days of the month and of the week: choose one"),
            (
                "cron=99 6 * * *",
                "error: cron: '99' is no minute: numbers are 0 to 59, as in 5, 1-5, 1,3, */2 or 1-5/2",
            ),
            ("checks", "error: 'checks' is not a configuration override"),
        ],
    )
    def test_wrong_words_are_one_sentence_and_nothing_is_written(
        self, word: str, sentence: str, tmp_path: Path
    ) -> None:
        done = call("write", word, home=tmp_path / "var")
        assert error_of(done).startswith(sentence)
        assert done.stdout == ""
        assert not (tmp_path / "var").exists()


@needs_flock
class TestAnyHome:
    def test_check_finds_it_valid(self, home: Path) -> None:
        done = call("check", home=home)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        expected = f"valid: fashion-drift.timer, fashion-drift.service and crontab in {home / 'schedule'}"
        assert done.stdout.splitlines()[-1] == expected

    def test_cron_runs_the_flow_with_these_words_in_this_home(self, home: Path, tmp_path: Path) -> None:
        done = run_by_cron(home / "schedule", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        words, environment = run_of_flow(home / "schedule")
        assert words == ["run", *WORDS]
        assert environment["FASHION_HOME"] == str(home)
        assert (home / "schedule" / "lock").exists()

    def test_systemd_runs_the_flow_with_these_words_under_the_same_lock(self, home: Path) -> None:
        (command,) = settings(home / "schedule" / "fashion-drift.service", "ExecStart")
        flock, *rest = words_of_systemd(command, dollars=True)
        assert rest == ["-n", "-E", "0", str(home / "schedule" / "lock"), sys.executable, str(FLOW), "run", *WORDS]
        assert Path(flock).is_file()

    def test_systemd_runs_it_in_this_home(self, home: Path) -> None:
        (value,) = settings(home / "schedule" / "fashion-drift.service", "Environment")
        assert words_of_systemd(value, dollars=False) == [f"FASHION_HOME={home}", "FASHION_SCHEDULED=1"]

    def test_systemd_reads_addresses_from_this_home(self, home: Path) -> None:
        (value,) = settings(home / "schedule" / "fashion-drift.service", "EnvironmentFile")
        assert value.replace("%%", "%") == f"-{home / 'schedule' / 'environment'}"

    def test_systemd_finds_nothing_wrong(self, home: Path, analyze: str) -> None:
        units = [str(home / "schedule" / name) for name in systemd.UNITS[:3]]
        done = subprocess.run([analyze, "--man=no", "verify", *units], capture_output=True, text=True)
        assert "fashion-drift" not in done.stderr + done.stdout


class TestEnvironment:
    def test_what_a_run_needs_of_the_environment_is_kept_for_its_owner_alone(self, tmp_path: Path) -> None:
        needed = {
            "FASHION_LOG": "postgresql://me:a%20b$c&d@host/log",
            "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
            "AWS_PROFILE": "watcher",
            "https_proxy": "http://proxy:3128",
        }
        done = call("write", home=tmp_path, **needed, UNRELATED="x")
        assert f"Kept there of this shell's environment: {', '.join(sorted(needed))}." in done.stdout
        path = tmp_path / "schedule" / "environment"
        assert timer_environment.read(path) == needed
        assert path.stat().st_mode & 0o777 == 0o600

    def test_lines_of_others_stay_and_a_variable_has_its_latest_value(self, tmp_path: Path) -> None:
        path = write(tmp_path, FASHION_WEBHOOK="https://example.org/1") / "environment"
        path.write_text(f"# mine\nOTHER=1\n{path.read_text()}")
        write(tmp_path, FASHION_WEBHOOK="https://example.org/2")
        write(tmp_path)
        assert path.read_text() == "# mine\nOTHER=1\nFASHION_WEBHOOK=https://example.org/2\n"

    @pytest.mark.parametrize("value", ["a\\b", "'quoted'", '"a', " a", "a ", "a\nB=c"])
    def test_a_value_that_systemd_and_cron_read_differently_is_left_to_a_person(
        self, value: str, tmp_path: Path
    ) -> None:
        done = call("write", home=tmp_path, FASHION_SMTP=value)
        assert "warning: write FASHION_SMTP to " in done.stderr
        assert not (tmp_path / "schedule" / "environment").exists()

    @needs_flock
    @given(value=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=40))
    @hypothesis.settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_is_kept_reaches_the_flow_whole(self, value: str, tmp_path: Path) -> None:
        folder = tmp_path / "home" / "schedule"
        if not folder.exists():
            write(folder.parent)
        (folder / "environment").unlink(missing_ok=True)
        kept = timer_environment.keep(folder / "environment", {"FASHION_WEBHOOK": value})
        assert run_by_cron(folder, tmp_path).returncode == 0
        assert run_of_flow(folder)[1].get("FASHION_WEBHOOK") == (value if kept.names else None)
        assert bool(kept.names) != bool(kept.ambiguous)


@needs_flock
class TestFailure:
    @pytest.mark.fault("a scheduled drift run that is killed")
    def test_a_run_that_ended_early_is_an_alert_and_one_that_said_why_is_no_second_one(self, tmp_path: Path) -> None:
        folder = write(tmp_path)
        (value,) = settings(folder / "fashion-drift-failed.service", "ExecStart")
        assert settings(folder / "fashion-drift.service", "OnFailure") == ["fashion-drift-failed.service"]
        assert words_of_systemd(value, dollars=True) == systemd.failed_command([])
        command = systemd.failed_command([])[3:]
        first, second = (call_words(command, home=tmp_path, FASHION_WEBHOOK="carrier://loft") for _ in range(2))
        told = "ALERT The drift flow cannot do its work\n  a scheduled run ended early"
        assert first.stdout.startswith(told)
        assert "ALERT An address of alerts cannot be used\n  FASHION_WEBHOOK must be" in first.stdout
        assert (first.returncode, second.returncode, second.stdout) == (0, 0, "")


@needs_flock
class TestCronLine:
    def test_addresses_come_from_the_environment_file(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "a home")
        (folder / "environment").write_text("FASHION_WEBHOOK=https://example.org/x\nFASHION_FIRESTORE=my-project\n")
        assert run_by_cron(folder, tmp_path).returncode == 0
        environment = run_of_flow(folder)[1]
        assert environment["FASHION_WEBHOOK"] == "https://example.org/x"
        assert environment["FASHION_FIRESTORE"] == "my-project"

    @pytest.mark.parametrize(
        "line",
        [
            "FASHION_SMTP=smtp://user:password@host:587?from=me@example.org&to=you@example.org",
            "FASHION_WEBHOOK=https://example.org/messages?key=a&token=b",
            "FASHION_WEBHOOK=https://example.org/a;b",
            "FASHION_SMTP=smtp://user:pa$$word(1)@host?to=you@example.org",
            "# a comment\nFASHION_WEBHOOK=https://example.org/#part",
        ],
    )
    def test_an_address_reaches_the_flow_whole_as_it_does_by_systemd(self, line: str, tmp_path: Path) -> None:
        folder = write(tmp_path / "var")
        (folder / "environment").write_text(f"{line}\n")
        assert run_by_cron(folder, tmp_path).returncode == 0
        name, _, address = line.splitlines()[-1].partition("=")
        assert run_of_flow(folder)[1].get(name) == address

    def test_the_environment_file_may_be_missing(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "var")
        assert run_by_cron(folder, tmp_path).returncode == 0
        assert "FASHION_WEBHOOK" not in run_of_flow(folder)[1]

    def test_two_never_overlap(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "var")
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = run_by_cron(folder, tmp_path)
            assert (done.stdout, done.stderr) == ("", "")
            assert (folder / "drift.log").read_text() == ""
        assert run_by_cron(folder, tmp_path).returncode == 0
        assert run_of_flow(folder)[0] == ["run"]

    def test_what_the_flow_says_is_added_to_a_log(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "var")
        for _ in range(2):
            run_by_cron(folder, tmp_path)
        assert len((folder / "drift.log").read_text().splitlines()) == 2

    def test_a_flow_that_fails_is_told_to_cron_and_its_words_are_in_the_log(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "var")
        command = cron_line(folder)[1].replace(str(FLOW), str(tmp_path / "nowhere.py"))
        assert subprocess.run(["/bin/sh", "-c", command]).returncode == 2
        assert "nowhere.py" in (folder / "drift.log").read_text()


def replace(name: str, pattern: str, replacement: str) -> Callable[[Path], object]:
    """An edit by hand of one of the files."""

    def edit(folder: Path) -> None:
        before = (folder / name).read_text()
        after = re.sub(pattern, replacement, before, flags=re.MULTILINE)
        assert after != before
        (folder / name).write_text(after)

    return edit


DISAGREE = "timer, crontab and configuration (0 6 * * *) do not agree: run `make schedule` again"
EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another time in the timer": (replace("fashion-drift.timer", "06:00:00", "07:00:00"), DISAGREE),
    "another time zone in the timer": (replace("fashion-drift.timer", "UTC$", "Europe/Berlin"), DISAGREE),
    "a new time in the timer, and the old one in a comment": (
        replace("fashion-drift.timer", "^(OnCalendar=.*)$", r"#\1\nOnCalendar=*-*-* 07:00:00 UTC"),
        DISAGREE,
    ),
    "a second time in the timer": (
        replace("fashion-drift.timer", "^(OnCalendar=.*)$", r"\1\nOnCalendar=*-*-* 07:00:00 UTC"),
        DISAGREE,
    ),
    "no time in the timer": (replace("fashion-drift.timer", "^OnCalendar=.*\n", ""), DISAGREE),
    "another time in the crontab": (replace("crontab", r"^0 6", "0 7"), DISAGREE),
    "an empty crontab": (lambda folder: (folder / "crontab").write_text(""), "do not agree"),
    "a crontab without its zone": (replace("crontab", "^CRON_TZ=UTC\n", ""), "do not agree"),
    "another cron word in the service": (
        replace("fashion-drift.service", "(^ExecStart=.*)$", r'\1 "cron=0 7 * * *"'),
        "timer, crontab and configuration (0 7 * * *) do not agree",
    ),
    "a word in the service that is none": (
        replace("fashion-drift.service", "(^ExecStart=.*)$", r"\1 windw=7d"),
        "windw=7d: there is no key 'windw'",
    ),
    "an environment that has gone": (
        replace("fashion-drift.service", re.escape(sys.executable), "/nowhere/python"),
        "/nowhere/python is not there",
    ),
    "a repository that has gone": (
        replace("fashion-drift.service", re.escape(str(FLOW)), "/nowhere/drift_flow.py"),
        "/nowhere/drift_flow.py is not there",
    ),
    "a service without a command": (replace("fashion-drift.service", "^ExecStart=.*\n", ""), "make schedule"),
    "a service with half a command": (
        replace("fashion-drift.service", "^(ExecStart=\\S+).*$", r"\1"),
        "make schedule",
    ),
    "a command with an open quote": (
        replace("fashion-drift.service", "(^ExecStart=.*)$", r'\1 "window=7d'),
        "error: ",
    ),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which nothing was edited."""
    home = tmp_path_factory.mktemp("valid")
    write(home)
    assert call("check", home=home).returncode == 0
    return home


@needs_flock
class TestCheck:
    def test_before_anything_is_written_the_way_to_it_is_told(self, tmp_path: Path) -> None:
        folder = tmp_path / "schedule"
        expected = (
            f"error: {folder} has no fashion-drift.service, fashion-drift.timer, fashion-drift-failed.service, "
            "crontab: run `make schedule` first"
        )
        assert error_of(call("check", home=tmp_path)) == expected

    def test_a_file_that_was_removed_is_named(self, tmp_path: Path) -> None:
        (write(tmp_path) / "crontab").unlink()
        assert "has no crontab: run `make schedule` first" in error_of(call("check", home=tmp_path))

    @pytest.mark.parametrize(("edit", "problem"), EDITS.values(), ids=EDITS)
    def test_an_edit_that_does_not_agree_is_found(
        self, edit: Callable[[Path], object], problem: str, valid: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(valid / "schedule", tmp_path / "schedule")
        edit(tmp_path / "schedule")
        done = call("check", home=tmp_path)
        assert done.returncode == 1
        assert problem in done.stderr
        assert "Traceback" not in done.stderr
        assert "valid" not in done.stdout

    @pytest.mark.fault("the home was moved")
    def test_a_timer_of_where_the_home_was_before_is_found(self, valid: Path, tmp_path: Path) -> None:
        shutil.copytree(valid, tmp_path, dirs_exist_ok=True)
        expected = "fashion-drift.service was written where this home was before: run `make schedule` again"
        assert expected in error_of(call("check", home=tmp_path))

    def test_an_empty_home_is_not_called_sound(self, tmp_path: Path) -> None:
        assert call("write", home=tmp_path).returncode == 0
        done = call("check", home=tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"error: {tmp_path / 'predictions.db'} is not there: each run will fail until `make serve` begins a log",
            f"error: {tmp_path / 'mlflow.db'} is not there: `make train` registers a first version",
        ]

    def test_a_log_and_a_registry_elsewhere_are_as_good(self, tmp_path: Path) -> None:
        elsewhere = {"FASHION_LOG": "postgresql://host/log", "MLFLOW_TRACKING_URI": "https://example.org"}
        assert call("write", home=tmp_path, **elsewhere).returncode == 0
        assert call("check", home=tmp_path).returncode == 0

    def test_an_address_of_alerts_that_cannot_be_used_is_told(self, tmp_path: Path) -> None:
        write(tmp_path, FASHION_WEBHOOK="example.org")
        assert error_of(call("check", home=tmp_path)).startswith("error: FASHION_WEBHOOK must be an http")

    def test_an_edit_of_what_does_not_matter_is_valid(self, tmp_path: Path) -> None:
        replace("fashion-drift.timer", "^Description=.*$", "Description=Drift")(write(tmp_path))
        assert call("check", home=tmp_path).returncode == 0

    def test_systemds_own_complaints_are_told(self, analyze: str, tmp_path: Path) -> None:
        replace("fashion-drift.timer", "^Persistent=.*$", "Persistnt=true")(write(tmp_path))
        done = call("check", home=tmp_path)
        assert done.returncode == 1
        assert "Persistnt" in done.stderr

    def test_the_next_runs_are_told(self, analyze: str, tmp_path: Path) -> None:
        write(tmp_path, "cron=30 8 * * 1")
        said = call("check", home=tmp_path, TZ="UTC").stdout
        assert len(re.findall(r"(?:Next elapse|Iter\. #[23]): Mon \d{4}-\d\d-\d\d 08:30:00 UTC", said)) == 3

    def test_a_machine_without_systemd_is_told_what_was_not_checked(self, tmp_path: Path) -> None:
        write(tmp_path)
        done = call("check", home=tmp_path, PATH=str(tmp_path))
        assert done.returncode == 0
        first, last = done.stdout.splitlines()
        assert first == "systemd-analyze is not on this machine: the timer's syntax was not checked"
        assert last.startswith("valid: ")

    def test_words_that_were_kept_are_not_read_from_the_environment_again(self, tmp_path: Path) -> None:
        write(tmp_path)
        assert call("check", home=tmp_path, HYDRA_ARGS="cron='0 7 * * *'").returncode == 0


class TestCalendar:
    @pytest.mark.parametrize(
        ("line", "calendar"),
        [
            ("0 6 * * *", "*-*-* 06:00:00 UTC"),
            ("* * * * *", "*-*-* *:*:00 UTC"),
            ("*/15 */6 * * *", "*-*-* 00,06,12,18:00,15,30,45:00 UTC"),
            ("5-20/5,40 8-18 * * *", "*-*-* 08,09,10,11,12,13,14,15,16,17,18:05,10,15,20,40:00 UTC"),
            ("0 6 1,15 * *", "*-*-01,15 06:00:00 UTC"),
            ("0 6 */10 1-3,12 *", "*-01,02,03,12-01,11,21,31 06:00:00 UTC"),
            ("0 6 * * 1-5", "Mon,Tue,Wed,Thu,Fri *-*-* 06:00:00 UTC"),
            ("0 6 * * 2,4", "Tue,Thu *-*-* 06:00:00 UTC"),
            ("0 6 * * 0", "Sun *-*-* 06:00:00 UTC"),
            ("0 6 * * 7", "Sun *-*-* 06:00:00 UTC"),
            ("  0  6\t*  * * ", "*-*-* 06:00:00 UTC"),
        ],
    )
    def test_cron_fields_are_written_as_systemd_does(self, line: str, calendar: str) -> None:
        assert systemd.calendar(line) == calendar

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("0 6 * *", "cron must have five fields, got '0 6 * *'"),
            ("0 6 * * * *", "cron must have five fields, got '0 6 * * * *'"),
            ("@daily", "cron must have five fields, got '@daily'"),
            ("60 6 * * *", "'60' is no minute: numbers are 0 to 59, as in 5, 1-5, 1,3, */2 or 1-5/2"),
            ("0 24 * * *", "'24' is no hour: numbers are 0 to 23"),
            ("0 6 0 * *", "'0' is no day of the month: numbers are 1 to 31"),
            ("0 6 32 * *", "'32' is no day of the month"),
            ("0 6 * 0 *", "'0' is no month: numbers are 1 to 12"),
            ("0 6 * 13 *", "'13' is no month"),
            ("0 6 * * 8", "'8' is no day of the week: numbers are 0 to 7"),
            ("0 6 * * mon", "'mon' is no day of the week"),
            ("0 6-24 * * *", "'6-24' is no hour"),
            ("*/0 6 * * *", "'*/0' is no minute"),
            ("-5 6 * * *", "'-5' is no minute"),
            ("5- 6 * * *", "'5-' is no minute"),
            ("1,,3 6 * * *", "'' is no minute"),
            ("1-3-5 6 * * *", "'1-3-5' is no minute"),
            ("*-5 6 * * *", "'*-5' is no minute"),
            ("1.5 6 * * *", "'1.5' is no minute"),
            ("20-10 6 * * *", "'20-10' is no minute"),
            ("0 6 * * 5-1", "'5-1' is no day of the week"),
            ("5/15 6 * * *", "'5/15' is no minute"),  # cron has steps of ranges only
            ("0 6 1 * 1", "cron '0 6 1 * 1' restricts days of the month and of the week: choose one of them"),
            ("0 6 */2 * 1-5", "restricts days of the month and of the week"),
        ],
    )
    def test_what_is_no_cron_line_is_refused_in_one_sentence(self, line: str, sentence: str) -> None:
        with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
            systemd.calendar(line)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "line",
        [
            "0 6 * * *",
            "*/20 * * * *",
            "*/40 */9 * * *",
            "*/90 6 * * *",
            "10-50/25,55 23 * * *",
            "30 8 * * 1-5",
            "0 6 * * 0",
            "0 6 * * 7",
            "0 6 * * 1,3",
            "0 6 * * 6,0",
            "0 6 * * 5-7",
            "0 6 * * 0-2",
            "0 6 * * 0-6",
            "0 6 * * 0-7",
            "0 6 * * */3",
            "0 6 * * 1-5/2",
            "0 6 1,15 * *",
            "0 6 */10 2 *",
            "0 6 5-20/7 * *",
            "0 0 31 * *",
            "0 0 1 */5 *",
            "15 12 24 12 *",
        ],
    )
    def test_systemd_and_cron_run_at_the_same_times(self, analyze: str, line: str) -> None:
        base = f"{START - datetime.timedelta(seconds=1)} UTC"
        done = subprocess.run(
            [analyze, "calendar", f"--base-time={base}", "--iterations=3", systemd.calendar(line)],
            env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        times = re.findall(r"(?:Next elapse|Iter\. #\d): \w+ ([-\d]+ [:\d]+) UTC", done.stdout)
        assert times == [str(time) for time in itertools.islice(runs(line, START), 3)]


def runs(line: str, moment: datetime.datetime) -> Iterator[datetime.datetime]:
    """When cron runs a line, from a moment on: each minute is looked at, by the rules of crontab(5)."""
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    minutes, hours, days, months, weekdays = (
        numbers(text, *limit) for text, limit in zip(line.split(), limits, strict=True)
    )
    while True:
        weekday = {moment.isoweekday(), moment.isoweekday() % 7}
        if moment.day not in days or moment.month not in months or not weekday & weekdays:
            moment = moment.replace(hour=0, minute=0) + datetime.timedelta(days=1)
            continue
        if moment.hour in hours and moment.minute in minutes:
            yield moment
        moment += datetime.timedelta(minutes=1)


def numbers(text: str, low: int, high: int) -> set[int]:
    """The numbers that a field of cron means."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        ends = (low, high) if span == "*" else (int(first), int(last or first))
        found |= set(range(ends[0], ends[1] + 1, int(step or 1)))
    return found
