"""The benchmarks run, and print their tables. What they measure is never asserted."""

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from fashion.home import REPOSITORY


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


def test_every_benchmark_is_listed() -> None:
    files = {file.stem for file in Path(REPOSITORY, "tests", "benchmarks").glob("[a-z]*.py")} - {"measurement"}
    listed = {line.split()[0] for line in run("--list").splitlines()}
    assert listed == files
    assert all(name in run("--help") for name in files)


def test_an_unknown_benchmark_is_refused() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "coffee"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "time_to_accuracy" in done.stderr


def test_tables_and_circumstances_are_printed(quick: tuple[str, dict[str, Any]]) -> None:
    printed, found = quick
    for table in found["tables"]:
        assert f"### {table['title']}" in printed
    assert "torch threads: 1" in printed
    assert found["circumstances"]["load average"]


def test_loader_is_compared_with_data_loader(quick: tuple[str, dict[str, Any]]) -> None:
    tables = [table for table in quick[1]["tables"] if table["benchmark"] == "loader"]
    assert len(tables) == 2
    for table in tables:
        assert [row["images a CPU-second"]["values"][0] > 0 for row in table["rows"]] == [True] * 3


def test_fit_does_what_a_bare_loop_does(quick: tuple[str, dict[str, Any]]) -> None:
    tables = [table for table in quick[1]["tables"] if table["benchmark"] == "loop"]
    assert len(tables) == 2
    for table in tables:
        same = {row["loop"]: row["same weights in the end"] for row in table["rows"]}
        assert same["fit (ours: Fabric), one tensor"] == "yes"


def test_a_missing_lightning_is_said(quick: tuple[str, dict[str, Any]]) -> None:
    assert ("Lightning is not installed" in quick[0]) == (util.find_spec("lightning") is None)
