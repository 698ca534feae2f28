"""The OpenAPI document against the served bento: schemathesis generates requests from it."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.pictures import bad_pictures, good_pictures
from support.served import Served

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BODIES = [*good_pictures().values(), *[data for data, _ in bad_pictures().values()]]
KINDS = ["image/png", "application/json", "multipart/form-data; boundary=x", "text/csv", "text/plain", ""]


@pytest.fixture
def schema(service: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_answers_match_the_document(schema: schemathesis.BaseSchema) -> None:
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 13
    for operation in operations:

        @settings(max_examples=20, deadline=None, suppress_health_check=QUIET, database=None)
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        check()


def test_a_record_matches_the_document(schema: schemathesis.BaseSchema, service: Served, pngs: list[bytes]) -> None:
    prediction_id = service.predict(pngs[0])["prediction_id"]
    service.json("POST", "/feedback", {"prediction_id": prediction_id, "true_label": "Coat"})
    case = schema["/predictions/{prediction_id}"]["GET"].Case(path_parameters={"prediction_id": prediction_id})
    assert case.call_and_validate(checks=CHECKS).status_code == 200


def test_the_picture_to_try_can_be_sent(schema: schemathesis.BaseSchema, service: Served) -> None:
    body = schema.raw_schema["paths"]["/predict"]["post"]["requestBody"]["content"]["image/*"]
    status, _, picture = service.request("GET", body["examples"]["gallery"]["externalValue"])
    assert status == 200
    assert service.predict(picture)["preprocessing"][-1] == "used as it is"


@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(st.data())
def test_no_body_causes_a_server_error(service: Served, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(["/predict", "/predict/batch", "/feedback", "/predict?explain=true"]))
    kind = data.draw(st.sampled_from(KINDS))
    content = data.draw(st.sampled_from(BODIES) | st.binary(max_size=200) | st.text().map(lambda t: t.encode()))[:5000]
    if data.draw(st.booleans()):
        content = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + content + b"\r\n--x--"
    at = data.draw(st.integers(0, len(content)))
    content = content[:at] + data.draw(st.binary(max_size=8)) + content[at:]
    status, _, answer = service.request("POST", path, content, {"content-type": kind})
    assert status < 500, answer
    if status >= 400:
        assert set(json.loads(answer)["error"]) == {"code", "message", "remedy"}
