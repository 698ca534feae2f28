"""The MLflow server that `MLFLOW_TRACKING_URI` names: whether it can be used. Knows no runs and no versions."""

import re
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests import Response, exceptions

from fashion.registry import artifacts
from fashion.storage import http_errors
from fashion.storage.servers import (
    ServerUnavailable,
    check_database,
    is_database,
    is_database_error,
    reason_of,
    without_password,
)

VARIABLE = "MLFLOW_TRACKING_URI"
ANY_EXPERIMENT = "/api/2.0/mlflow/experiments/search"
REMEDIES = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    429: "it has too many requests: try again later",
    403: "give this user access, or start the server with `--allowed-hosts` and the name in the address",
}
"""What to do about a status."""


def check(address: str) -> None:
    """Log in to a database, or ask anything else for an experiment.

    How long that may take follows from MLFLOW_HTTP_REQUEST_TIMEOUT and MLFLOW_HTTP_REQUEST_MAX_RETRIES.

    Args:
        address: of the tracking store.

    Raises:
        ServerUnavailable: it cannot be used.
    """
    if is_database(address):
        return check_database(address, variable=VARIABLE)
    if not address.startswith(("http://", "https://")):
        return _check_other(address)
    try:
        login = get_default_host_creds(address)  # type: ignore[no-untyped-call]
        response = http_request(  # type: ignore[no-untyped-call]
            login, ANY_EXPERIMENT, "POST", json={"max_results": 1}, raise_on_status=False
        )
    except MlflowException as error:
        raise unavailable(error, address) or ServerUnavailable(
            f"MLflow at {without_password(address)} cannot be used: {error}"
        ) from None
    if not _is_answer(response):
        raise ServerUnavailable(_describe(response, without_password(address)))


def unavailable(error: BaseException, address: str) -> ServerUnavailable | None:
    """Return what to raise in place of an error that means that the server cannot be reached; None for other errors.

    Args:
        error: what MLflow raised.
        address: of the tracking store.
    """
    if isinstance(error, ServerUnavailable):
        return error
    shown, remedy = without_password(address), f"check {VARIABLE}, and that its server is up"
    if (status := _status(error, address)) is not None:
        reason = "it answers what is not MLflow's" if status == 200 else f"it answers {status}"
        remedy = "look at the server's log" if status >= 500 else remedy
        return ServerUnavailable(f"MLflow at {shown} cannot be used: {reason}; {REMEDIES.get(status, remedy)}")
    cause: BaseException | None = error if isinstance(error, MlflowException) else None  # buckets use requests too
    while cause is not None:
        if isinstance(cause, exceptions.RequestException):
            return ServerUnavailable(f"MLflow at {shown} cannot be reached: {http_errors.reason_of(cause)}; {remedy}")
        if is_database_error(cause) and not address.startswith("sqlite"):
            return ServerUnavailable(f"MLflow at {shown} cannot be used: {reason_of(cause)}; {remedy}")
        cause = cause.__cause__ or cause.__context__
    return None


def explain(error: BaseException) -> OSError | None:
    """What to raise in place of an error, if the server or the bucket of its artifacts cannot be used; else None."""
    if isinstance(error, artifacts.ArtifactsUnavailable):
        return error
    return unavailable(error, mlflow.get_tracking_uri()) or artifacts.unavailable(error)


def _status(error: BaseException, address: str) -> int | None:
    """Of an answer of a server that cannot do its work now, or that is none of MLflow; None for other errors."""
    status: int | None = None
    if isinstance(error, exceptions.JSONDecodeError):
        return 200
    if isinstance(error, RestException):  # a server's own words
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    elif isinstance(error, MlflowException):
        found = re.search(r"failed with error code (?=(\d{3}) != )|too many (?=(\d{3}) error responses)", str(error))
        status = int(found[1] or found[2]) if found else None
        if "not in a valid JSON format" in str(error):
            return 200
    elif isinstance(error, exceptions.HTTPError) and error.response is not None:  # of artifacts
        status = error.response.status_code if error.response.url.startswith(address) else None
    return status if status in REMEDIES or (status or 0) >= 500 else None


def _check_other(address: str) -> None:
    """Use an address of a kind that MLflow or one of its plugins may know, such as `databricks`."""
    try:
        MlflowClient(address).search_experiments(max_results=1)
    except MlflowException as error:
        text = str(error).strip()
        reasons = {
            "unsupported URI": "MLflow knows no address of this kind",
            "filesystem tracking backend": "MLflow no longer stores runs in a folder",
        }
        reason = next((reason for sign, reason in reasons.items() if sign in text), text.partition(". ")[0])
        raise ServerUnavailable(
            f"{without_password(address)} cannot be used: {reason}; set {VARIABLE} to http://host:5000, or to "
            "postgresql://user:password@host/database"
        ) from None


def _is_answer(response: Response) -> bool:
    content = _content(response)
    return response.status_code == 200 and (content == {} or "experiments" in content)


def _content(response: Response) -> dict[str, Any]:
    """The object that an answer holds; `{"": ...}` where it holds none."""
    try:
        content = response.json()
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {"": content}


def _describe(response: Response, address: str) -> str:
    status = response.status_code
    if status in REMEDIES:
        return f"MLflow at {address} refuses the request ({status}): {REMEDIES[status]}"
    if "error_code" in _content(response) or status in (500, 502, 503, 504):
        return f"MLflow at {address} cannot be used: it answers {status}; look at the server's log"
    return f"{address} is no MLflow server: it answers {ANY_EXPERIMENT} with {status}; check {VARIABLE}"
