"""A Debian package as a source: installed, downloaded, and every failure of apt."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.tiny_dataset import RecordingReporter, TinyDataset

from fashion.data import dataset
from fashion.data.fetch import DataUnavailable, fetch_data

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="a Debian package needs dpkg-deb")


@pytest.fixture
def package(tiny: TinyDataset, tmp_path: Path) -> Path:
    """A real package of the tiny data set."""
    tree = tmp_path / "tree"
    shutil.copytree(tiny.source, tree / "usr/share/datasets/tiny")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: dataset-tiny\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
    )
    archive = tmp_path / "dataset-tiny_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, archive], check=True, capture_output=True)
    return archive


def install_apt(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in the place of apt-get, which would use the network."""
    folder.mkdir()
    (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_package_is_downloaded_and_unpacked(
    tiny: TinyDataset, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = package.stat().st_size
    script = f"""
        case "$*" in
          *--print-uris*) echo "'http://deb/x.deb' {package.name} {size} SHA256:0";;
          *"download dataset-tiny"*) cp {package} . && sleep 0.3;;
          *) echo "E: unexpected $*" >&2; exit 100;;
        esac"""
    install_apt(tmp_path / "bin", script, monkeypatch)
    reporter = RecordingReporter()
    fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, reporter=reporter)
    assert len(dataset.load(tiny.data, tiny.cache).train) == 50
    assert "100%" in reporter.progress_lines[-1]


def test_missing_package_lists_are_downloaded(
    tiny: TinyDataset, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"""
        case "$*" in
          *update*) touch {tmp_path}/updated;;
          *Dir::State=*download*) [ -e {tmp_path}/updated ] && cp {package} .;;
          *) echo "E: Unable to locate package dataset-tiny" >&2; exit 100;;
        esac"""
    install_apt(tmp_path / "bin", script, monkeypatch)
    reporter = RecordingReporter()
    fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, reporter=reporter)
    assert "reading the package lists" in reporter.messages[0]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'E: Unable to locate package dataset-tiny' >&2; exit 100", "Unable to locate package dataset-tiny"),
        ("echo 'W: x\nE: Could not connect' >&2; exit 100", "apt-get failed: Could not connect"),
        ("exit 3", "apt-get failed: exit code 3"),
        ("exit 0", "apt-get downloaded nothing"),
        ("echo rubbish > x.deb", "dpkg-deb failed"),
    ],
)
def test_error_of_apt_is_reported(
    tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    install_apt(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(DataUnavailable, match=f"debian dataset-tiny: .*{reason}"):
        fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, reporter=RecordingReporter())


def test_installed_package_is_read_in_place(tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_apt(tmp_path / "bin", "exit 1", monkeypatch)
    listing = "\n".join(f"echo {path}" for path in sorted(tiny.source.iterdir()))
    (tmp_path / "bin" / "dpkg-query").write_text(f"#!/bin/sh\n{listing}\n")
    (tmp_path / "bin" / "dpkg-query").chmod(0o755)
    fetch_data(tiny.only("debian", "dataset-tiny"), tiny.cache, reporter=RecordingReporter())
