"""The benchmarks run, and print their tables. What they measure is never asserted."""

import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from benchmarks import leaderboard, leaderboard_page, load
from support.machine import Machine

from fashion.home import REPOSITORY
from tests.benchmarks import pages
from tests.benchmarks.measurement import Results
from tests.benchmarks.page import Page


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a quick run of the loader and the loop prints, and what it writes."""
    file = tmp_path_factory.mktemp("benchmarks") / "found.json"
    return run("loader", "loop", "--quick", "--json", str(file)), json.loads(file.read_text())


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_benchmark_is_listed() -> None:
    modules = Path(REPOSITORY, "tests", "benchmarks").glob("[a-z]*.py")
    files = {file.stem for file in modules if re.search(r"^def tables\(", file.read_text(), re.MULTILINE)}
    listed = {line.split()[0] for line in run("--list").splitlines()}
    assert listed == files
    assert all(name in run("--help") for name in files)


def test_an_unknown_benchmark_is_refused() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "coffee"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "time_to_accuracy" in done.stderr


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.file.stem)
def test_a_page_is_what_its_measurements_make(page: Page) -> None:
    found = page.measurements()
    assert page.file.read_text() == page.text(found)
    assert list(page.parts) == [name for name in page.parts if name in found], "a part was never measured"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (100, (1, 250)),  # a batch at least
        (20_000, (1, 20_000)),
        (55_000, (1, 50_000)),
        (80_000, (2, 40_000)),
        (150_000, (3, 50_000)),
    ],
)
def test_a_schedule_of_the_leaderboard_fits_its_budget(images: int, expected: tuple[int, int]) -> None:
    assert leaderboard.schedule(images, 50_000, 250) == expected


def test_the_leaderboard_has_a_row_for_each_network_and_the_best_first() -> None:
    values = {"budget": 1, "seconds": 1, "epochs": 1, "rows": 250, "parameters": 10, "shifted": 0.4}
    accuracies = {("low", 1): 0.5, ("high", 1): 0.9, ("low", 2): 0.6, ("high", 2): 0.92}
    runs = [leaderboard.Trained(name, seed, accuracy=each, **values) for (name, seed), each in accuracies.items()]
    footprints = {name: leaderboard.Footprint(name, 1.5, 2.25) for name in ("low", "high")}
    table = leaderboard.summarize(runs, footprints)
    assert [(row["network"], row["test accuracy"], row["seeds"]) for row in table.rows] == [
        ("high", "91.00%", "90.00%, 92.00%"),
        ("low", "55.00%", "50.00%, 60.00%"),
    ]
    assert leaderboard_page.figure(runs, table).startswith(b"\x89PNG")


def test_a_measurement_of_the_leaderboard_is_made_once(tmp_path: Path) -> None:
    for milliseconds in (1.0, 2.0):
        results = Results(tmp_path / "found.json")
        made = leaderboard.Footprint("x", milliseconds, 3.0)
        assert results.get("x", leaderboard.Footprint, lambda made=made: made).milliseconds == 1.0


def test_the_leaderboard_names_a_network_that_there_is_not() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.leaderboard", "resnet18x", "--limit", "100"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: " in done.stderr.splitlines()[-1]
    assert "resnet18x" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_tables_and_circumstances_are_printed(quick: tuple[str, dict[str, Any]]) -> None:
    printed, found = quick
    for table in found["tables"]:
        assert f"### {table['title']}" in printed
    assert "torch threads: 1" in printed
    assert found["circumstances"]["load average"]


@pytest.mark.slow
def test_loader_is_compared_with_data_loader(quick: tuple[str, dict[str, Any]]) -> None:
    tables = [table for table in quick[1]["tables"] if table["benchmark"] == "loader"]
    assert len(tables) == 2
    for table in tables:
        assert [row["images a CPU-second"]["values"][0] > 0 for row in table["rows"]] == [True] * 3


@pytest.mark.slow
def test_fit_does_what_a_bare_loop_does(quick: tuple[str, dict[str, Any]]) -> None:
    tables = [table for table in quick[1]["tables"] if table["benchmark"] == "loop"]
    assert len(tables) == 2
    for table in tables:
        same = {row["loop"]: row["same weights in the end"] for row in table["rows"]}
        assert same["fit (Fabric), one tensor"] == "yes"


@pytest.mark.slow
def test_a_missing_lightning_is_said(quick: tuple[str, dict[str, Any]]) -> None:
    assert ("Lightning is not installed" in quick[0]) == (util.find_spec("lightning") is None)


@pytest.mark.slow
def test_a_benchmark_is_a_command_too() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.drift_power", "--list"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.search(r"^  drift_power +\S", done.stdout, re.MULTILINE)


def test_servers_are_compared_and_lose_nothing(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    printed = run("serving", "--quick", "--home", str(machine.root), "--json", str(file))
    speed, footprint, targets = json.loads(file.read_text())["tables"]
    modules = {"LitServe": "litserve", "Ray Serve": "ray"}
    missing = [name for name, module in modules.items() if not util.find_spec(module)]
    servers = {row["server"].partition(",")[0] for row in speed["rows"]}
    assert servers >= {"plain BentoML", "LitServe", "Ray Serve"} - set(missing)
    assert [name for name in modules if f"{name} is not installed: run make bench" in printed] == missing
    assert [row["errors"] for row in speed["rows"]] == [0] * 3 * (9 - len(missing))
    assert {row["loop, parser"] for row in footprint["rows"]} == {"uvloop, httptools"}
    assert targets["rows"][-1]["found"] == "0"
    assert "acknowledged predictions not in the log" in printed


def test_batch_prediction_is_compared_and_equals_the_service(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    run("batch", "--quick", "--home", str(machine.root), "--json", str(file))
    *compared, whole = json.loads(file.read_text())["tables"]
    assert [len(table["rows"]) for table in compared] == [8] * 3
    assert [row["number"] for row in whole["rows"]] == [8] * 3


@pytest.mark.fault("a worker is killed, the shared log hangs and bentos change under full load")
def test_soak_finds_all_it_was_promised(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    run("soak", "--quick", "--home", str(machine.root), "--json", str(file))
    _, verdict = json.loads(file.read_text())["tables"]
    assert [row["found"] for row in verdict["rows"][:4]] == ["0"] * 4


@pytest.mark.fault("a bento is replaced under full load")
def test_switches_of_the_bento_fail_no_request(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    run("switches", "--quick", "--home", str(machine.root), "--json", str(file))
    ((row,),) = [table["rows"] for table in json.loads(file.read_text())["tables"]]
    assert row["requests"] > 100
    assert (row["failed"], row["acknowledged, not in the log"]) == (0, 0)


def test_everything_that_costs_is_measured(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    printed = run("cost", "--quick", "--home", str(machine.root), "--measurements", str(file))
    found = json.loads(file.read_text())["quantities"]
    steps_of_the_clock = {"drift_million_cpu", "drift_million_seconds", "postgres_write_cpu"}  # may be less than one
    nothing = {name for name, value in found.items() if value == 0}
    assert nothing - steps_of_the_clock == {"service_log_bytes"}  # there is no access log
    assert all(f"| {name} " in printed for name in found)


def test_generator_counts_what_is_lost_and_reads_answers_in_pieces() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_badly, args=(listener,), daemon=True).start()
        requests = ((number, load.get(f"/{number}")) for number in itertools.count())
        found = load.drive(listener.getsockname()[1], requests, connections=1, seconds=0.3, pause=0.02)
    answers = [*found.first, *found.answers]
    assert [answer.status for answer in answers][:4] == [200, load.LOST, 404, 200]
    assert [answer.request for answer in answers] == list(range(len(answers)))
    assert len(found.first) == 1
    assert found.first[0].body == b"body"


def answer_badly(listener: socket.socket) -> None:
    """One answer in pieces; a connection that is closed instead of an answer; then one that says it closes."""
    answers = itertools.chain(
        [[b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n\r\nbo", b"dy"], []],
        itertools.cycle(
            [
                [b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"],
                [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
            ]
        ),
    )
    with contextlib.suppress(OSError):  # the test has closed the socket
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    parts = next(answers)
                    for part in parts:
                        connection.sendall(part)
                        time.sleep(0.01)
                    if not parts or b"close" in parts[0]:
                        break
