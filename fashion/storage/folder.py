"""Blobs as files of a folder, synced to the disk. Knows no meaning of the bytes."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from fashion.storage.blobs import Blob, BlobNotFound, BlobUnreadable, StoreUnavailable, checked_name


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part of it.

    Raises:
        OSError: the file cannot be written; the old one is left as it was.
    """
    temporary = _write_beside(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


class FolderStore:
    """Blobs as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def put(self, name: str, data: bytes) -> None:
        """See Store.put."""
        path = self._path(name)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise self._unavailable(error) from error

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See Store.put_if_absent."""
        path = self._path(name)
        try:
            if path.exists():
                return False
            temporary = _write_beside(path, data)
            try:
                os.link(temporary, path)  # unlike a rename, this fails when the name is taken
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            _sync_folder(path.parent)
        except OSError as error:
            raise self._unavailable(error) from error
        return True

    def get(self, name: str, *, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """See Store.get."""
        try:
            data = self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BlobNotFound(f"{self.address} holds no {name}") from None
        except OSError as error:
            reason = f"{name} cannot be read: {error.strerror or error}"
            raise BlobUnreadable(f"{self.address} cannot be used: {reason}") from error
        if on_bytes is not None:
            on_bytes(len(data))
        return data

    def exists(self, name: str) -> bool:
        """See Store.exists."""
        try:
            return self._path(name).is_file()
        except OSError as error:
            raise self._unavailable(error) from error

    def delete(self, name: str) -> None:
        """See Store.delete."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_folder(path.parent)
        except NotADirectoryError:  # a part of the name is a file: there is no such blob
            return
        except OSError as error:
            raise self._unavailable(error) from error

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store.list."""
        start = self.folder / prefix.rpartition("/")[0]  # a prefix may end within a part
        for folder, _, files in os.walk(start, onerror=self._raise_unavailable):
            for file in files:
                name = Path(folder, file).relative_to(self.folder).as_posix()
                if name.startswith(prefix) and not file.startswith("."):
                    yield name

    def entries(self, prefix: str = "") -> Iterator[Blob]:
        """See Store.entries."""
        for name in self.list(prefix):
            try:
                state = (self.folder / name).stat()
            except FileNotFoundError:  # deleted meanwhile
                continue
            except OSError as error:
                raise self._unavailable(error) from error
            yield Blob(name, state.st_size, state.st_mtime)

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)

    def _raise_unavailable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a missing folder is an empty store
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self.address} cannot be used: {error.strerror or error}")


def _write_beside(path: Path, data: bytes) -> Path:
    """Write a hidden temporary file in the folder of `path`, synced to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
