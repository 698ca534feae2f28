"""Whether a worker answers as its bento was built to: it is ready, of the right version, and right about a picture."""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bentos.web.known_answers import DEPLOYMENT, GALLERY, KnownAnswer
from fashion.predictions.record import CHECK

READY_SECONDS = 180.0
"""How long a worker may take to become ready."""
LOOK_SECONDS = 0.1
PICTURES = 3
"""Pictures of the gallery that are asked for: each is a row of the log."""
LOOK_ANSWER_SECONDS = 3.0
"""How long one look waits: until it has an answer, nobody sees that the worker has ended."""
ANSWER_SECONDS = 30.0


class CheckFailed(Exception):
    """A worker does not answer as it should. The message is a clause that says what it does instead."""


def check(
    address: tuple[str, int], bento: Path, environment: Mapping[str, str], *, is_given_up: Callable[[], str | None]
) -> None:
    """Wait until a worker is ready, and look whether it serves what its bento says.

    Args:
        address: where the worker answers.
        bento: folder of the bento.
        environment: of the worker; holds the key of predictions, if there is one.
        is_given_up: called while the worker is not ready; returns why not to wait any longer, or None.

    Raises:
        CheckFailed: it does not.
    """
    _wait_until_ready(address, is_given_up)
    folder = next(iter((bento / "src").glob(f"bentos/*/{DEPLOYMENT}")), None)
    if folder is None:  # a bento of another kind
        return
    deployment = json.loads(folder.read_bytes())
    model, served = deployment["model"], _get_json(address, "/model")
    for field in ("name", "version"):
        if str(served.get(field)) != str(model[field]):
            raise CheckFailed(f"it serves {field} {served.get(field)} instead of {model[field]}")
    for known in [KnownAnswer(**each) for each in deployment.get("known", [])[:PICTURES]]:
        _check_answer(address, (folder.parent / GALLERY / known.picture).read_bytes(), known, environment)


def _check_answer(address: tuple[str, int], picture: bytes, known: KnownAnswer, environment: Mapping[str, str]) -> None:
    headers = {"content-type": "image/png", "x-client": CHECK}
    if key := environment.get("FASHION_PREDICT_KEYS", "").partition(",")[0].strip():
        headers["x-api-key"] = key
    status, content = _send(address, "POST", "/predict", picture, headers)
    if status != 200:
        raise CheckFailed(f"it answers a picture of the gallery with {status}: {content[:200]!r}")
    label = json.loads(content)["label"]
    if label != known.label:
        raise CheckFailed(
            f"it takes picture {known.picture} of the gallery for {label}, where its model said {known.label}"
        )


def _wait_until_ready(address: tuple[str, int], is_given_up: Callable[[], str | None]) -> None:
    until = time.monotonic() + READY_SECONDS
    problem = "it does not answer"
    while time.monotonic() < until:
        if reason := is_given_up():
            raise CheckFailed(reason)
        try:
            status, content = _send(address, "GET", "/readyz", seconds=LOOK_ANSWER_SECONDS)
        except CheckFailed as error:
            problem = str(error)
        else:
            if status == 200:
                return
            problem = f"/readyz answers {status}: {content[:200].decode(errors='replace')}"
        time.sleep(LOOK_SECONDS)
    raise CheckFailed(f"it was not ready within {READY_SECONDS:g} s ({problem})")


def _get_json(address: tuple[str, int], path: str) -> Any:
    status, content = _send(address, "GET", path)
    if status != 200:
        raise CheckFailed(f"{path} answers {status}")
    return json.loads(content)


def _send(
    address: tuple[str, int],
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = ANSWER_SECONDS,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=seconds)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise CheckFailed(f"{path} has no answer ({error or type(error).__name__})") from None
    finally:
        connection.close()
