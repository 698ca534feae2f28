"""OpenAPI documents, generated from operations and the types that they read and answer. Knows no particular service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from bentos.web.responses import ErrorAnswer, ErrorDetail, adapter

Schema = dict[str, Any]

ERRORS = {
    400: "The body cannot be read: no picture, a broken one, bad JSON, base64 or form",
    401: "The key is missing or wrong; only where keys are set",
    403: "The path takes a key here, and the service has none: /review, and /feedback from other machines",
    404: "There is no such thing",
    408: "The body did not arrive in time",
    413: "The body, the picture or the number of files is too large",
    415: "Not a picture, or a body of a type that is not read",
    422: "A field is missing, unknown or of another type",
    429: "Too many requests of this client; Retry-After says when to try again",
    503: "Overloaded, or the prediction cannot be logged; Retry-After says when to try again",
}
UPLOAD_ERRORS = (400, 401, 408, 413, 415, 422, 429, 503)
READ_ERRORS = (401, 429, 503)


@dataclass(frozen=True)
class Content:
    """One kind of body of a request or a response."""

    kind: Any
    """A type, or a schema."""
    media_type: str = "application/json"
    example: Any = None
    """A value of the type; None for none."""
    more: Mapping[str, Any] | None = None
    """More fields of OpenAPI's media type object."""


@dataclass(frozen=True)
class Operation:
    """What one endpoint reads and answers."""

    method: Literal["get", "post"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, tuple[str, Content | None]]
    """Description and body by status, but for errors; None for an answer without a body."""
    errors: tuple[int, ...] = ()
    """Statuses of `ERRORS`."""
    bodies: tuple[Content, ...] = ()
    parameters: tuple[Schema, ...] = ()


def document(
    operations: Sequence[Operation], *, title: str, description: str, named: Mapping[str, Schema]
) -> dict[str, Any]:
    """Make an OpenAPI 3.1 document.

    Args:
        operations: in the order of the document.
        title: of the API.
        description: of the API.
        named: what to add to the schemas of named types, by name: what is known only where the service runs.
    """
    error = Content(
        ErrorAnswer, example=ErrorAnswer(ErrorDetail("not_an_image", "what is wrong", "what to do about it"))
    )
    answered = [content for each in operations for _, content in each.answers.values() if content is not None]
    read = [content for each in operations for content in each.bodies]
    schemas, definitions = _schemas([*answered, error], read)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        answers: dict[int, tuple[str, Content | None]] = {**each.answers}
        answers |= {status: (ERRORS[status], error) for status in each.errors}
        operation: dict[str, Any] = {
            "operationId": each.name,
            "summary": each.summary,
            "responses": {
                str(status): {"description": text}
                | ({"content": _content([content], schemas, "serialization")} if content is not None else {})
                for status, (text, content) in answers.items()
            },
        }
        if each.parameters:
            operation["parameters"] = list(each.parameters)
        if each.bodies:
            operation["requestBody"] = {"required": True, "content": _content(each.bodies, schemas, "validation")}
        paths.setdefault(each.path, {})[each.method] = operation
    for name, schema in named.items():
        definitions[name] |= schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def object_schema(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Make the schema of an object."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


class _Generator(GenerateJsonSchema):
    """Leaves out titles of fields, which repeat their names, and defaults of fields that are left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        content = super().default_schema(schema)
        if content.get("default", ...) is None:
            del content["default"]
        return content


def _schemas(answered: Sequence[Content], read: Sequence[Content]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """Return the schema of each (type, mode), and the definitions that they refer to."""
    kinds: dict[tuple[type, JsonSchemaMode], None] = {}
    kinds |= {(each.kind, "serialization"): None for each in answered if isinstance(each.kind, type)}
    kinds |= {(each.kind, "validation"): None for each in read if isinstance(each.kind, type)}
    inputs = [((kind, mode), mode, adapter(kind).core_schema) for kind, mode in kinds]
    generator = _Generator(ref_template="#/components/schemas/{model}")
    found, definitions = generator.generate_definitions(inputs)
    return {key: schema for (key, _), schema in found.items()}, {
        str(name): schema for name, schema in definitions.items()
    }


def _content(
    contents: Sequence[Content], schemas: Mapping[Any, Schema], mode: JsonSchemaMode
) -> dict[str, dict[str, Any]]:
    described = {}
    for each in contents:
        entry: dict[str, Any] = {"schema": schemas[each.kind, mode] if isinstance(each.kind, type) else each.kind}
        if each.example is not None:
            entry["example"] = adapter(type(each.example)).dump_python(each.example, mode="json")
        described[each.media_type] = entry | dict(each.more or {})
    return described
