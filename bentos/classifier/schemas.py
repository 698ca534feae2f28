"""What the service reads and answers as JSON. The OpenAPI document is generated from these types; they know no HTTP."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType, TypedDict

from bentos.web.responses import REQUEST, Documented, ErrorAnswer, OptionalFlag, OptionalNumber, OptionalText
from fashion.images.statistics import STATISTICS
from fashion.model.package import Metric

# Named types: the OpenAPI document narrows them to the classes of the model that is served.
ClassName = TypeAliasType("ClassName", str)
ClassNumber = TypeAliasType("ClassNumber", int)
Probabilities = TypeAliasType("Probabilities", dict[str, float])

Uuid7 = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Statistics = Annotated[
    dict[str, float],
    WithJsonSchema({"type": "object", "required": list(STATISTICS), "additionalProperties": {"type": "number"}}),
]
PredictionSet = Annotated[
    tuple[ClassName, ...] | None,
    WithJsonSchema({"type": "array", "items": {"$ref": "#/components/schemas/ClassName"}, "minItems": 1}),
    Field(exclude_if=lambda value: value is None),
]
"""Classes, left out of the JSON where it is None."""
StoredIn = Annotated[OptionalText, WithJsonSchema({"type": "string", "enum": ["firestore", "postgresql", "disk"]})]
"""Where the record is at the time of the answer; left out where that is not waited for."""


def data_url(png: bytes) -> str:
    """Encode a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@dataclass(frozen=True)
class FeedbackRequest(Documented):
    """What a prediction should have been."""

    __pydantic_config__: ClassVar[ConfigDict] = REQUEST

    prediction_id: Uuid7
    """Of the answer that it is about."""
    true_label: ClassName | ClassNumber
    """The right class, by name; or by number, from 0, where no class is called by a number."""
    source: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 50})] = "api"
    """Who says so."""


@dataclass(frozen=True, slots=True)
class ModelVersion(Documented):
    """The registered version that answered."""

    name: str
    version: str
    digest: str
    """sha256 of the version's package: versions of equal number may be of different registries."""


@dataclass(frozen=True, slots=True)
class PredictionAnswer(Documented):
    """The class of one picture."""

    prediction_id: Uuid7
    """Names the prediction in feedback and in the log."""
    label: ClassName
    """The most probable class."""
    confidence: Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 1})]
    """Calibrated probability of the label."""
    probabilities: Probabilities
    """Calibrated probability of each class; they sum to 1."""
    model: ModelVersion
    preprocessing: tuple[str, ...]
    """What was done to the picture before the network saw it, in order."""
    typical: OptionalFlag = None
    """False if the picture is unlike anything that the model has learnt: its label means nothing then. Left out by
    models that cannot tell."""
    typicality: OptionalNumber = None
    """Share of the held-out pictures that are less usual than this one: evenly distributed for usual pictures."""
    prediction_set: PredictionSet = None
    """The classes that together hold the true one in `serve.coverage` of the cases, most probable first: of pictures
    like those that the model was tested on, whatever their true class. Left out by models that cannot tell."""
    heat_map: OptionalText = None
    """With explain: what the prediction rests on, as a PNG data URL."""
    picture: OptionalText = None
    """With explain: what the network saw, as a PNG data URL."""
    stored_in: StoredIn = None
    """With acknowledge=remote: where the record is now."""
    filename: OptionalText = None
    """Name of the file, in the answer to a batch."""


@dataclass(frozen=True, slots=True)
class BatchAnswer(Documented):
    """The result or the error of each file."""

    results: tuple[PredictionAnswer | ErrorAnswer, ...]
    """In the order of the files."""
    predicted: int
    """Files with a prediction."""
    refused: int
    """Files with an error."""
    stored_in: StoredIn = None
    """With acknowledge=remote: where the records are now."""


@dataclass(frozen=True, slots=True)
class FeedbackAnswer(Documented):
    """Feedback that was stored."""

    prediction_id: Uuid7
    true_label: ClassName
    stored_in: StoredIn = None
    """With acknowledge=remote: where the feedback is now."""


@dataclass(frozen=True)
class ReviewRequest(Documented):
    """What a picture is, by somebody who has the key of the review."""

    __pydantic_config__: ClassVar[ConfigDict] = REQUEST

    prediction_id: Uuid7
    true_label: ClassName


@dataclass(frozen=True)
class ReviewedPrediction(Documented):
    """Whose last review counts no more, or whose picture nobody can label."""

    __pydantic_config__: ClassVar[ConfigDict] = REQUEST

    prediction_id: Uuid7


@dataclass(frozen=True, slots=True)
class ReviewAnswer(Documented):
    """A review that was stored."""

    prediction_id: Uuid7
    true_label: ClassName
    predicted: ClassName
    """What the model had said, which is not shown before."""


@dataclass(frozen=True, slots=True)
class ReviewItem(Documented):
    """A picture to label."""

    prediction_id: Uuid7
    picture: str
    """What the network saw, as a PNG data URL."""
    why: str
    """Why it is worth a label."""


@dataclass(frozen=True, slots=True)
class ReviewAccuracy(Documented):
    """Accuracy of all the predictions, by those that were drawn at random."""

    accuracy: float
    low: float
    """Lower bound of the 95 % interval."""
    high: float
    drawn: int
    """Predictions that were drawn at random and judged."""
    predictions: int
    """Predictions that this is the accuracy of."""


@dataclass(frozen=True, slots=True)
class ReviewedKnown(Documented):
    """How well pictures were labelled whose class is known: a few of the data set's are among those to review."""

    right: int
    pictures: int
    """In steps of ten, the oldest first."""


@dataclass(frozen=True, slots=True)
class ReviewQueue(Documented):
    """What to label next."""

    class_names: tuple[str, ...]
    items: tuple[ReviewItem, ...]
    judged: int
    """Of the latest predictions, those on pictures that were reviewed."""
    predictions: int
    """The latest predictions whose pictures are stored, as far as that was looked for."""
    without_picture: int
    accuracy: ReviewAccuracy | None
    """None until a prediction that was drawn at random is judged."""
    known: ReviewedKnown | None
    """None until ten pictures of a known class were labelled."""
    quarantined: bool
    """True while reviews count nowhere, since too many pictures of a known class were labelled wrong."""


@dataclass(frozen=True, slots=True)
class LineError(Documented):
    """Why one line of a table was rejected."""

    line: int
    """From 1; the first line holds the names of the columns."""
    message: str


@dataclass(frozen=True, slots=True)
class FeedbackTableAnswer(Documented):
    """The outcome of a table of feedback."""

    accepted: int
    """Rows that were stored."""
    refused: int
    """Rows that were not."""
    errors: tuple[LineError, ...]
    """At most 100 of the errors."""
    stored_in: StoredIn = None
    """With acknowledge=remote: where the feedback is now."""


@dataclass(frozen=True, slots=True)
class FeedbackRead(Documented):
    """One piece of feedback on a prediction."""

    true_label: str
    """A class name, or a class number of a model that is not served here."""
    source: str
    time: Moment


@dataclass(frozen=True, slots=True)
class PredictionRead(Documented):
    """A prediction as it was logged."""

    prediction_id: Uuid7
    time: Moment
    model_name: str | None
    """The registered model; null in predictions of before logs held names."""
    model_version: str
    model_digest: str | None
    """The first digits of the digest of the version's package; null likewise."""
    label: str
    """A class name, or a class number of a model that is not served here."""
    confidence: float
    probabilities: dict[str, float]
    statistics: Statistics
    """Numbers that describe the picture; drift is tested on them."""
    typicality: float | None
    """Share of the held-out pictures that are less usual than this one, by the version that answered; null where that
    version is not loaded here, or cannot tell."""
    image_sha256: str
    """Of the pixels that the network saw."""
    latency_ms: float
    """From the arrival of the request to the log."""
    client: str | None
    """The X-Client header of the request."""
    feedback: tuple[FeedbackRead, ...]
    """Oldest first; the last one counts, or the last of a review."""


@dataclass(frozen=True, slots=True)
class ModelInfo(Documented):
    """The version that is served."""

    name: str
    version: str
    digest: str
    """sha256 of the version's package."""
    class_names: tuple[str, ...]
    channels: int
    size: int
    """Edge of what the network sees, in pixels."""
    summary: str
    metrics: dict[str, Metric]
    """Each with its confidence interval, where one was computed."""
    architecture: str | None
    data: dict[str, Any]
    lineage: dict[str, Any]
    shadow: str | None
    """The version that scores every picture too, without answering."""
    canary: str | None
    """The version that answers a share of the clients; null once it was stepped back from."""
    canary_share: float | None
    """Of the clients that it answers; of the pictures where clients send no X-Client."""


@dataclass(frozen=True, slots=True)
class LogState(Documented):
    """What of the prediction log is not in the shared log yet."""

    ships_to: str | None
    backlog_rows: int
    backlog_seconds: float
    """Age of the oldest row that waits."""
    refused_rows: int
    refused_because: tuple[str, ...]
    problem: str | None
    """What keeps rows from being shipped now."""


@dataclass(frozen=True, slots=True)
class Ready(Documented):
    """Predictions can be made and logged."""

    ready: Literal[True]
    model_version: str
    log: LogState


@dataclass(frozen=True, slots=True)
class NotReady(Documented):
    """Predictions cannot be logged now."""

    ready: Literal[False]
    problem: str


@dataclass(frozen=True, slots=True)
class GalleryPicture(Documented):
    """A test picture to try the service with."""

    url: str
    label: str


@dataclass(frozen=True, slots=True)
class Gallery(Documented):
    """Test pictures to try the service with."""

    images: tuple[GalleryPicture, ...]


class Report(TypedDict):
    """A drift report: where its page is, and the fields of its result."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]  # pydantic reads it

    id: str
    url: str
    decision: str


@dataclass(frozen=True, slots=True)
class Reports(Documented):
    """Drift reports."""

    reports: tuple[Report, ...]
    """Newest first."""


@dataclass(frozen=True, slots=True)
class LatencyQuantiles(Documented):
    """Milliseconds from a request's arrival to the log, within 9 %."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class LabelCounts(Documented):
    """What feedback says. People chose what to label: this is not the accuracy of all predictions."""

    labelled: int
    right: int
    accuracy: OptionalNumber = None
    low: OptionalNumber = None
    """End of Wilson's 95 % interval."""
    high: OptionalNumber = None
    """End of Wilson's 95 % interval."""


@dataclass(frozen=True, slots=True)
class VersionPeriod(Documented):
    """A version in one period."""

    version: str
    digest: str | None
    role: str
    predictions: int


@dataclass(frozen=True, slots=True)
class TrafficPeriod(Documented):
    """What is known of one period, of the served model in all versions that answered."""

    since: Moment
    until: Moment
    predictions: int
    mean_confidence: OptionalNumber
    latency_ms: LatencyQuantiles | None
    compared: int
    """Pictures that were compared with what their version has learnt."""
    unlike: int
    """Of these, those that are unlike it."""
    labels: LabelCounts
    requests: dict[str, int]
    """HTTP status -> requests for predictions that services of this machine answered with it."""
    versions: tuple[VersionPeriod, ...]


@dataclass(frozen=True, slots=True)
class TrafficAnswer(Documented):
    """Traffic over time."""

    span: Annotated[str, Field(json_schema_extra={"enum": ["day", "week", "month"]})]
    step_seconds: int
    source: str
    """Whose rows are counted."""
    complete: bool
    """False while rows are being counted."""
    problem: str | None
    requests_since: Moment | None
    """From when on requests are counted; null if none was."""
    periods: tuple[TrafficPeriod, ...]
    """The oldest first; the last one is under way."""
    reports: tuple[Report, ...]
    """Drift reports of this time, newest first, of the latest 50."""
