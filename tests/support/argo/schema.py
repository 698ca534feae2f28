"""Argo's own JSON schemas of what Metaflow writes and its events need. A field that they do not know is an error."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema


def errors(resource: Mapping[str, Any]) -> list[str]:
    """What is wrong with a resource of one of the kinds in schema.json, each with its place."""
    found = _validator(resource["kind"]).iter_errors(resource)
    return [f"{each.json_path}: {each.message}" for each in found]


@functools.cache
def _validator(kind: str) -> Any:
    schema = json.loads(Path(__file__).with_name("schema.json").read_text())
    for definition in schema["definitions"].values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    root = {"$ref": f"#/definitions/{schema['kinds'][kind]}", "definitions": schema["definitions"]}
    return jsonschema.Draft7Validator(root)
