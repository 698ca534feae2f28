"""Archives of bentos in a store of blobs: one file each, models included. Knows BentoML, no particular bento."""

import hashlib
import lzma
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fashion.storage.address import open_store
from fashion.storage.blobs import StoreUnavailable

SUFFIX = ".bento"


class ArchiveError(ValueError):
    """An archive cannot be written or read. The message is one sentence."""


@dataclass(frozen=True)
class Archive:
    """A bento in one file."""

    address: str
    sha256: str
    num_bytes: int


def export(tag: str, address: str) -> Archive:
    """Write a bento and its models to a store, whole or not at all, and return where.

    Args:
        tag: of the bento.
        address: of the store.

    Raises:
        ArchiveError: the address is malformed, or the store cannot be written.
    """
    import bentoml

    name = f"{tag.replace(':', '-')}{SUFFIX}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        bentoml.bentos.export_bento(tag, str(path))
        data = path.read_bytes()
    try:
        open_store(address).put(name, data)
    except (StoreUnavailable, ValueError) as error:
        raise ArchiveError(f"the archive of {tag} was not written: {error}; see FASHION_BENTOS") from None
    return Archive(f"{address.rstrip('/')}/{name}", hashlib.sha256(data).hexdigest(), len(data))


def is_archive(bento: str) -> bool:
    """True if a text is the address of an archive, not a bento's tag."""
    return bento.endswith(SUFFIX) and ("/" in bento or Path(bento).exists())


def import_archive(address: str) -> str:
    """Put a bento and its models into this machine's store, unless they are there, and return the tag.

    Args:
        address: of the archive's file.

    Raises:
        ArchiveError: there is no such archive, or it is damaged.
    """
    import bentoml
    from bentoml.exceptions import BentoMLException, NotFound

    folder, _, name = address.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, name)
        try:
            path.write_bytes(open_store(folder or ".").get(name))
            bento = bentoml.Bento.import_from(str(path))
        except (tarfile.TarError, lzma.LZMAError, EOFError, BentoMLException) as error:
            raise ArchiveError(f"{address} is not an intact archive of a bento: {error}") from None
        except (OSError, ValueError) as error:
            raise ArchiveError(f"{address} cannot be read: {error}") from None
        try:
            return str(bentoml.bentos.get(bento.tag).tag)
        except NotFound:
            return str(bento.save().tag)
