"""Requests to Google's JSON APIs, with the credentials of the environment. Knows no particular API.

`CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING` and its like move an API elsewhere, as they do for gcloud.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

REQUEST_SECONDS = 30.0
"""How long one request may take."""


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
                method, url, json=body, params=params, headers=self._headers, timeout=REQUEST_SECONDS
            )
            content = answer.json() if answer.content else {}
        except (requests.RequestException, GoogleAuthError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ApiUnavailable(f"{url} cannot be used: {reason}") from None
        if answer.status_code >= 400:
            kind = ResourceMissing if answer.status_code == 404 else ApiUnavailable
            raise kind(_sentence(method, url, answer.status_code, content))
        return dict(content)

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


def _sentence(method: str, url: str, status: int, content: Any) -> str:
    error = content.get("error", {}) if isinstance(content, dict) else {}
    reason = " ".join(str(error.get("message", "")).split()) or "no reason is given"
    remedy = "; does the account have the roles in docs/how-to/cloud.md?" if status in (401, 403) else ""
    return f"{method} {url} answered {status}: {reason}{remedy}"
