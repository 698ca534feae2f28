"""Make pictures a folder on this disk, wherever they are: an archive, a bucket, or one already. Knows no layouts."""

import contextlib
import lzma
import platform
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fashion.data import tables
from fashion.data.junk import is_junk
from fashion.data.manifest import DataError
from fashion.storage.address import open_store
from fashion.storage.blobs import StoreUnavailable

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, NotImplementedError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@contextlib.contextmanager
def unpack(root: str) -> Iterator[Path]:
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
    elif path.suffix.casefold() in tables.ENDINGS:
        yield path
    else:
        raise DataError(
            f"{path} is neither a folder, nor a table ({', '.join(tables.ENDINGS)}), nor an archive that can be "
            f"unpacked ({', '.join(ARCHIVES)})"
        )


def stem(root: str) -> str:
    """What a root is called: the last part of its path, without the ending of an archive or a table."""
    name = PurePosixPath(root.rstrip("/")).name if "://" in root else Path(root).expanduser().resolve().name
    for ending in (*ARCHIVES, *tables.ENDINGS):
        if name.casefold().endswith(ending):
            return name[: -len(ending)]
    return name


def _unpack(path: Path, folder: Path) -> None:
    is_zip = path.name.casefold().endswith(".zip")
    if not is_zip and not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"{path} is not unpacked: Python {platform.python_version()} does not keep what a tar archive holds inside "
            "its folder, 3.11.4 and newer do; use one of those, or unpack it and give the folder"
        )
    try:
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                room = _Room(path, folder)
                room.take(sum(member.file_size for member in archive.infolist()))
                archive.extractall(folder)  # it drops `..` and leading slashes
        else:
            with tarfile.open(path) as tar:
                room = _Room(path, folder)

                def checked(member: tarfile.TarInfo, where: str) -> tarfile.TarInfo | None:
                    room.take(member.size)  # one by one: a tar has no list of its members
                    return tarfile.data_filter(member, where)

                tar.extractall(folder, filter=checked)
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be unpacked ({' '.join(str(error).split())[:200]})") from None


class _Room:
    """Bytes that a disk still has for what an archive holds, so that one small archive does not fill it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._free = shutil.disk_usage(folder).free
        self._taken = 0

    def take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._free:
            raise DataError(
                f"{self._path} unpacks to {self._taken / 1e9:,.1f} GB or more, and the disk of {tempfile.gettempdir()} "
                f"has {self._free / 1e9:,.1f} GB: make room, or set TMPDIR to a folder of a larger disk"
            )


def _fetch(address: str, folder: Path) -> None:
    try:
        store = open_store(address)
        names = _files(list(store.list()))
        for name in names:
            path = folder / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(name))
    except (ValueError, StoreUnavailable) as error:
        raise DataError(str(error)) from None
    if not names:
        raise DataError(f"there is no file in {address}")


def _files(names: Sequence[str]) -> list[str]:
    """The names in a bucket that are files of somebody: no folders, which some tools store as `rose/` or `rose`, and no
    junk. Parts such as `..` begin with a dot, as junk does."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    return [name for name in names if name and not name.endswith("/") and name not in folders and not is_junk(name)]
