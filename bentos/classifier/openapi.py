"""The OpenAPI document of the front's endpoints, and a page that shows it. Knows what goes in and out, not how."""

import html
import json
from typing import Any

from bentos.web.html import sheet
from fashion.images.statistics import STATISTICS
from fashion.model.package import Package

EXAMPLE_ID = "019a0c3e-5f2b-7c1d-8e4f-0123456789ab"
# One white pixel: the smallest picture that can be tried.
EXAMPLE_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEANl9ngAAAAABJRU5ErkJggg=="
KEPT = {"type": "string", "enum": ["firestore", "disk"], "description": "with acknowledge: remote"}
IDS = {"type": "string", "description": "a uuid7", "example": EXAMPLE_ID}
TIME = {"type": "string", "format": "date-time"}
TEXT = {"type": "string"}
CLIENT = {
    "name": "X-Client",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200, "pattern": "^[ -~]*$"},
    "description": "an opaque tag that is logged",
}
PICTURES = "image/png, image/jpeg, image/gif, image/webp, image/bmp, image/tiff"
ERRORS = {
    "400": "The body cannot be read: no picture, a broken one, bad JSON, base64 or form",
    "401": "The key is missing or wrong; only where keys are set",
    "404": "There is no such thing",
    "405": "The path has no such method",
    "408": "The body did not arrive in time",
    "413": "The body, the picture or the number of files is too large",
    "415": "Not a picture, or a body of another type than those that are read",
    "422": "A field is missing, unknown or of another type",
    "429": "Too many requests of this client; Retry-After says when to try again",
    "503": "Overloaded, or the prediction cannot be kept; Retry-After says when to try again",
}


UPLOAD_ERRORS = ("400", "401", "408", "413", "415", "422", "429", "503")


def document(of: Package, *, picture_url: str | None = None) -> dict[str, Any]:
    """OpenAPI 3.1; `picture_url` is where a picture lies that can be sent as an example."""
    first, *_, last = of.class_names
    label = {"type": "string", "enum": list(of.class_names), "example": last}
    likely = 0.97
    spread = {name: round((1 - likely) / (len(of.class_names) - 1), 6) for name in of.class_names} | {last: likely}
    prediction = _object(
        {
            "prediction_id": IDS,
            "label": label,
            "confidence": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "calibrated",
                "example": likely,
            },
            "probabilities": {
                **_object({name: {"type": "number"} for name in of.class_names}),
                "description": "one a class, calibrated; together 1",
                "example": spread,
            },
            "model": _object({"name": {"type": "string"}, "version": {"type": "string"}}),
            "preprocessing": {
                "type": "array",
                "items": {"type": "string"},
                "description": "what was done to the picture before the network saw it",
            },
        },
        optional={
            "heat_map": _png("what the prediction rests on; with explain"),
            "picture": _png("what the network saw; with explain"),
            "kept": KEPT,
        },
    )
    picture = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    explain = {"type": "boolean", "default": False, "description": "add a heat map"}
    feedback = _object({"prediction_id": IDS, "true_label": label}, optional={"kept": KEPT})
    report = _object({name: {"type": "string"} for name in ("id", "url", "decision")})
    ready = _object({"ready": {"const": True}, "model_version": {"type": "string"}, "log": {"type": "object"}})
    not_ready = _object({"ready": {"const": False}, "problem": {"type": "string"}})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fashion",
            "version": "1",
            "description": "Pictures of clothes to classes, each prediction kept. Errors have one shape.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/predict": {
                "post": _operation(
                    "predict",
                    "Classify one picture",
                    body={
                        "multipart/form-data": {
                            "schema": _object(
                                {"image": {**picture, "description": "may be called bmp_data, as it once was"}},
                                optional={"explain": explain},
                            ),
                            "encoding": {"image": {"contentType": PICTURES}},
                        },
                        "image/*": {"schema": picture, **_example(picture_url)},
                        "application/json": {
                            "schema": {
                                **_object(
                                    {
                                        "image": {
                                            "type": "string",
                                            "contentEncoding": "base64",
                                            "description": "a picture, or a data URL",
                                        }
                                    },
                                    optional={"explain": explain},
                                ),
                                "additionalProperties": False,
                            },
                            "example": {"image": EXAMPLE_PNG},
                        },
                    },
                    parameters=[
                        {"name": "explain", "in": "query", "schema": explain},
                        CLIENT,
                    ],
                    answers={"200": ("The prediction", prediction)},
                    errors=UPLOAD_ERRORS,
                )
            },
            "/predict/batch": {
                "post": _operation(
                    "predictBatch",
                    "Classify several pictures; each has its result or its error",
                    body={
                        "multipart/form-data": {
                            "schema": _object({"images": {"type": "array", "minItems": 1, "items": picture}}),
                            "encoding": {"images": {"contentType": PICTURES}},
                        }
                    },
                    parameters=[CLIENT],
                    answers={
                        "200": (
                            "Results in the order of the files",
                            _object(
                                {
                                    "results": {
                                        "type": "array",
                                        "items": {"anyOf": [prediction, {"$ref": "#/components/schemas/Error"}]},
                                    },
                                    "predicted": {"type": "integer"},
                                    "refused": {"type": "integer"},
                                },
                                optional={"kept": KEPT},
                            ),
                        )
                    },
                    errors=UPLOAD_ERRORS,
                )
            },
            "/feedback": {
                "post": _operation(
                    "giveFeedback",
                    "Say what a prediction should have been; the last word counts, all are kept",
                    body={
                        "application/json": {
                            "schema": {
                                **_object(
                                    {
                                        "prediction_id": IDS,
                                        "true_label": {
                                            "anyOf": [
                                                label,
                                                {"type": "integer", "minimum": 0, "maximum": len(of.class_names) - 1},
                                            ]
                                        },
                                    },
                                    optional={"source": {"type": "string", "minLength": 1, "maxLength": 50}},
                                ),
                                "additionalProperties": False,
                            },
                            "example": {"prediction_id": EXAMPLE_ID, "true_label": first},
                        },
                        "text/csv": {
                            "schema": {"type": "string"},
                            "example": f"prediction_id,true_label\n{EXAMPLE_ID},{first}\n",
                        },
                    },
                    answers={
                        "201": ("Kept", feedback),
                        "200": (
                            "A table was read",
                            _object(
                                {
                                    "accepted": {"type": "integer"},
                                    "refused": {"type": "integer"},
                                    "errors": {
                                        "type": "array",
                                        "items": _object({"line": {"type": "integer"}, "message": {"type": "string"}}),
                                    },
                                },
                                optional={"kept": KEPT},
                            ),
                        ),
                    },
                    errors=("404", *UPLOAD_ERRORS),
                )
            },
            "/predictions/{prediction_id}": {
                "get": _operation(
                    "getPrediction",
                    "A prediction as it was logged, with all feedback",
                    parameters=[{"name": "prediction_id", "in": "path", "required": True, "schema": IDS}],
                    answers={"200": ("The record", _record(label, spread))},
                    errors=("401", "404", "429", "503"),
                )
            },
            "/model": {
                "get": _operation(
                    "getModel",
                    "Which version serves, where it came from, how good it is",
                    answers={"200": ("The version", _version())},
                )
            },
            "/monitoring/reports": {
                "get": _operation(
                    "listReports",
                    "Drift reports, newest first",
                    answers={"200": ("The reports", _object({"reports": {"type": "array", "items": report}}))},
                    errors=("401", "429", "503"),
                )
            },
            "/monitoring": {
                "get": _operation(
                    "monitor",
                    "Recent traffic, the latest drift reports and the state of the log, for people",
                    answers={"200": ("A page", TEXT, "text/html")},
                    errors=("401", "429", "503"),
                )
            },
            "/": {
                "get": _operation("try", "A page to try pictures with", answers={"200": ("A page", TEXT, "text/html")})
            },
            "/readyz": {
                "get": _operation(
                    "ready",
                    "Whether predictions can be given and kept",
                    answers={"200": ("Ready", ready), "503": ("Not ready", not_ready)},
                )
            },
            "/livez": {
                "get": _operation(
                    "live", "Whether the process answers at all", answers={"200": ("It does", TEXT, "text/plain")}
                )
            },
            "/metrics": {
                "get": _operation(
                    "measure",
                    "Counters and times, for Prometheus",
                    answers={"200": ("Metrics", TEXT, "text/plain")},
                    errors=("401",),
                )
            },
        },
        "components": {
            "schemas": {
                "Error": _object(
                    {
                        "error": _object(
                            {
                                "code": {"type": "string"},
                                "message": {"type": "string", "description": "what is wrong, naming the value"},
                                "remedy": {"type": "string", "description": "what to do about it"},
                            }
                        )
                    }
                )
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def page(content: dict[str, Any], base: str) -> str:
    """The document for a person: each endpoint with what it takes, and a command to try it."""
    lead = '<a href="/openapi.json">openapi.json</a> describes it for machines.'
    lines = []
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            lines.append(f"<section><h2>{html.escape(f'{method.upper()} {path}')}</h2>")
            lines.append(f"<p>{html.escape(operation['summary'])}.</p>")
            lines += [f"<pre>{html.escape(each)}</pre>" for each in _commands(base, path, method, operation)]
            told = "".join(
                f"<tr><th scope='row'>{status}</th><td>{html.escape(each['description'])}</td></tr>"
                for status, each in operation["responses"].items()
            )
            lines.append(f"<details><summary>Answers</summary><table>{told}</table></details></section>")
    error = {"error": {"code": "not_an_image", "message": "what is wrong", "remedy": "what to do about it"}}
    lines.append(f"<section><h2>Errors</h2><pre>{html.escape(json.dumps(error, indent=1))}</pre></section>")
    return sheet("API", lead, lines)


def _commands(base: str, path: str, method: str, operation: dict[str, Any]) -> list[str]:
    if method == "get":
        return [f"curl {base}{path.replace('{prediction_id}', EXAMPLE_ID)}"]
    commands = []
    for kind, body in operation["requestBody"]["content"].items():
        if kind == "multipart/form-data":
            fields = body["schema"]["properties"]
            names = [name for name in ("image", "images") if name in fields]
            commands.append(f"curl {base}{path} " + " ".join(f"-F {name}=@picture.png" for name in names))
        elif kind == "application/json":
            given = json.dumps(body["example"])
            commands.append(f"curl {base}{path} -H 'content-type: application/json' -d '{given}'")
        elif kind == "text/csv":
            commands.append(f"curl {base}{path} -H 'content-type: text/csv' --data-binary @feedback.csv")
        else:
            commands.append(f"curl {base}{path} -H 'content-type: image/png' --data-binary @picture.png")
    return commands


def _operation(
    name: str,
    summary: str,
    *,
    answers: dict[str, tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], str]],
    errors: tuple[str, ...] = (),
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    told = {status: _response(*answer) for status, answer in answers.items()}
    told |= {status: _response(ERRORS[status], {"$ref": "#/components/schemas/Error"}) for status in errors}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": told}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _response(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _object(required: dict[str, Any], *, optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _png(text: str) -> dict[str, Any]:
    return {"type": "string", "description": f"{text}: PNG as a data URL"}


def _example(url: str | None) -> dict[str, Any]:
    return {} if url is None else {"examples": {"gallery": {"summary": "a picture to try", "externalValue": url}}}


def _record(label: dict[str, Any], spread: dict[str, float]) -> dict[str, Any]:
    said = _object({"true_label": label, "source": {"type": "string"}, "time": TIME})
    numbers = {"type": "number"}
    return _object(
        {
            "prediction_id": IDS,
            "time": TIME,
            "model_version": {"type": "string"},
            "label": label,
            "confidence": numbers,
            "probabilities": {**_object(dict.fromkeys(spread, numbers)), "example": spread},
            "statistics": _object(dict.fromkeys(STATISTICS, numbers)),
            "image_sha256": {"type": "string", "description": "of the pixels that the network saw"},
            "latency_ms": numbers,
            "client": {"type": ["string", "null"]},
            "feedback": {"type": "array", "items": said, "description": "oldest first; the last counts"},
        }
    )


def _version() -> dict[str, Any]:
    words, perhaps = {"type": "string"}, {"type": ["number", "null"]}
    return _object(
        {
            "name": words,
            "version": words,
            "class_names": {"type": "array", "items": words},
            "channels": {"type": "integer"},
            "size": {"type": "integer", "description": "edge of what the network sees, in pixels"},
            "summary": words,
            "metrics": {
                "type": "object",
                "additionalProperties": _object({"value": {"type": "number"}, "low": perhaps, "high": perhaps}),
            },
            "architecture": {"type": ["string", "null"]},
            "data": {"type": "object"},
            "lineage": {"type": "object"},
            "shadow": {"type": ["string", "null"], "description": "the version that is tried beside it"},
        }
    )
