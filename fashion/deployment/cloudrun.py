"""One Cloud Run service, by Google's client. Only this file imports it, on first use. Knows no steps of a rollout."""

import concurrent.futures
import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fashion.deployment.canary import Conflict, Revision, RevisionFailed, Service, TrafficTarget
from fashion.deployment.rollout import RolloutError

RETRY_SECONDS = 60.0
"""How long a request is repeated while Cloud Run is unavailable."""


class CloudRun:
    """A Cloud Run service as a ControlPlane."""

    def __init__(
        self,
        project: str,
        region: str,
        service: str,
        *,
        operation_seconds: float,
        poll_seconds: float = 2.0,
        emulator: str | None = None,
    ) -> None:
        """Name the service; nothing is sent yet.

        Args:
            project: its Google Cloud project.
            region: its region.
            service: its name.
            operation_seconds: that one change may take.
            poll_seconds: between two looks at a change.
            emulator: `host:port` of a server without TLS and credentials, instead of Google's.
        """
        self._project, self._region, self._service = project, region, service
        self._path = f"projects/{project}/locations/{region}/services/{service}"
        self._operation_seconds, self._poll_seconds, self._emulator = operation_seconds, poll_seconds, emulator

    def read(self) -> Service:
        """See ControlPlane.read."""
        return _as_service(self._read())

    def revisions(self) -> Sequence[Revision]:
        """See ControlPlane.revisions."""
        with self._translate_errors():
            found = list(self._clients[1].list_revisions(parent=self._path, retry=self._retry()))
        found.sort(key=lambda each: each.create_time.timestamp() if each.create_time else 0.0, reverse=True)
        return [_as_revision(each) for each in found]

    def revise(
        self, service: Service, name: str, *, image: str, targets: Sequence[TrafficTarget], notes: Mapping[str, str]
    ) -> None:
        """See ControlPlane.revise."""
        wanted = self._changed(service, targets, notes)
        wanted.template.revision = name
        containers = wanted.template.containers
        container = next((each for each in containers if each.ports), containers[0] if containers else None)
        if container is None:
            raise RolloutError(f"{self._path} has no container: create it again from configs/deploy/cloudrun.yaml")
        container.image = image
        try:
            self._update(wanted, ["template", "traffic", "annotations"])
        except Conflict:
            raise
        except RolloutError as error:
            reason = next((each.reason for each in self.revisions() if each.name == name and each.ready is False), "")
            if not reason:
                raise
            raise RevisionFailed(
                f"revision {name} did not become ready and got no traffic: {reason}; mend it and deploy again"
            ) from error

    def set_traffic(self, service: Service, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> None:
        """See ControlPlane.set_traffic."""
        self._update(self._changed(service, targets, notes), ["traffic", "annotations"])

    def _read(self) -> Any:
        """Cloud Run's message of the service, once it is not being changed."""
        deadline = time.monotonic() + self._operation_seconds
        while True:
            with self._translate_errors():
                service = self._clients[0].get_service(name=self._path, retry=self._retry())
            if not service.reconciling:
                return service
            if time.monotonic() > deadline:
                raise RolloutError(
                    f"{self._path} was still being changed after {self._operation_seconds:.0f} s: traffic is as it "
                    "was last set; deploy again to go on from there"
                )
            time.sleep(self._poll_seconds)

    def _changed(self, service: Service, targets: Sequence[TrafficTarget], notes: Mapping[str, str]) -> Any:
        from google.cloud import run_v2

        wanted = run_v2.Service(service.source)  # a copy
        by_revision = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
        wanted.traffic = [
            run_v2.TrafficTarget(type_=by_revision, revision=each.revision, percent=each.percent, tag=each.tag)
            for each in targets
        ]
        wanted.annotations.update(notes)
        return wanted

    def _update(self, wanted: Any, fields: Sequence[str]) -> None:
        with self._translate_errors():
            from google.api_core.exceptions import GoogleAPICallError
            from google.api_core.future.polling import DEFAULT_POLLING
            from google.cloud import run_v2

            request = run_v2.UpdateServiceRequest(service=wanted, update_mask={"paths": list(fields)})
            # Repeated safely: `etag` names the version that was read, and Cloud Run changes no other.
            operation = self._clients[0].update_service(request=request, retry=self._retry())
            polling = DEFAULT_POLLING.with_delay(initial=self._poll_seconds, maximum=max(10.0, self._poll_seconds))
            try:
                operation.result(polling=polling.with_timeout(self._operation_seconds))
            except (concurrent.futures.TimeoutError, TimeoutError):
                raise RolloutError(
                    f"a change of {self._path} has not ended after {self._operation_seconds:.0f} s: deploy again to "
                    "go on from where it is then, or raise deploy.operation_seconds"
                ) from None
            except GoogleAPICallError as error:
                if not operation.operation.HasField("error"):  # asking for the outcome failed
                    raise
                raise RolloutError(f"{self._path} was not changed: {_sentence(error)}") from None

    @functools.cached_property
    def _clients(self) -> tuple[Any, Any]:
        """Of services and of revisions."""
        from google.cloud import run_v2

        if self._emulator is None:
            return run_v2.ServicesClient(), run_v2.RevisionsClient()
        import grpc
        from google.cloud.run_v2.services.revisions.transports import RevisionsGrpcTransport
        from google.cloud.run_v2.services.services.transports import ServicesGrpcTransport

        channel = grpc.insecure_channel(self._emulator)
        return (
            run_v2.ServicesClient(transport=ServicesGrpcTransport(channel=channel)),
            run_v2.RevisionsClient(transport=RevisionsGrpcTransport(channel=channel)),
        )

    def _retry(self) -> Any:
        from google.api_core.exceptions import ServiceUnavailable
        from google.api_core.retry import Retry, if_exception_type

        return Retry(
            predicate=if_exception_type(ServiceUnavailable),
            initial=min(1.0, self._poll_seconds),
            timeout=min(RETRY_SECONDS, self._operation_seconds),
        )

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise RolloutError for errors of Google's client and of google.auth."""
        try:
            from google.api_core import exceptions
            from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
            from google.cloud import run_v2  # noqa: F401  # is it installed?
        except ImportError:
            raise RolloutError(
                "rolling out to Cloud Run needs the package google-cloud-run: install the extra `fashion[cloudrun]`"
            ) from None
        try:
            yield
        except DefaultCredentialsError:
            raise RolloutError(
                "Cloud Run cannot be used without Google credentials: run `gcloud auth application-default login`, "
                "or give the machine a service account"
            ) from None
        except (exceptions.Aborted, exceptions.AlreadyExists) as error:
            raise Conflict(f"{self._path} was changed meanwhile: {_sentence(error)}") from None
        except exceptions.NotFound as error:
            raise RolloutError(
                f"project {self._project} has no service {self._service} in region {self._region} "
                f"({_sentence(error)}): correct deploy.project, deploy.region or deploy.service, or create it once "
                "with `gcloud run services replace configs/deploy/cloudrun.yaml`"
            ) from None
        except exceptions.Forbidden as error:
            raise RolloutError(
                f"{self._path} may not be changed by this account ({_sentence(error)}): it needs roles/run.developer "
                "on the service, and roles/iam.serviceAccountUser on the account that the service runs as"
            ) from None
        except (exceptions.RetryError, exceptions.ServiceUnavailable, exceptions.DeadlineExceeded) as error:
            raise RolloutError(
                f"Cloud Run does not answer ({_sentence(error)}): traffic is as it was last set; deploy again to go "
                "on from there"
            ) from None
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise RolloutError(f"{self._path} cannot be changed: {_sentence(error)}") from None


def identity_token(audience: str) -> str:
    """Return a Google identity token for a service that is not public.

    Args:
        audience: the service's own address, not a tag's.

    Raises:
        RolloutError: this machine has no service account that could sign one.
    """
    try:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
        from google.oauth2.id_token import fetch_id_token
    except ImportError:
        raise RolloutError("an identity token needs the package google-auth: install `fashion[cloudrun]`") from None
    try:
        return str(fetch_id_token(Request(), audience))  # type: ignore[no-untyped-call]
    except (GoogleAuthError, OSError) as error:
        raise RolloutError(
            f"there is no identity token for {audience} ({_sentence(error)}): deploy as a service account with "
            "roles/run.invoker, or set deploy.identity_token=false for a public service"
        ) from None


def _as_service(found: Any) -> Service:
    latest = found.latest_ready_revision.rpartition("/")[2]
    targets = tuple(
        TrafficTarget(each.revision.rpartition("/")[2] or latest, each.percent, each.tag, each.uri)
        for each in found.traffic_statuses
    )
    return Service(found.name.rpartition("/")[2], targets, dict(found.annotations), found.uri, found)


def _as_revision(found: Any) -> Revision:
    from google.cloud.run_v2 import Condition

    states = {each.type_: each for each in found.conditions}
    ready = states.get("Ready")
    decided = {Condition.State.CONDITION_SUCCEEDED: True, Condition.State.CONDITION_FAILED: False}
    verdict = None if ready is None else decided.get(ready.state)
    return Revision(found.name.rpartition("/")[2], verdict, "" if ready is None else " ".join(ready.message.split()))


def _sentence(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split()).rstrip(".")[:400] or type(error).__name__
