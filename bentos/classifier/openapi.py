"""The classifier's operations, for its OpenAPI document. Knows what goes in and out, not how it is made."""

from typing import Any

from bentos.classifier.schemas import (
    BatchAnswer,
    FeedbackAnswer,
    FeedbackRead,
    FeedbackRequest,
    FeedbackTableAnswer,
    Gallery,
    GalleryPicture,
    LabelCounts,
    LatencyQuantiles,
    LineError,
    LogState,
    ModelInfo,
    ModelVersion,
    NotReady,
    PredictionAnswer,
    PredictionRead,
    Ready,
    Reports,
    ReviewAnswer,
    ReviewedKnown,
    ReviewedPrediction,
    ReviewItem,
    ReviewQueue,
    ReviewRequest,
    TrafficAnswer,
    TrafficPeriod,
    VersionPeriod,
)
from bentos.classifier.site import words_of
from bentos.web.openapi import READ_ERRORS, UPLOAD_ERRORS, Content, Operation, Schema, object_schema
from bentos.web.openapi import document as make_document
from bentos.web.responses import ErrorAnswer, ErrorDetail
from bentos.web.uploads import JsonUpload
from fashion.config.names import MODEL_NAME
from fashion.images.statistics import STATISTICS
from fashion.model.package import Package
from fashion.predictions.slots import SPANS

EXAMPLE_ID = "019a0c3e-5f2b-7c1d-8e4f-0123456789ab"
EXAMPLE_TIME = "2026-01-31T12:00:00+00:00"
# One white pixel: the smallest picture.
EXAMPLE_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEANl9ngAAAAABJRU5ErkJggg=="
EXAMPLE_CONFIDENCE = 0.97
EXAMPLE_DIGEST = "0123456789abcdef" * 4

PICTURE: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
PICTURE_TYPES = "image/png, image/jpeg, image/gif, image/webp, image/bmp, image/tiff"
EXPLAIN: Schema = {"type": "boolean", "default": False, "description": "add a heat map"}
CLIENT = {
    "name": "X-Client",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200, "pattern": "^[ -~]*$"},
    "description": "the caller's own tag, which is logged",
}
SPAN = {
    "name": "span",
    "in": "query",
    "schema": {"type": "string", "enum": list(SPANS), "default": "day"},
    "description": "how much time is shown",
}
PREDICTION_ID = {
    "name": "prediction_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "example": EXAMPLE_ID,
}


def document(
    model: Package,
    *,
    picture_url: str | None = None,
    model_name: str = MODEL_NAME,
    has_review: bool = False,
) -> dict[str, Any]:
    """Make the document of a service.

    Args:
        model: the package that is served: its classes are part of the schemas.
        picture_url: where a picture is that can be sent as an example.
        model_name: of the registered model, for examples.
        has_review: whether labels can be given on a page.
    """
    names, words = list(model.class_names), words_of(model)
    number: Schema = {"type": "number"}
    return make_document(
        [
            *_prediction_operations(model, model_name, picture_url),
            *(_review_operations(names) if has_review else ()),
            *_service_operations(model, model_name),
        ],
        title=words.title,
        description=f"Classifies {words.subject}, and logs each prediction. Errors have one shape.",
        named={
            "ClassName": {"enum": names},
            "ClassNumber": {"minimum": 0, "maximum": len(names) - 1},
            "Probabilities": object_schema(dict.fromkeys(names, number)),
        },
    )


def _prediction_operations(model: Package, model_name: str, picture_url: str | None) -> list[Operation]:
    names = list(model.class_names)
    prediction = _example_prediction(model, model_name)
    rejected = ErrorAnswer(ErrorDetail("not_an_image", "what is wrong", "what to do about it"), "notes.txt")
    form = object_schema({"image": PICTURE}, {"explain": EXPLAIN})
    table = object_schema({"table": {"type": "string", "format": "binary"}})
    forms = object_schema({"images": {"type": "array", "minItems": 1, "items": PICTURE}})
    to_try = {"examples": {"gallery": {"summary": "a picture to try", "externalValue": picture_url}}}
    csv = f"prediction_id,true_label\n{EXAMPLE_ID},{names[0]}\n"
    return [
        Operation(
            "post",
            "/predict",
            "predict",
            "Classify one picture",
            answers={200: ("The prediction", Content(PredictionAnswer, example=prediction))},
            errors=UPLOAD_ERRORS,
            bodies=(
                Content(form, "multipart/form-data", more={"encoding": {"image": {"contentType": PICTURE_TYPES}}}),
                Content(PICTURE, "image/*", more=to_try if picture_url else None),
                Content(JsonUpload, example=JsonUpload(EXAMPLE_PNG)),
            ),
            parameters=({"name": "explain", "in": "query", "schema": EXPLAIN}, CLIENT),
        ),
        Operation(
            "post",
            "/predict/batch",
            "predictBatch",
            "Classify several pictures; each has its result or its error",
            answers={200: ("The results", Content(BatchAnswer, example=BatchAnswer((prediction, rejected), 1, 1)))},
            errors=UPLOAD_ERRORS,
            bodies=(
                Content(forms, "multipart/form-data", more={"encoding": {"images": {"contentType": PICTURE_TYPES}}}),
            ),
            parameters=(CLIENT,),
        ),
        Operation(
            "post",
            "/feedback",
            "giveFeedback",
            "Say what a prediction should have been; all feedback is stored, and the last one counts",
            answers={
                201: ("Stored", Content(FeedbackAnswer, example=FeedbackAnswer(EXAMPLE_ID, names[0]))),
                200: (
                    "A table was read",
                    Content(FeedbackTableAnswer, example=FeedbackTableAnswer(1, 1, (LineError(3, "what is wrong"),))),
                ),
            },
            errors=(403, 404, *UPLOAD_ERRORS),
            bodies=(
                Content(FeedbackRequest, example=FeedbackRequest(EXAMPLE_ID, names[0])),
                Content({"type": "string"}, "text/csv", example=csv),
                Content(table, "multipart/form-data", more={"encoding": {"table": {"contentType": "text/csv"}}}),
            ),
        ),
        Operation(
            "get",
            "/predictions/{prediction_id}",
            "getPrediction",
            "Get a prediction as it was logged, with all feedback",
            answers={200: ("The record", Content(PredictionRead, example=_example_record(names, model_name)))},
            errors=(401, 404, 429, 503),
            parameters=(PREDICTION_ID,),
        ),
    ]


def _review_operations(names: list[str]) -> list[Operation]:
    errors = (400, 401, 404, 408, 413, 415, 422, 429, 503)
    said, one = ReviewRequest(EXAMPLE_ID, names[0]), ReviewedPrediction(EXAMPLE_ID)
    queue = ReviewQueue(
        tuple(names),
        (ReviewItem(EXAMPLE_ID, f"data:image/png;base64,{EXAMPLE_PNG}", "drawn at random"),),
        0,
        1,
        0,
        None,
        ReviewedKnown(47, 50),
        False,
    )
    answer = Content(ReviewAnswer, example=ReviewAnswer(EXAMPLE_ID, names[0], names[-1]))
    without_body: dict[int, tuple[str, Content | None]] = {204: ("Stored", None)}

    def post(
        path: str, name: str, summary: str, body: Content, answers: dict[int, tuple[str, Content | None]]
    ) -> Operation:
        return Operation("post", path, name, summary, answers, errors, (body,))

    return [
        _get(
            "/review", "review", "Show a page to give labels on", Content({"type": "string"}, "text/html"), READ_ERRORS
        ),
        _get(
            "/review/queue",
            "listReviews",
            "Get pictures that are worth a label",
            Content(ReviewQueue, example=queue),
            (404, *READ_ERRORS),
        ),
        post(
            "/review/label",
            "giveReview",
            "Say what a picture is",
            Content(ReviewRequest, example=said),
            {201: ("Stored", answer)},
        ),
        post(
            "/review/undo",
            "undoReview",
            "Let the last review of a prediction count no more",
            Content(ReviewedPrediction, example=one),
            without_body,
        ),
        post(
            "/review/skip",
            "skipReview",
            "Say that nobody can tell what a picture is",
            Content(ReviewedPrediction, example=one),
            without_body,
        ),
    ]


def _service_operations(model: Package, model_name: str) -> list[Operation]:
    html, plain = Content({"type": "string"}, "text/html"), Content({"type": "string"}, "text/plain")
    ready = Ready(True, "1", LogState(None, 0, 0.0, 0, (), None))
    not_ready = NotReady(False, "what is wrong with the prediction log")
    info = ModelInfo(
        name=model_name,
        version="1",
        digest=EXAMPLE_DIGEST,
        class_names=tuple(model.class_names),
        channels=model.channels,
        size=model.size,
        summary="",
        metrics=dict(model.metrics),
        architecture=model.architecture.get("name"),
        data=dict(model.data),
        lineage=dict(model.lineage),
        shadow=None,
        canary=None,
        canary_share=None,
    )
    gallery = Gallery((GalleryPicture("/gallery/0.png", model.class_names[0]),))
    report = {"id": "20260131T120000Z-v1", "url": "/monitoring/reports/20260131T120000Z-v1", "decision": "no_drift"}
    return [
        _get(
            "/model",
            "getModel",
            "Get the version that is served, its origin and its metrics",
            Content(ModelInfo, example=info),
        ),
        _get("/gallery", "listGallery", "List test pictures to try", Content(Gallery, example=gallery)),
        _get(
            "/monitoring/reports",
            "listReports",
            "List the latest drift reports, newest first",
            Content(Reports, example=Reports((report,))),  # type: ignore[arg-type]
            errors=READ_ERRORS,
        ),
        _get(
            "/monitoring",
            "monitor",
            "Show traffic over time, recent traffic, drift reports and the state of the log",
            html,
            (422, *READ_ERRORS),
            parameters=(SPAN,),
        ),
        _get(
            "/monitoring/traffic",
            "getTraffic",
            "Get the traffic of a day, a week or a month",
            Content(TrafficAnswer, example=_example_traffic()),
            (422, *READ_ERRORS),
            parameters=(SPAN,),
        ),
        _get("/", "try", "Show a page to try pictures with", html),
        Operation(
            "get",
            "/readyz",
            "ready",
            "Tell whether predictions can be made and logged",
            answers={
                200: ("Ready", Content(Ready, example=ready)),
                503: ("Not ready", Content(NotReady, example=not_ready)),
            },
        ),
        _get("/livez", "live", "Tell whether the process answers", plain),
        _get("/metrics", "measure", "Get counters and latencies for Prometheus", plain, (401,)),
    ]


def _get(
    path: str,
    name: str,
    summary: str,
    content: Content,
    errors: tuple[int, ...] = (),
    parameters: tuple[Schema, ...] = (),
) -> Operation:
    return Operation("get", path, name, summary, {200: ("The answer", content)}, errors, parameters=parameters)


def _example_traffic() -> TrafficAnswer:
    period = TrafficPeriod(
        since=EXAMPLE_TIME,
        until="2026-01-31T13:00:00+00:00",
        predictions=120,
        mean_confidence=0.93,
        latency_ms=LatencyQuantiles(3.1, 7.4, 12.0),
        compared=120,
        unlike=1,
        labels=LabelCounts(20, 19, 0.95, 0.763868, 0.991118),
        requests={"200": 120, "415": 2},
        versions=(VersionPeriod("1", EXAMPLE_DIGEST[:16], "champion", 120),),
    )
    return TrafficAnswer("day", 3600, "All predictions in this machine's log.", True, None, EXAMPLE_TIME, (period,), ())


def _example_prediction(model: Package, model_name: str) -> PredictionAnswer:
    names, mode = list(model.class_names), "L" if model.channels == 1 else "RGB"
    return PredictionAnswer(
        prediction_id=EXAMPLE_ID,
        label=names[-1],
        confidence=EXAMPLE_CONFIDENCE,
        probabilities=_example_probabilities(names),
        model=ModelVersion(model_name, "1", EXAMPLE_DIGEST),
        preprocessing=(f"read as PNG, {model.size}x{model.size}, {mode}", "used as it is"),
        prediction_set=(names[-1],),
    )


def _example_record(names: list[str], model_name: str) -> PredictionRead:
    return PredictionRead(
        prediction_id=EXAMPLE_ID,
        time=EXAMPLE_TIME,
        model_name=model_name,
        model_version="1",
        model_digest=EXAMPLE_DIGEST[:16],
        label=names[-1],
        confidence=EXAMPLE_CONFIDENCE,
        probabilities=_example_probabilities(names),
        statistics=dict.fromkeys(STATISTICS, 0.5),
        typicality=0.5,
        image_sha256="0" * 64,
        latency_ms=4.2,
        client=None,
        feedback=(FeedbackRead(names[0], "api", EXAMPLE_TIME),),
    )


def _example_probabilities(names: list[str]) -> dict[str, float]:
    others = round((1 - EXAMPLE_CONFIDENCE) / (len(names) - 1), 6)
    return dict.fromkeys(names, others) | {names[-1]: EXAMPLE_CONFIDENCE}
