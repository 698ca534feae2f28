"""Find the files of a Debian package, installed or downloaded. Knows apt and dpkg, not what the files hold."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fashion.data.progress import Reporter, progress_line

# One retry and 20 s of silence: apt's defaults wait minutes where there is no network.
_TIMEOUTS = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20"]


class PackageUnavailable(Exception):
    """The package is not installed and cannot be downloaded."""


@contextlib.contextmanager
def open_package(package: str, reporter: Reporter) -> Iterator[Path]:
    """Yield the folder of a package's IDX files: where it is installed, or unpacked from a download without root.

    Raises:
        PackageUnavailable: a tool is missing, or apt cannot download the package.
    """
    installed = _installed_folder(package)
    if installed is not None:
        yield installed
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PackageUnavailable(f"there is no {tool} on this machine")
    with tempfile.TemporaryDirectory(prefix="fashion-debian-") as temporary:
        archive = _download_package(package, Path(temporary), reporter)
        unpacked = Path(temporary) / "unpacked"
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], Path(temporary))
        yield min({path.parent for path in unpacked.rglob("*-ubyte*")} or {unpacked})


def _installed_folder(package: str) -> Path | None:
    if shutil.which("dpkg-query") is None:
        return None
    listing = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True, check=False)
    folders = {Path(line).parent for line in listing.stdout.splitlines() if "-ubyte" in line}
    return next((folder for folder in sorted(folders) if folder.is_dir()), None)


def _download_package(package: str, folder: Path, reporter: Reporter) -> Path:
    try:
        return _apt_download(package, folder, reporter, [])
    except PackageUnavailable as first:
        if "locate package" not in str(first):
            raise
        # Slim images carry no package lists; apt can read them into a folder that needs no root.
        reporter.say(f"apt-get does not know the package {package}: reading the package lists")
        options = [f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache"]
        options += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root"]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            _run(["apt-get", "-q", *_TIMEOUTS, *options, "update"], folder)
            return _apt_download(package, folder, reporter, options)
        except PackageUnavailable as second:
            raise PackageUnavailable(f"{first}; with fresh package lists: {second}") from None


def _apt_download(package: str, folder: Path, reporter: Reporter, options: Sequence[str]) -> Path:
    command = ["apt-get", "-q", *_TIMEOUTS, *options, "download", package]
    uri = _run([*command, "--print-uris"], folder).split()  # 'address' name size checksum
    size = int(uri[2]) if len(uri) > 2 and uri[2].isdigit() else 0

    def show() -> None:
        done = sum(path.stat().st_size for path in folder.glob("*.deb*"))
        reporter.progress(progress_line(package, done, size))

    _run(command, folder, while_waiting=show)
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        raise PackageUnavailable("apt-get downloaded nothing")
    return archives[0]


def _run(command: Sequence[str], folder: Path, *, while_waiting: Callable[[], None] | None = None) -> str:
    """Run a tool to its end and return its output; if it fails, its own error lines are the reason."""
    environment = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                    break
                if while_waiting is not None:
                    while_waiting()
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        lines = errors.read().splitlines()
        if process.returncode != 0:
            reasons = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")] or lines[-1:]
            raise PackageUnavailable(f"{command[0]} failed: {'; '.join(reasons) or f'exit code {process.returncode}'}")
        return output.read()
