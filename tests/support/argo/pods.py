"""Run one container of a template as a pod would, with nothing of this machine but image, manifest and secret."""

import functools
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fashion.home import REPOSITORY

IMAGE = {
    "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
    "LANG": "C.UTF-8",
    "HOME": "/mnt/home",
    "OMP_NUM_THREADS": "1",
}
"""Variables of an image, as configs/deploy/*.Dockerfile set them."""
LOST = -1
"""Exit code of a pod that Kubernetes ended."""
ISOLATE = """
pod=$1 image=$2 checkout=$3
mount -t tmpfs none /mnt
mkdir /mnt/out /mnt/work /mnt/home /mnt/image /mnt/pod
mount --bind "$pod" /mnt/pod
for each in out work home; do mount --bind "/mnt/pod/$each" "/mnt/$each"; done
mount --bind "$image" /mnt/image
mount -t tmpfs none "$checkout"
mount --bind /mnt/pod/tmp /tmp
if [ ! -d "$image" ]; then mkdir -p "$image"; mount --bind /mnt/image "$image"; fi
umount /mnt/pod /mnt/image
cd /mnt/work
exec bash -c "$4"
"""
REFUSING = '''"""Packages that an image does not hold cannot be imported."""
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
'''


@dataclass(frozen=True)
class Pod:
    """A pod that has ended."""

    folder: Path
    """What it wrote: `work`, `home`, `tmp`, `out`, and its log."""
    exit_code: int

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.folder / "log").read_text()

    def output(self, path: str) -> str | None:
        """Content of a file in /mnt/out; None if it was not written."""
        file = self.folder / "out" / Path(path).name
        return file.read_text() if file.exists() else None


def require_namespaces() -> None:
    """Skip the test where processes cannot have a mount namespace of their own; on Linux in CI it fails."""
    is_linux = sys.platform.startswith("linux")
    if not is_linux or subprocess.run([*_unshare(), "true"], capture_output=True).returncode:
        is_missed = is_linux and os.environ.get("CI")
        (pytest.fail if is_missed else pytest.skip)("pods need mount namespaces: Linux, and root or user namespaces")


def run_pod(
    container: Mapping[str, Any],
    *,
    command: str,
    environment: Mapping[str, str],
    folder: Path,
    seconds: float,
    absent: Collection[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> Pod:
    """Run a container to its end.

    Args:
        container: of the template; only `command`'s shape is checked, for it is substituted already.
        command: for `bash -c`.
        environment: of the manifest and its secrets.
        folder: an empty one, made here.
        seconds: after which it is ended.
        absent: modules that its image does not hold.
        files: put into its home, /mnt/home.
    """
    assert container["command"][:2] == ["bash", "-c"], container["command"]
    for name in ("work", "home", "tmp", "out"):
        (folder / name).mkdir(parents=True)
    for name, content in (files or {}).items():
        (folder / "home" / name).write_bytes(content)
    variables = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", **IMAGE, **environment}
    if absent:
        (folder / "home" / "sitecustomize.py").write_text(REFUSING.format(absent=sorted(absent)))
        variables["PYTHONPATH"] = "/mnt/home"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_unshare(), "bash", "-euc", ISOLATE, "pod", str(folder), sys.prefix, str(REPOSITORY), command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = LOST
    return Pod(folder, code)


@functools.cache
def absent_from(lock: str) -> frozenset[str]:
    """Modules that are installed here for requirements.lock, and that an image of another lock does not hold.

    Args:
        lock: name of a file in the repository's root.
    """
    everything, held = (_distributions(REPOSITORY / name) for name in ("requirements.lock", lock))
    missing = everything - held
    return frozenset(
        module
        for module, found in importlib.metadata.packages_distributions().items()
        if {_normalised(each) for each in found} <= missing
    )


def _distributions(lock: Path) -> set[str]:
    return {_normalised(name) for name in re.findall(r"^([\w.-]+)==", lock.read_text(), flags=re.MULTILINE)}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _unshare() -> list[str]:
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
