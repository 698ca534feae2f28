"""Cloud Monitoring's, Cloud Billing's and Resource Manager's JSON APIs, as far as this project calls them.

Keeps resources as they come, gives names as the real ones do, lists in pages, and leaves defaults out of its answers.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.web import QuietHandler, serving

PAGE = 3
"""Resources of one page: few, so that there are several."""
IDS = {"services": "serviceId", "serviceLevelObjectives": "serviceLevelObjectiveId"}
"""Collections whose ids the caller chooses."""


@dataclass
class GoogleApis:
    """The server's state."""

    url: str = ""
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> resource."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path, in order."""
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Part of a path -> status and message of its answer."""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append((method, path))
        for part, (status, message) in self.refuse.items():
            if part in path:
                return status, {"error": {"code": status, "message": message}}
        name = path.split("/", 2)[2]  # without the version
        parent, _, collection = name.rpartition("/")
        if method == "POST":
            chosen = query.get(IDS.get(collection, ""), [str(1000 + len(self.resources))])[0]
            self.resources[f"{name}/{chosen}"] = {**body, "name": f"{name}/{chosen}"}
            return 200, self.resources[f"{name}/{chosen}"]
        if method == "PATCH":
            wanted = {key: body[key] for key in query["updateMask"][0].split(",")}
            self.resources[name] |= wanted
            return 200, self.resources[name]
        if re.fullmatch(r"projects/[^/]+", name):
            return 200, {"name": "projects/4711"}
        if "/services/" in parent and parent not in self.resources:
            return 404, {"error": {"code": 404, "message": f"{parent} is not there"}}
        own = [each for key, each in self.resources.items() if re.fullmatch(rf"{re.escape(name)}/[^/]+", key)]
        start = int(query.get("pageToken", ["0"])[0])
        more = {"nextPageToken": str(start + PAGE)} if start + PAGE < len(own) else {}
        return 200, {collection: [_as_answered(each) for each in own[start : start + PAGE]], **more}


@contextlib.contextmanager
def serve() -> Iterator[GoogleApis]:
    """Serve empty APIs on a free loopback port."""
    apis = GoogleApis()

    class Handler(QuietHandler):
        def handle_request(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.read_body() or b"{}")
            status, content = apis.answer(self.command, parts.path, parse_qs(parts.query), body)
            self.respond(status, json.dumps(content).encode(), content_type="application/json")

        do_GET = do_POST = do_PATCH = handle_request

    with serving(Handler) as apis.url:
        yield apis


def _as_answered(value: Any) -> Any:
    """As the real APIs answer: without defaults, with durations in their shortest form."""
    if isinstance(value, dict):
        return {key: _as_answered(each) for key, each in value.items() if each not in ("0s", 0, False, "", [])}
    if isinstance(value, list):
        return [_as_answered(each) for each in value]
    return re.sub(r"^(\d+\.\d*?)0+s$", r"\1s", value) if isinstance(value, str) else value
