"""Make pictures a folder on this disk, wherever they are: an archive, a bucket, or one already. Knows no layouts."""

import contextlib
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fashion.data.manifest import DataError
from fashion.storage.address import open_store
from fashion.storage.blobs import StoreUnavailable

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@contextlib.contextmanager
def unpacked(root: str) -> Iterator[Path]:
    """The folder, or the table of files and labels, that a root names; what was unpacked or fetched goes afterwards.

    Args:
        root: a folder, a table, an archive in `ARCHIVES`, or an address of a bucket such as gs://bucket/pictures.

    Raises:
        DataError: there is nothing, or it cannot be unpacked or fetched.
    """
    if "://" in root:
        with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
            _fetch(root, Path(folder))
            yield Path(folder)
        return
    path = Path(root).expanduser()
    if path.is_dir():
        yield path
    elif not path.exists():
        raise DataError(f"there is no folder or file {path}")
    elif path.name.casefold().endswith(ARCHIVES):
        with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
            _unpack(path, Path(folder))
            yield Path(folder)
    else:
        yield path


def stem(root: str) -> str:
    """What a root is called: the last part of its path, without the ending of an archive or a table."""
    name = PurePosixPath(root.rstrip("/")).name if "://" in root else Path(root).expanduser().resolve().name
    for ending in (*ARCHIVES, ".csv", ".tsv", ".jsonl", ".parquet"):
        if name.casefold().endswith(ending):
            return name[: -len(ending)]
    return name


def _unpack(path: Path, folder: Path) -> None:
    try:
        if path.name.casefold().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)  # it drops `..` and leading slashes
        else:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be unpacked ({' '.join(str(error).split())[:200]})") from None


def _fetch(address: str, folder: Path) -> None:
    try:
        store = open_store(address)
        names = list(store.list())
        for name in names:
            path = folder / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(name))
    except (ValueError, StoreUnavailable) as error:
        raise DataError(str(error)) from None
    if not names:
        raise DataError(f"there is no file in {address}")
