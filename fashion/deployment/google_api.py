"""Requests to Google's JSON APIs, with the credentials of the environment. Knows no particular API.

`CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING` and its like move an API elsewhere, as they do for gcloud.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from fashion.storage import http_errors
from fashion.storage.servers import server_seconds

REMEDIES = dict.fromkeys((401, 403), "; does the account have the roles in docs/how-to/cloud.md?")
"""Status of HTTP -> what to do."""


class ApiUnavailable(RuntimeError):
    """An API cannot be reached or refuses the request. The message is one sentence, with the remedy if one is known."""


class ResourceMissing(ApiUnavailable):
    """There is no such resource or collection (404)."""


class Session:
    """Authorised requests. Connects to nothing before the first one."""

    def __init__(self, project: str) -> None:
        """
        Args:
            project: that requests are counted and paid in.

        Raises:
            ApiUnavailable: there are no credentials, or the package that reads them is missing.
        """
        try:
            import google.auth
            from google.auth.exceptions import GoogleAuthError
            from google.auth.transport.requests import AuthorizedSession
        except ImportError:
            raise ApiUnavailable(
                "Google Cloud needs the package google-auth: install the extra `fashion[gcp]`"
            ) from None
        try:
            credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        except GoogleAuthError:
            raise ApiUnavailable(
                "there are no Google credentials: run `gcloud auth application-default login`, or set "
                "GOOGLE_APPLICATION_CREDENTIALS"
            ) from None
        self._session: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        self._headers = {"x-goog-user-project": project}

    def call(
        self,
        method: str,
        api: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request, and return the answer's JSON.

        Args:
            method: of HTTP.
            api: the API's name, such as `monitoring`.
            path: below the API's address, with its version.
            body: sent as JSON.
            params: of the query.

        Raises:
            ResourceMissing: the API answered 404.
            ApiUnavailable: the API cannot be reached, or answered with another error.
        """
        import requests
        from google.auth.exceptions import GoogleAuthError

        url = f"{endpoint(api)}/{path}"
        try:
            answer = self._session.request(
                method, url, json=body, params=params, headers=self._headers, timeout=server_seconds()
            )
        except (requests.RequestException, GoogleAuthError) as error:
            raise ApiUnavailable(
                f"{url} cannot be used: {http_errors.reason_of(error)}; check the network, and try again"
            ) from None
        content = _content(answer)
        if answer.status_code >= 400:
            kind = ResourceMissing if answer.status_code == 404 else ApiUnavailable
            raise kind(_sentence(method, url, answer.status_code, content))
        if content is None:
            raise ApiUnavailable(
                f"{url} cannot be used: what answers is not Google's API, but perhaps a proxy's sign-in page; "
                "check the network"
            )
        return content

    def list(self, api: str, path: str, key: str) -> Iterator[dict[str, Any]]:
        """Yield what a collection holds, page by page.

        Args:
            api: the API's name.
            path: of the collection.
            key: under which an answer lists it.

        Raises:
            ApiUnavailable: as for `call`.
        """
        token = ""
        while True:
            answer = self.call("GET", api, path, params={"pageToken": token} if token else None)
            yield from answer.get(key, [])
            token = answer.get("nextPageToken", "")
            if not token:
                return


def endpoint(api: str) -> str:
    """Return the address of an API, without a slash at its end."""
    override = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}")
    return (override or f"https://{api}.googleapis.com").rstrip("/")


def _content(answer: Any) -> dict[str, Any] | None:
    """The object that an answer holds; None where it holds none."""
    try:
        content = answer.json()
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _sentence(method: str, url: str, status: int, content: dict[str, Any] | None) -> str:
    error = (content or {}).get("error")
    message = error.get("message", "") if isinstance(error, dict) else ""
    reason = " ".join(str(message).split()) or "no reason is given"
    remedy = REMEDIES.get(status, "; try again later" if status >= 429 else "")
    return f"{method} {url} answered {status}: {reason}{remedy}"
