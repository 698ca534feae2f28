"""A Google Cloud Storage emulator inside the test process: threaded, and strict about preconditions.

gcp-storage-emulator alone ignores `ifGenerationMatch`, so a second writer would silently overwrite the first.
Knows nothing of what is stored.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage
from support.web import serving


class PreconditionFailedError(Exception):
    """The object's generation differs from the writer's precondition."""


class StrictStorage(Storage):
    """Objects in memory; a write that breaks its precondition is rejected, and one happens at a time."""

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)
        self.lock = threading.RLock()
        self.wanted = threading.local()
        self.wanted_by_upload: dict[str, dict[str, int]] = {}

    def create_resumable_upload(self, *args: Any, **kwargs: Any) -> str:
        with self.lock:
            upload: str = super().create_resumable_upload(*args, **kwargs)
            # Two uploads of one name in one microsecond would share an id, which is made of the time.
            while upload in self.wanted_by_upload:
                upload = super().create_resumable_upload(*args, **kwargs)
            self.wanted_by_upload[upload] = self.wanted.preconditions
        return upload

    def create_file(
        self,
        bucket_name: str,
        file_name: str,
        content: bytes,
        file_obj: dict[str, Any],
        file_id: str | None = None,
    ) -> None:
        preconditions = self.wanted_by_upload[file_id] if file_id else self.wanted.preconditions
        with self.lock:
            found = self.objects.get(bucket_name, {}).get(file_name)
            generation = int(found["generation"]) if found else 0
            if preconditions.get("ifGenerationMatch", generation) != generation:
                raise PreconditionFailedError(f"{file_name} has generation {generation}")
            if preconditions.get("ifGenerationNotMatch") == generation:
                raise PreconditionFailedError(f"{file_name} has generation {generation}")
            super().create_file(bucket_name, file_name, content, file_obj, file_id)

    def get_file_list(self, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return super().get_file_list(*args, **kwargs)


class StrictHandler(RequestHandler):
    """Passes preconditions on to the storage, and answers 412, and 204 to a deletion, as the real service does."""

    storage: StrictStorage

    def send_response(self, code: int, message: str | None = None) -> None:
        is_deleted = self.command == "DELETE" and code == HTTPStatus.OK
        super().send_response(HTTPStatus.NO_CONTENT if is_deleted else code, None if is_deleted else message)

    def do_POST(self) -> None:
        self._answer(super().do_POST)

    def do_PUT(self) -> None:
        self._answer(super().do_PUT)

    def _answer(self, handle: Any) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.storage.wanted.preconditions = {
            name: int(query[name][0]) for name in ("ifGenerationMatch", "ifGenerationNotMatch") if name in query
        }
        try:
            handle()
        except PreconditionFailedError as error:
            body = json.dumps({"error": {"code": 412, "message": str(error)}}).encode()
            self.send_response(HTTPStatus.PRECONDITION_FAILED)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


@contextlib.contextmanager
def serve(*buckets: str) -> Iterator[str]:
    """Serve empty buckets on a free loopback port and yield the URL for `STORAGE_EMULATOR_HOST`."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)  # it logs each refused write as an error
    storage = StrictStorage()
    for bucket in buckets:
        create_bucket(bucket, storage)
    with serving(partial(StrictHandler, storage)) as url:
        yield url
