"""Cloud Run's control plane on loopback: a gRPC server that speaks the published messages of google.cloud.run.v2.

It checks what Cloud Run is documented to check: etags, update masks, revision names, percentages. Which address stands
for a revision depends on its image. Knows nothing of the client under test.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2

from fashion.deployment.canary import model_version

PROJECT, REGION, SERVICE = "shop", "europe-west1", "fashion-classifier"
PATH = f"projects/{PROJECT}/locations/{REGION}/services/{SERVICE}"
BY_REVISION = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
BY_LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
READY, FAILED = run_v2.Condition.State.CONDITION_SUCCEEDED, run_v2.Condition.State.CONDITION_FAILED


class Refused(Exception):
    """An error to answer with."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class FakeCloudRun:
    """The state of one project's Cloud Run.

    Attributes:
        urls: address of the program that stands for an image.
        broken: image -> why its revision does not become ready.
        faults: method -> errors of its next calls; a call after `lost` has been done already.
        polls: how often an operation is looked at before it has ended.
        history: traffic after each change, by revision.
        calls: names of the methods that were called.
        before_update: called before each update is checked: what somebody else does meanwhile.
    """

    urls: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[tuple[grpc.StatusCode, str]]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    polls: int = 0
    history: list[dict[str, int]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    before_update: Callable[[], None] = lambda: None
    services: dict[str, run_v2.Service] = field(default_factory=dict)
    revisions: dict[str, run_v2.Revision] = field(default_factory=dict)
    operations: dict[str, tuple[int, operations_pb2.Operation]] = field(default_factory=dict)
    etag: int = 0
    clock: int = 1_700_000_000

    def create(self, image: str, *, revision: str = f"{SERVICE}-00001-abc") -> None:
        """Create the service as `gcloud run services replace` does: all traffic to the latest revision."""
        template = run_v2.RevisionTemplate(
            revision=revision,
            service_account="runner@shop.iam.gserviceaccount.com",
            containers=[
                run_v2.Container(name="proxy", image="proxy:1"),
                run_v2.Container(
                    name="classifier",
                    image=image,
                    ports=[run_v2.ContainerPort(container_port=3000)],
                    env=[run_v2.EnvVar(name="FASHION_FIRESTORE", value=PROJECT)],
                ),
            ],
        )
        traffic = [run_v2.TrafficTarget(type_=BY_LATEST, percent=100)]
        self.create_service(
            run_v2.CreateServiceRequest(
                parent=PATH.rpartition("/services")[0],
                service_id=SERVICE,
                service=run_v2.Service(template=template, traffic=traffic, annotations={"team": "shop"}),
            )
        )

    def give(self, traffic: dict[str, int]) -> None:
        """Set the traffic as somebody with gcloud would."""
        service = self.services[PATH]
        service.traffic = [
            run_v2.TrafficTarget(type_=BY_REVISION, revision=name, percent=percent) for name, percent in traffic.items()
        ]
        self._settle(service)

    def traffic(self) -> dict[str, int]:
        """Percentages by revision."""
        return {each.revision: each.percent for each in self.services[PATH].traffic_statuses if each.percent}

    def by_version(self) -> list[dict[int | None, int]]:
        """`history`, by model version."""
        return [{model_version(name): percent for name, percent in each.items()} for each in self.history]

    def notes(self) -> dict[str, str]:
        """Annotations of the service."""
        return dict(self.services[PATH].annotations)

    # The methods of google.cloud.run.v2.Services and Revisions, and of google.longrunning.Operations.

    def create_service(self, request: run_v2.CreateServiceRequest) -> operations_pb2.Operation:
        """CreateService."""
        name = f"{request.parent}/services/{request.service_id}"
        if name in self.services:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Resource {name!r} already exists")
        service = run_v2.Service(request.service)
        service.name, service.uri = name, f"https://{request.service_id}-abc123-ew.a.run.app"
        self.services[name] = service
        return self._apply(service, revised=True)

    def get_service(self, request: run_v2.GetServiceRequest) -> run_v2.Service:
        """GetService."""
        return self._find(request.name)

    def update_service(self, request: run_v2.UpdateServiceRequest) -> operations_pb2.Operation:
        """UpdateService."""
        self.before_update()
        stored = self._find(request.service.name)
        if request.service.etag and request.service.etag != stored.etag:
            raise Refused(
                grpc.StatusCode.ABORTED,
                f"Conflict for resource {SERVICE!r}: version {request.service.etag!r} was specified but current "
                f"version is {stored.etag!r}",
            )
        known = {each.name for each in run_v2.Service.pb().DESCRIPTOR.fields}
        paths = list(request.update_mask.paths)
        if not paths or not set(paths) <= known:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"update_mask {paths} is not understood")
        wanted = run_v2.Service(stored)
        for path in paths:
            setattr(wanted, path, getattr(request.service, path))
        revised = wanted.template != stored.template
        names = set(self.revisions) | ({wanted.template.revision} if revised else set())
        if revised and wanted.template.revision in self.revisions:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Revision {wanted.template.revision!r} already exists")
        if revised and not wanted.template.revision.startswith(f"{SERVICE}-"):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a revision's name begins with its service's")
        if sum(each.percent for each in wanted.traffic) != 100:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "traffic must add up to 100 percent")
        for each in wanted.traffic:
            if each.type_ == BY_REVISION and each.revision not in names:
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"Revision {each.revision!r} is not found")
        self.services[stored.name] = wanted
        return self._apply(wanted, revised=revised)

    def list_revisions(self, request: run_v2.ListRevisionsRequest) -> run_v2.ListRevisionsResponse:
        """ListRevisions."""
        self._find(request.parent)
        return run_v2.ListRevisionsResponse(revisions=list(self.revisions.values()))

    def get_operation(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        """GetOperation."""
        left, operation = self.operations[request.name]
        self.operations[request.name] = (left - 1, operation)
        if left > 0:
            return operations_pb2.Operation(name=request.name)
        self.services[PATH].reconciling = False
        return operation

    def _find(self, name: str) -> run_v2.Service:
        if name not in self.services:
            raise Refused(
                grpc.StatusCode.NOT_FOUND, f"Resource {name.rpartition('/')[2]!r} of kind 'SERVICE' not found"
            )
        return self.services[name]

    def _apply(self, service: run_v2.Service, *, revised: bool) -> operations_pb2.Operation:
        """Make what the service now describes, and return the operation that does it."""
        problem = self._revise(service) if revised else ""
        self._settle(service)
        operation = operations_pb2.Operation(name=f"{PATH}/operations/{self.etag}", done=True)
        if problem:
            operation.error.CopyFrom(status_pb2.Status(code=code_pb2.UNKNOWN, message=problem))
        else:
            packed = any_pb2.Any()
            packed.Pack(run_v2.Service.pb(service))
            operation.response.CopyFrom(packed)
        self.operations[operation.name] = (self.polls, operation)
        service.reconciling = self.polls > 0
        return operations_pb2.Operation(name=operation.name) if self.polls else operation

    def _revise(self, service: run_v2.Service) -> str:
        name = service.template.revision
        image = service.template.containers[-1].image
        reason = self.broken.get(image, "" if image in self.urls else f"Image {image!r} not found.")
        condition = run_v2.Condition(type_="Ready", state=FAILED if reason else READY, message=reason)
        self.clock += 1
        self.revisions[name] = run_v2.Revision(
            name=f"{service.name}/revisions/{name}",
            conditions=[condition],
            containers=service.template.containers,
            create_time={"seconds": self.clock},
        )
        if not reason:
            service.latest_ready_revision = f"{service.name}/revisions/{name}"
            return ""
        return f"Revision '{name}' is not ready and cannot serve traffic. {reason}"

    def _settle(self, service: run_v2.Service) -> None:
        latest = service.latest_ready_revision.rpartition("/")[2]
        statuses = []
        for each in service.traffic:
            name = each.revision or latest
            url = self.urls.get(self.revisions[name].containers[-1].image, "") if each.tag else ""
            statuses.append(
                run_v2.TrafficTargetStatus(
                    type_=each.type_, revision=each.revision, percent=each.percent, tag=each.tag, uri=url
                )
            )
        service.traffic_statuses = statuses
        self.etag += 1
        service.etag = f'"{self.etag}"'
        self.history.append({each.revision or latest: each.percent for each in statuses if each.percent})


@contextlib.contextmanager
def serve(state: FakeCloudRun) -> Iterator[str]:
    """Serve the control plane; yields `host:port`."""
    lock = threading.Lock()

    def handler(method: Callable[[Any], Any], name: str, request: Any, response: Any) -> Any:
        def call(message: Any, context: grpc.ServicerContext) -> Any:
            with lock:
                state.calls.append(name)
                fault = state.faults.get(name, [])
                if fault:
                    context.abort(*fault.pop(0))
                try:
                    answer = copy.deepcopy(method(message))
                except Refused as error:
                    context.abort(error.code, str(error))
                if name in state.lost:
                    state.lost.remove(name)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")
                return answer

        read = getattr(request, "deserialize", None) or request.FromString
        write = getattr(response, "serialize", None) or response.SerializeToString
        return grpc.unary_unary_rpc_method_handler(call, request_deserializer=read, response_serializer=write)

    operation = operations_pb2.Operation
    methods = {
        "google.cloud.run.v2.Services": {
            "CreateService": handler(state.create_service, "CreateService", run_v2.CreateServiceRequest, operation),
            "GetService": handler(state.get_service, "GetService", run_v2.GetServiceRequest, run_v2.Service),
            "UpdateService": handler(state.update_service, "UpdateService", run_v2.UpdateServiceRequest, operation),
        },
        "google.cloud.run.v2.Revisions": {
            "ListRevisions": handler(
                state.list_revisions, "ListRevisions", run_v2.ListRevisionsRequest, run_v2.ListRevisionsResponse
            ),
        },
        "google.longrunning.Operations": {
            "GetOperation": handler(state.get_operation, "GetOperation", operations_pb2.GetOperationRequest, operation),
        },
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, handlers) for service, handlers in methods.items()]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
