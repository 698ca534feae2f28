"""The command as a whole: help of every verb, exit codes, one-sentence errors, and a light start."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import typer
from typer.core import TyperGroup

from fashion.commands.main import app, main


def verbs(command: TyperGroup, words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The words of every verb, and of every noun without verbs."""
    for name, each in command.commands.items():
        if isinstance(each, TyperGroup):
            yield from verbs(each, (*words, name))
        else:
            yield [*words, name]


COMMANDS = list(verbs(cast(TyperGroup, typer.main.get_command(app))))
HEAVY = ("torch", "mlflow", "evidently", "matplotlib", "pandas", "hydra", "scipy", "numpy", "bentoml", "rich")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not there yet."""
    for name in [name for name in os.environ if name.startswith(("FASHION", "MLFLOW", "HYDRA"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    return tmp_path / "var"


class TestHelp:
    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_verb_explains_itself_with_an_example(
        self, words: list[str], capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        assert main([*words, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"Usage: fashion {' '.join(words)}" in shown
        assert re.search(r"Examples?: ", shown)
        assert f"fashion {' '.join(words)}" in shown.rpartition("Example")[2]
        assert not home.exists()

    @pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
    def test_the_nouns_are_listed(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(words) == 0
        shown = capsys.readouterr().out
        for noun in {words[0] for words in COMMANDS}:
            assert re.search(rf"^  {noun} ", shown, re.MULTILINE)

    def test_help_imports_no_heavy_library(self) -> None:
        code = (
            "import sys; from fashion.commands.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        loaded = {name.partition(".")[0] for name in done.stderr.split()}
        assert loaded & set(HEAVY) == set()
        assert "typer" in loaded

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_shells_can_complete_it(self, shell: str) -> None:
        command = [sys.executable, "-c", "import sys; from fashion.commands.main import main; sys.exit(main())"]
        environment = {**os.environ, "_FASHION_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "fashion reg"}
        environment |= {"COMP_WORDS": "fashion reg", "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "registry" in done.stdout, done.stderr


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["dta"], "No such command 'dta'"),
            (["registry"], "Missing command"),
            (["registry", "promote", "1"], "Missing option '--reason'"),
            (["registry", "compare", "--rows", "0"], "Invalid value for '--rows'"),
            (["log", "prune", "soon"], "Invalid value for 'DAYS'"),
            (["status", "--jsn"], "No such option: --jsn"),
        ],
    )
    def test_a_mistyped_command_shows_its_usage_and_exits_with_2(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        usage, _, error = captured.err.splitlines()
        assert usage.startswith("Usage: fashion")
        assert error.startswith("error: ")
        assert message.lower() in error.lower()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["log", "status"], "there is no prediction log {home}/predictions.db: `make serve` begins one"),
            (["registry", "compare"], "there is no prediction log {home}/predictions.db: `make serve` begins one"),
            (["registry", "rollback"], "fashion-classifier has no champion to roll back: run `make train` first"),
            (["registry", "show", "7"], "no version of fashion-classifier is registered yet: run `make train` first"),
            (["data", "fetch", "data.siz=3"], "data.siz=3: there is no key 'siz'"),
            (["schedule", "check"], "{home}/schedule has no fashion-drift.service"),
            (["traffic", "--url", "nowhere"], "url must be such as http://127.0.0.1:3000, got 'nowhere'"),
        ],
    )
    def test_what_is_missing_or_wrong_is_one_sentence_and_exits_with_1(
        self, words: list[str], message: str, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (sentence,) = captured.err.splitlines()
        assert sentence.startswith(f"error: {message.format(home=home)}")

    def test_a_server_that_is_down_is_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert main(["registry", "list"]) == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("error: MLflow at http://127.0.0.1:9 cannot be reached: the connection was refused")
        assert sentence.endswith("check MLFLOW_TRACKING_URI, and that its server is up")
        assert len(sentence) < 300

    @pytest.mark.fault("damaged prediction log")
    @pytest.mark.parametrize("words", [["registry", "list"], ["log", "status"]])
    def test_a_damaged_file_is_one_sentence_and_stays(
        self, words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        home.mkdir()
        files = [home / "mlflow.db", home / "predictions.db"]
        for file in files:
            file.write_bytes(b"neither is this a database" * 100)
        assert main(words) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ")
        assert "Traceback" not in captured.err
        assert str(home) in captured.err
        assert all(file.read_bytes().startswith(b"neither") for file in files)

    def test_ctrl_c_exits_with_130(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("fashion.data.fetch.fetch_data", interrupt)
        assert main(["data", "fetch"]) == 130
        assert capsys.readouterr().err == "error: interrupted; what was complete is stored\n"


def test_data_status_is_json_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "status", "--json"]) == 1  # nothing is cached
    content = json.loads(capsys.readouterr().out)
    assert content["complete"] is False
    assert {file["state"] for file in content["files"].values()} == {"missing"}
    assert content["cache"].startswith(str(home))
    assert content["bucket"] is None


def test_python_dash_m_fashion_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fashion", "log", "status"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no prediction log ")
