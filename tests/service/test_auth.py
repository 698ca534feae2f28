"""API keys, and the limit of requests a minute."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from bentos.web.auth import VARIABLES, Keys, RateLimit
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


class TestRateLimit:
    def test_without_a_limit_every_request_passes(self) -> None:
        limit = RateLimit(None)
        for _ in range(1000):
            limit.take("a")

    @given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 100))
    def test_no_minute_holds_more_than_a_burst_and_the_refill(self, pauses: list[float], per_minute: int) -> None:
        now = 0.0
        limit = RateLimit(per_minute, clock=lambda: now)
        accepted = []
        for pause in pauses:
            now += pause
            try:
                limit.take("a")
            except ApiError as error:
                assert error.status == 429
                assert 1 <= int(error.headers["retry-after"]) <= 61
            else:
                accepted.append(now)
        for start in accepted:
            assert sum(start <= each < start + 60 for each in accepted) <= 2 * per_minute

    def test_the_next_request_passes_after_the_time_of_retry_after(self) -> None:
        now = 0.0
        limit = RateLimit(6, clock=lambda: now)
        for _ in range(6):
            limit.take("a")
        with pytest.raises(ApiError) as caught:
            limit.take("a")
        limit.take("b")  # clients do not share
        now += int(caught.value.headers["retry-after"])
        limit.take("a")

    def test_idle_clients_are_dropped_from_memory(self) -> None:
        now = 0.0
        limit = RateLimit(6, clock=lambda: now)
        for number in range(1000):
            limit.take(str(number))
        now += 1000
        limit.take("new")
        assert len(limit) == 1
