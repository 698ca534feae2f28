"""API keys."""

import base64

import pytest
from starlette.datastructures import Headers

from bentos.web.auth import VARIABLES, Keys
from bentos.web.responses import ApiError


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


class TestKeys:
    def test_scopes_without_keys_are_open(self) -> None:
        keys = Keys({})
        for scope in VARIABLES:
            keys.check(scope, Headers({}))

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Bearer first"},
            {"authorization": "bearer second"},
            {"x-api-key": "second"},
            {"authorization": basic("first")},
        ],
    )
    def test_each_key_of_a_scope_is_accepted_and_names_the_client(self, headers: dict[str, str]) -> None:
        key = Keys({"FASHION_PREDICT_KEYS": "first, second"}).check("predict", Headers(headers))
        assert key in {"first", "second"}

    def test_an_open_scope_ignores_keys(self) -> None:
        assert Keys({}).check("predict", Headers({"x-api-key": "anything"})) == ""

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer third"},
            {"authorization": "Bearer "},
            {"authorization": "Bearer firs"},
            {"authorization": "Basic ***"},
            {"authorization": "Basic kéy"},
            {"authorization": "first"},
            {"x-api-key": ""},
            {"x-api-key": "kéy"},
        ],
    )
    def test_any_other_key_is_rejected(self, headers: dict[str, str]) -> None:
        with pytest.raises(ApiError) as caught:
            Keys({"FASHION_PREDICT_KEYS": "first,second,"}).check("predict", Headers(headers))
        assert caught.value.status == 401
        assert "FASHION_PREDICT_KEYS" in caught.value.remedy

    def test_a_key_opens_its_own_scope_only(self) -> None:
        keys = Keys({"FASHION_PREDICT_KEYS": "a", "FASHION_MONITORING_KEYS": "b"})
        with pytest.raises(ApiError) as caught:
            keys.check("monitoring", Headers({"x-api-key": "a"}))
        assert caught.value.headers["www-authenticate"].startswith("Basic")  # a browser asks for it
        keys.check("feedback", Headers({}))
