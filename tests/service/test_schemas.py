"""What the service answers as JSON, and that the OpenAPI document of these types holds for their examples."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs  # schemathesis brings it
import pytest

from bentos.classifier import openapi
from bentos.classifier.schemas import FeedbackRequest, LogState, ModelVersion, PredictionAnswer, Ready
from bentos.web.docs import page
from bentos.web.html import Site
from bentos.web.responses import ApiError, ErrorAnswer, adapter, error_response, json_response
from bentos.web.uploads import read_json
from fashion.model.package import Package


@pytest.fixture(scope="module")
def document(tiny_package: Package) -> dict[str, Any]:
    return openapi.document(tiny_package, picture_url="/gallery/0.png", has_review=True)


def examples(document: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (where, schema, example) of each body in the document."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            bodies = [response.get("content", {}) for response in operation["responses"].values()]
            bodies += [operation["requestBody"]["content"]] if "requestBody" in operation else []
            for body in bodies:
                for media_type, content in body.items():
                    if "example" in content:
                        yield f"{path} {media_type}", content["schema"], content["example"]


def test_each_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for where, schema, example in examples(document):
        whole = {**schema, "components": document["components"]}
        errors = [error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(example)]
        assert errors == [], where
        checked += 1
    assert checked > 20


def test_labels_and_probabilities_are_those_of_the_model(document: dict[str, Any], tiny_package: Package) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ClassName"]["enum"] == list(tiny_package.class_names)
    assert schemas["Probabilities"]["required"] == list(tiny_package.class_names)
    assert schemas["PredictionAnswer"]["properties"]["label"]["$ref"] == "#/components/schemas/ClassName"


def test_descriptions_are_the_docstrings_of_the_fields(document: dict[str, Any]) -> None:
    confidence = document["components"]["schemas"]["PredictionAnswer"]["properties"]["confidence"]
    assert confidence["description"] == "Calibrated probability of the label."


def test_fields_without_a_value_are_left_out() -> None:
    answer = PredictionAnswer("id", "Coat", 0.5, {"Coat": 0.5}, ModelVersion("fashion", "1", "0" * 64), ())
    names = ["prediction_id", "label", "confidence", "probabilities", "model", "preprocessing"]
    assert list(json.loads(json_response(answer).body)) == names


def test_fields_that_may_be_null_are_not_left_out() -> None:
    answer = Ready(True, "1", LogState(None, 0, 0.0, 0, (), None))
    log = json.loads(json_response(answer).body)["log"]
    assert log["ships_to"] is None
    assert log["problem"] is None


def test_an_error_is_answered_in_one_shape() -> None:
    response = error_response(ApiError(413, "too_large", "it is large", "send less", {"retry-after": "1"}))
    assert (response.status_code, response.headers["retry-after"]) == (413, "1")
    assert json.loads(response.body) == {
        "error": {"code": "too_large", "message": "it is large", "remedy": "send less"}
    }
    assert adapter(ErrorAnswer).validate_json(response.body).error.code == "too_large"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is not JSON: "),
        (b"[]", 422, "the body must be an object, got list"),
        (b'{"prediction_id": "x"}', 422, "true_label is missing"),
        (b'{"prediction_id": "x", "true_label": 1.5}', 422, "true_label must not be 1.5"),
        (b'{"prediction_id": "x", "true_label": true}', 422, "true_label must not be true"),
        (b'{"prediction_id": "x", "true_label": 1, "other": 1}', 422, "there is no field 'other'"),
    ],
)
def test_a_request_that_does_not_fit_its_type_is_one_sentence(body: bytes, status: int, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        read_json(body, FeedbackRequest)
    assert caught.value.status == status
    assert "prediction_id, true_label, source" in caught.value.remedy


def test_the_page_escapes_what_it_shows(document: dict[str, Any]) -> None:
    text = page(Site("<b>", {"&": "/"}), document, "http://x/<script>")
    assert "<b>" not in text
    assert "/<script>" not in text
