"""The command `fashion data`: its verbs, exit codes and messages."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.stores import KINDS, Clouds
from support.tiny_dataset import RecordingReporter, TinyDataset, make_tiny

from fashion.commands.main import main
from fashion.config.schema import DataConfig, SourceConfig
from fashion.data.fetch import fetch_data
from fashion.home import REPOSITORY


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyDataset:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "home"))
    return make_tiny(tmp_path)


@pytest.fixture
def run(tiny: TinyDataset, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str, data: DataConfig = tiny.data) -> tuple[int, str, str]:
        code = main(["data", *words, *replace(tiny, data=data).overrides])
        return code, *capsys.readouterr()

    return run


def test_fetch_then_verify_then_status(tiny: TinyDataset, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("fetch")
    assert (code, out.strip()) == (0, f"tiny, version {tiny.version.digest[:12]}: complete in {tiny.folder}")
    code, out, _ = run("verify")
    assert code == 0
    assert "4 files verified" in out
    assert "train     50 images, 16 to 17 per class" in out
    code, out, _ = run("status")
    assert code == 0
    assert out.count("verified") == 4
    assert "bucket   none" in out


def test_empty_cache_is_reported(run: Callable[..., tuple[int, str, str]]) -> None:
    for verb in ("verify", "status"):
        code, out, err = run(verb)
        assert code == 1
        assert out.count("missing") >= 4
        assert "`fashion data fetch`" in out + err


def test_file_changed_locally_is_reported(tiny: TinyDataset, run: Callable[..., tuple[int, str, str]]) -> None:
    run("fetch")
    path = tiny.folder / tiny.version.files[0].path
    path.write_bytes(bytes(len(path.read_bytes())))
    for verb in ("verify", "status"):
        code, out, _ = run(verb)
        assert code == 1
        assert out.count("changed: train-images-idx3-ubyte differs from the manifest") == 1


def test_push_without_bucket_names_the_remedy(run: Callable[..., tuple[int, str, str]]) -> None:
    run("fetch")
    code, _, err = run("push")
    assert code == 1
    assert "names no bucket: set FASHION_DATA_BUCKET to gs://, s3:// or az://bucket/prefix" in err


@pytest.mark.fault("bucket that is not there")
def test_push_to_a_dead_bucket_is_one_sentence(
    tiny: TinyDataset, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("FASHION_SERVER_SECONDS", "1")
    run("fetch")
    code, _, err = run("push", data=tiny.only("bucket", "gs://photos/x"))
    assert code == 1
    assert err.startswith("error: gs://photos/x cannot be used: ")
    assert err.count("\n") == 1


def test_no_source_is_one_message(tiny: TinyDataset, run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("fetch", data=tiny.only("folder", "/nowhere"))
    assert code == 1
    assert "Tried:\n  - folder /nowhere: no such folder\nWhat to do:" in err


def test_wrong_key_is_one_sentence(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("fetch", "data.sise=3")
    assert code == 1
    assert "sise" in err
    assert "Traceback" not in err


def test_command_runs_from_anywhere_without_a_traceback(tiny: TinyDataset, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fashion", "data", "verify", *tiny.overrides]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.count("missing") == 4
    assert len(done.stderr.splitlines()) == 1


def test_add_makes_a_version_that_verifies(
    tiny: TinyDataset, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    mine = replace(tiny.data, manifest=str(tmp_path / "mine.manifest.json"), sources=())
    code, out, _ = run("add", str(tiny.source), data=mine)
    assert code == 0
    assert f"Commit {mine.manifest}" in out
    assert run("verify", data=mine)[0] == 0


@pytest.mark.parametrize("words", [["data.limit=1000"], ["data.size=32", "data.live_rows=5"]])
def test_add_never_replaces_the_default_data_set(
    tiny: TinyDataset, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = REPOSITORY / "configs" / "data" / "fashion_mnist.manifest.json"
    before = path.read_bytes()
    assert main(["data", "add", str(tiny.source), *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {words[-1]} says nothing on how pictures are read, and no data config is named")
    assert err.endswith("add data=NAME, or leave it out\n")
    assert path.read_bytes() == before


def test_add_of_a_missing_folder_is_one_sentence(tiny: TinyDataset, run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("add", "/nowhere")
    assert code == 1
    assert err == "error: there is no folder or file /nowhere\n"


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_status_follows_the_bucket(
    tiny: TinyDataset,
    kind: str,
    run: Callable[..., tuple[int, str, str]],
    clouds: Clouds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = str(tiny.cache.parent / "shared") if kind == "folder" else f"{clouds.bucket(kind, monkeypatch)}/data"
    data = replace(tiny.data, sources=(*tiny.data.sources, SourceConfig("bucket", address)))
    fetch_data(data, tiny.cache, reporter=RecordingReporter())
    code, out, _ = run("status", data=data)
    assert code == 1
    assert "`fashion data push` uploads what is missing" in out
    assert run("push", data=data)[0] == 0
    code, out, _ = run("status", data=data)
    assert code == 0
    assert out.count("present") == 5
