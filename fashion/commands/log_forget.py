"""Deletes one prediction and its picture from this home, and from the logs and exports that it knows.

The rows go last, for they say which picture it was: killed anywhere, the same command completes.
"""

import base64
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.commands.errors import CommandError
from fashion.drift import accepted, reports
from fashion.home import Home
from fashion.images import image_store
from fashion.predictions import copies, export_removal, removal
from fashion.predictions.export_removal import FoundInExport
from fashion.predictions.record import PredictionRecord, UnknownPrediction, is_prediction_id
from fashion.state import backup
from fashion.storage import erasure, sqlite
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, Store
from fashion.storage.servers import is_database, without_password

if TYPE_CHECKING:
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.shared_log import SharedLog

NOBODY = "00000000-0000-7000-8000-000000000000"
"""Takes the place of the prediction's id in files whose format has lengths."""
BUCKETS_OF_METAFLOW = tuple(f"METAFLOW_DATASTORE_SYSROOT_{kind}" for kind in ("S3", "GS", "AZURE"))
REQUEST_SECONDS = 10.0
"""How long a request to the shared log may be under way."""


@dataclass
class Traces:
    """Where a prediction was found."""

    rows: list[PredictionRecord] = field(default_factory=list)
    """The champion's and the shadow's, of this machine's log, its copies or the shared one."""
    is_local: bool = False
    is_shared: bool = False
    copies: list[Path] = field(default_factory=list)
    """Other files of the log in this home that hold it."""
    exported: list[tuple[str, FoundInExport]] = field(default_factory=list)
    """Address of an export, and a file of it."""
    digests: set[str] = field(default_factory=set)
    """Of the picture."""
    unsearched: list[str] = field(default_factory=list)
    """Sentences on exports and copies of the log that cannot be read."""
    others: set[str] = field(default_factory=set)
    """Digests of pictures that other predictions are on too: these pictures stay."""


class Forgetting:
    """One prediction that is to be forgotten."""

    def __init__(self, prediction_id: str, home: Home, log: "PredictionLog | None", shared: "SharedLog | None") -> None:
        """
        Args:
            prediction_id: of any form.
            home: what is searched.
            log: of this machine, if there is one.
            shared: the log of several machines, if there is one.

        Raises:
            CommandError: the id is none.
        """
        self.id = prediction_id.strip().lower()
        if not is_prediction_id(self.id):
            raise CommandError(f"{prediction_id[:60]!r} is not the id of a prediction: give the one of its answer")
        self._home, self._log, self._shared = home, log, shared
        self._images, self._reports = open_store(home.images), open_store(home.reports)
        stores = [Path(address) for address in (home.images, home.reports) if "://" not in address]
        self._handled = {home.data, *stores, *sqlite.files_of(home.predictions)}

    def find(self, exports: Sequence[str]) -> Traces:
        """Look for the prediction in logs, their copies and exports.

        Args:
            exports: addresses besides those that the log knows.
        """
        traces = Traces()
        known = [*(self._log.exports() if self._log else []), *exports]
        if self._log is not None:
            traces.rows += _rows(self._log, self.id)
            traces.is_local = bool(traces.rows)
        known += self._find_in_copies(traces)
        if self._shared is not None:
            with contextlib.suppress(UnknownPrediction):
                traces.rows.append(self._shared.get(self.id).record)
                traces.is_shared = True
        time_us = traces.rows[0].time_us if traces.rows else None
        # Files of the home that are no known export too: in Parquet, an id cannot be overwritten.
        own = sorted(map(str, self._home.root.rglob("*.parquet")))
        folders = tuple(f"{address.rstrip('/')}/" for address in known if not _is_file(address))
        addresses = [*known, *(path for path in own if not path.startswith(folders))]
        for address in dict.fromkeys(addresses):
            try:
                traces.exported += [(address, each) for each in _find_in_export(address, self.id, time_us)]
            except (OSError, CommandError) as error:  # the rest is deleted all the same
                traces.unsearched.append(f"export {address} was not searched: {error}")
        traces.digests = {row.image_sha256 for row in traces.rows}
        traces.digests.update(*(each.image_sha256 for _, each in traces.exported))
        traces.others = {sha256 for sha256 in traces.digests if self._is_on_another(sha256)}
        return traces

    def forget(self, traces: Traces, say: Callable[[str], None], *, dry_run: bool) -> None:
        """Delete what was found, and search every file of the home for the rest.

        Args:
            traces: from `find`.
            say: called with a line for each kind of thing.
            dry_run: delete nothing.
        """
        pictures = self._pictures(traces.digests - traces.others)
        waiting = 0 if dry_run or self._log is None else removal.stop_shipping(self._log, self.id)
        for address, found in traces.exported:
            say(f"export {address}: {found.name}")
            if not dry_run:
                _remove_from_export(address, found)
        for report_id, page in reports.with_prediction(self._reports, self.id):
            say(f"report {report_id}: a figure")
            if not dry_run:
                without = reports.without_prediction(page, self.id).replace(self.id.encode(), NOBODY.encode())
                self._reports.put(f"{report_id}/{reports.PAGE}", without)
        if versions := accepted.forget(self._reports, self.id, dry_run=dry_run):
            say(f"accepted rows of {versions} versions: its numbers")
        for path in self._erase_files(list(pictures.values()), dry_run=dry_run):
            say(f"file {path}")
        for sha256 in sorted(pictures):
            say(f"picture {sha256} in {self._images.address}")
            if not dry_run:
                image_store.delete(self._images, sha256)
        for sha256 in sorted(traces.others):
            say(f"picture {sha256} stays: another prediction is on it")
        self._delete_rows(traces, waiting, say, dry_run=dry_run)

    def _find_in_copies(self, traces: Traces) -> list[str]:
        """Note the copies of the log that hold it, with their rows; return the addresses of exports that they know."""
        exports = list[str]()
        for path in copies.find(self._home.root, passed_over=self._handled):
            if not copies.holds(path, self.id):
                continue
            try:
                with copies.open_copy(path) as log:
                    exports += log.exports()
                    traces.rows += _rows(log, self.id)
                traces.copies.append(path)
            except copies.UnusableCopy as error:
                traces.unsearched.append(
                    f"{path} still holds it: this copy of the log cannot be used ({error}); keep of it what "
                    f"`sqlite3 {path} .recover` reads, if you need it, and delete it"
                )
        return exports

    def _delete_rows(self, traces: Traces, waiting: int, say: Callable[[str], None], *, dry_run: bool) -> None:
        if self._shared is not None:
            if waiting:
                time.sleep(REQUEST_SECONDS)  # they may be on their way
            deleted = int(traces.is_shared) if dry_run else self._shared.forget(self.id)
            if deleted:
                say(f"shared log {self._shared.address}: its rows and feedback")
        for path in traces.copies:
            say(f"log {path}: its rows and feedback")
            if not dry_run:
                with copies.open_copy(path) as log:
                    removal.forget(log, self.id)
        if self._log is not None:
            deleted = int(traces.is_local) if dry_run else removal.forget(self._log, self.id)
            if deleted:
                say(f"log {self._log.path}: its rows and feedback")

    def _is_on_another(self, sha256: str) -> bool:
        if self._log is not None and removal.has_picture(self._log, sha256, besides=self.id):
            return True
        return self._shared is not None and self._shared.has_picture(sha256, besides=self.id)

    def _pictures(self, digests: set[str]) -> dict[str, list[tuple[bytes, bytes]]]:
        """Digest of each stored picture -> its bytes as files may hold them, each with what takes their place."""
        found = {}
        for sha256 in sorted(digests):
            try:
                image = image_store.get(self._images, sha256)
            except BlobNotFound:
                continue
            except image_store.DamagedImage:
                found[sha256] = list[tuple[bytes, bytes]]()
                continue
            png, pixels = image_store.to_png(image), image.tobytes()
            encoded = base64.b64encode(png)
            found[sha256] = [(encoded, b"A" * len(encoded)), (png, bytes(len(png)))]
            if len(set(pixels)) > 2:  # one colour is nobody's, and may be anything
                found[sha256].append((pixels, bytes(len(pixels))))
        return found

    def _erase_files(self, pictures: Sequence[list[tuple[bytes, bytes]]], *, dry_run: bool) -> Iterator[Path]:
        root, identity = self._home.root, (self.id.encode(), NOBODY.encode())
        overwrite = erasure.overwrite(*itertools.chain(*pictures), identity)

        def change(content: bytes) -> bytes:
            if identity[0] in content and b"<figure>" in content:
                content = reports.without_prediction(content, self.id)
            return overwrite(content)

        logs = copies.find(root, passed_over=self._handled)
        handled = [*itertools.chain(*map(sqlite.files_of, logs)), *root.rglob("*.parquet")]
        return erasure.erase(root, change, passed_over={*self._handled, *handled}, dry_run=dry_run)


def learnt_by(home: Home, digests: Collection[str]) -> list[str]:
    """Sentences on the registered versions that had a picture in training or in the gate.

    Args:
        home: names the registry.
        digests: of the picture.
    """
    database = sqlite.path_of(home.tracking_uri)
    if not digests or (database is not None and not database.exists()):
        return []
    from fashion.registry import learnt, tracking, versions

    try:
        tracking.connect(home)
        found = [each for sha256 in sorted(digests) for each in learnt.versions_with(sha256)]
    except versions.ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise CommandError(f"the registry does not say who learnt from it ({reason}): nothing is deleted yet") from None
    return [
        f"{each.name} version {each.number} learnt from it: train another without it"
        if each.part == "train"
        else f"{each.name} version {each.number} was compared with its champion on it"
        for each in found
    ]


def not_searched(home: Home) -> list[str]:
    """Sentences on what may hold copies and is not on this machine, or is no part of the home."""
    artifacts = home.artifacts if is_database(home.tracking_uri) else without_password(home.tracking_uri)
    elsewhere = [
        *([] if artifacts.startswith("file:") or "://" not in artifacts else [artifacts]),
        *(value for name, value in os.environ.items() if name in BUCKETS_OF_METAFLOW and value),
    ]
    lines = [f"not searched: {address}, where runs of TrainFlow and DriftFlow may hold it" for address in elsewhere]
    lines += [
        f"not searched: {path}, which a restored backup replaced: delete it, or run this with FASHION_HOME={path}"
        for path in backup.replaced_homes(home.root)
    ]
    if home.shared_log:
        lines.append("not searched: logs and homes of other machines; run this on each of them")
    return [*lines, "not searched: backups, and exports that another machine wrote (--export names them)"]


def _rows(log: "PredictionLog", prediction_id: str) -> Iterator[PredictionRecord]:
    for role in ("champion", "shadow"):
        with contextlib.suppress(UnknownPrediction):
            yield log.get(prediction_id, role).record


def _find_in_export(address: str, prediction_id: str, time_us: int | None) -> Iterator[FoundInExport]:
    if _is_file(address):
        found = export_removal.find_in_file(Path(address), prediction_id)
        return iter(() if found is None else (found,))
    return export_removal.find_in_days(_open(address), prediction_id, time_us)


def _remove_from_export(address: str, found: FoundInExport) -> None:
    if _is_file(address):
        export_removal.remove_from_file(found)
    else:
        export_removal.remove_from_days(_open(address), found)


def _is_file(address: str) -> bool:
    return address.endswith(".parquet") and "://" not in address


def _open(address: str) -> Store:
    try:
        return open_store(address)
    except ValueError as error:
        raise CommandError(str(error)) from None
