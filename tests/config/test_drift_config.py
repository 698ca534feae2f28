"""What the drift flow can be told: its file composes, and whatever is wrong is refused in one sentence."""

import datetime
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fashion.config.compose import CONFIGS, as_dict, compose, load_as, parse_overrides
from fashion.config.drift import DriftConfig
from fashion.config.schema import ConfigError
from fashion.config.times import moment, seconds
from fashion.config.train import load_train_config

GROUPS = ("decision", "report", "alerts", "retrain", "resources")


def loaded(*words: str) -> DriftConfig:
    return load_as(DriftConfig, compose(words, root=DriftConfig.root))


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(*words)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return compose(root=DriftConfig.root)


class TestFile:
    def test_defaults_load(self) -> None:
        settings = loaded()
        assert (settings.window, settings.rows, settings.since, settings.source) == ("24h", None, None, "auto")
        assert settings.cron == "0 6 * * *"
        assert settings.alerts.on == (
            *("drift", "decline", "coverage", "unreadable", "unjudged", "no_traffic"),
            *("quarantine", "approval", "training", "canary", "channel", "problem"),
        )
        assert not settings.retrain.enabled

    @pytest.mark.parametrize(
        ("cron", "runs"),
        [
            ("0 6 * * *", 365),
            ("*/15 * * * *", 35_040),
            ("0 6 * * 1-5", 261),
            ("0 6 1 * *", 12),
            ("0 6 1 * 0", 63),  # the first of a month, and Sundays: one day is both
            ("0 0 29 2 *", 1),  # never in a year of 365 days
        ],
    )
    def test_runs_of_a_year_are_those_of_cron(self, cron: str, runs: int) -> None:
        assert loaded(f"cron='{cron}'").decision.runs_per_year == runs

    def test_false_alarms_of_a_year_are_divided_among_its_runs(self) -> None:
        assert loaded().decision.run_alpha == 0.01
        assert loaded("decision.false_alarms_per_year=1").decision.run_alpha == pytest.approx(1 / 365)
        assert loaded("decision.false_alarms_per_year=1", "cron='0 6 1 * *'").decision.run_alpha == 0.01
        own = loaded("decision.false_alarms_per_year=1", "decision.runs_per_year=5000")
        assert own.decision.run_alpha == pytest.approx(1 / 5000)

    def test_data_and_tracking_are_those_of_a_training(self) -> None:
        settings, training = loaded(), load_train_config(compose())
        assert (settings.data, settings.tracking) == (training.data, training.tracking)

    def test_mapping_survives_json_and_loads_again(self) -> None:
        settings = loaded("window=90m", "alerts.on=[]", "retrain.overrides='tuning=off training.seed=1'")
        mapping = json.loads(json.dumps(as_dict(settings)))
        assert load_as(DriftConfig, mapping) == settings


class TestWords:
    @pytest.mark.parametrize(
        ("word", "field", "value"),
        [
            ("window=90m", "window", "90m"),
            ("rows=1000", "rows", 1000),
            ("since=2026-11-25", "since", "2026-11-25"),
            ("since=2026-11-25T08:00", "since", "2026-11-25T08:00"),
            ("since='2026-11-25 08:00+01:00'", "since", "2026-11-25 08:00+01:00"),
            ("source=shared", "source", "shared"),
            ("source=firestore", "source", "firestore"),
            ("source=gs://bucket/predictions", "source", "gs://bucket/predictions"),
            ("source=./exported", "source", "./exported"),
            ("cron='30 8 * * 1-5'", "cron", "30 8 * * 1-5"),
            ("cron=30 8 * * 1-5", "cron", "30 8 * * 1-5"),
        ],
    )
    def test_a_window_is_told_as_people_type_it(self, word: str, field: str, value: object) -> None:
        assert getattr(loaded(word), field) == value

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (
                ["windw=7d"],
                "windw=7d: there is no key 'windw'; the configuration has alerts, canary, catch_up, cron, data, ",
            ),
            (["decision.alfa=0.1"], "decision.alfa=0.1: there is no key 'alfa'; decision has alpha, "),
            (["training.seed=1"], "training.seed=1: there is no key 'training'"),
            (["window=7"], "window: input should be a valid string, got 7"),
            (["window=null"], "window: input should be a valid string, got None"),
            (["rows=many"], "rows: input should be a valid integer"),
            (["rows=1.5"], "rows: input should be a valid integer"),
            (
                ["source=cloud"],
                "source must be 'auto', 'local', 'shared', 'firestore' or the address of an export, such",
            ),
            (
                ["source='ftp://host/predictions'"],
                "source must be 'auto', 'local', 'shared', 'firestore' or the address",
            ),
            (
                ["alerts.on=[drift,rain]"],
                "alerts.on.1 must be 'drift', 'harmful', 'decline', 'coverage', 'unreadable', 'unjudged', 'no_traf",
            ),
            (["retrain.on=[problem]"], "retrain.on.0 must be 'drift', 'harmful' or 'decline', got 'problem'"),
            (["rows=1000", "since=2026-11-25"], "give either rows or since, got 1000 and 2026-11-25"),
            (
                ["since=2026-11-25", "until=2026-11-25"],
                "since must be before until, got 2026-11-25 and 2026-11-25",
            ),
            (["data.size=7"], "data: size must be at least 8 pixels, got 7"),
            (["tracking.experiment=''"], "tracking: experiment must consist of letters, digits, spaces and . _ -"),
        ],
        ids=str,
    )
    def test_a_wrong_word_is_named_with_what_is_allowed(self, words: list[str], sentence: str) -> None:
        assert refused(*words).startswith(sentence)

    @pytest.mark.parametrize("key", ["retrain.overrides", "retrain.deploy_overrides"])
    @pytest.mark.parametrize("text", ["data.name='two words", "nonsense", "tuning=off and=1 more", "=3"])
    def test_words_for_another_flow_that_are_no_words_are_refused(
        self, key: str, text: str, composed: dict[str, Any]
    ) -> None:
        group, field = key.split(".")
        with pytest.raises(ConfigError, match="retrain: ") as caught:
            load_as(DriftConfig, {**composed, group: {**composed[group], field: text}})
        assert "\n" not in str(caught.value)

    def test_words_for_another_flow_may_be_quoted_or_missing(self) -> None:
        settings = loaded(
            "retrain.overrides='tuning=off \"data.name=two words\"'", "retrain.deploy_overrides=''"
        ).retrain
        assert parse_overrides(settings.overrides) == ["tuning=off", "data.name=two words"]
        assert parse_overrides(settings.deploy_overrides) == []


# A field, with values that are refused and values that are accepted.
BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("window", ["0h", "7", "h", "7w", "-1d", "1.5h", " 7d", "7d ", "07d", "7D", "1000000d", ""], ["1m", "24h", "7d"]),
    ("rows", [0, -1, 1.5], [None, 1, 10**6]),
    ("since", ["yesterday", "2026-13-01", "2026-11-25T25:00", ""], [None, "2026-11-25", "2026-11-25T08:00Z"]),
    ("until", ["yesterday", ""], [None, "2026-11-25", "2026-11-25T08:00Z"]),
    ("catch_up", ["7", "1w", ""], [None, "7d"]),
    ("canary", ["off", None, True], ["decide", "report"]),
    ("source", ["cloud", "Local", None, "gs:/x/y", "gs:///x"], ["auto", "shared", "az://c/p", "/folder", "./here"]),
    ("workers", [0, 1001], [1, 1000]),
    ("cron", ["", "@daily", "0 6 * *", "0 6 * * * *"], ["0 6 * * *", "*/15 * * * *"]),
    ("decision.alpha", [0, 0.5, -0.1, float("nan")], [1e-6, 0.01, 0.49]),
    ("decision.min_rows", [49, 0, -1], [50]),
    ("decision.min_labels", [9, 0, -1], [10]),
    ("decision.false_alarms_per_year", [0, -1, float("nan"), float("inf")], [None, 0.5, 12]),
    ("decision.runs_per_year", [0, -1], [None, 365]),
    ("decision.resplits", [-1], [0, 1000]),
    ("report.rows", [99, 0], [100]),
    ("report.examples", [-1, 101], [0, 100]),
    ("report.history", [-1], [0, 365]),
    ("alerts.on", [["rain"], ["drift", "rain"], "drift", None], [[], ["drift", "harmful", "decline", "problem"]]),
    ("alerts.cooldown_hours", [-0.1, float("nan")], [0, 0.5, 24]),
    ("alerts.attempts", [0, -1], [1]),
    ("alerts.timeout_s", [0, -1, float("nan")], [0.1, 60]),
    ("retrain.on", [["rain"], ["problem"], "drift"], [[], ["drift", "harmful", "decline"]]),
    ("retrain.cooldown_hours", [-0.1, float("nan")], [0, 0.5, 24]),
    ("retrain.min_new_labels", [0, -1], [1]),
    ("resources.timeout_minutes", [0, -1], [1]),
]


@pytest.mark.parametrize(("key", "wrong", "right"), BOUNDS, ids=[key for key, _, _ in BOUNDS])
def test_bounds(key: str, wrong: list[Any], right: list[Any], composed: dict[str, Any]) -> None:
    group, _, field = key.rpartition(".")

    def with_value(value: Any) -> dict[str, Any]:
        return {**composed, group: {**composed[group], field: value}} if group else {**composed, field: value}

    for value in right:
        load_as(DriftConfig, with_value(value))
    for value in wrong:
        with pytest.raises(ConfigError, match=field) as caught:
            load_as(DriftConfig, with_value(value))
        assert group in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_field_has_bounds_or_any_value_will_do(composed: dict[str, Any]) -> None:
    free = {"retrain.enabled", "retrain.deploy"}
    free |= {"retrain.overrides", "retrain.deploy_overrides"}  # refused by TestWords
    elsewhere = {"data", "tracking"}  # those of a training
    fields = {f"{group}.{field}" for group in GROUPS for field in composed[group]}
    fields |= composed.keys() - elsewhere - set(GROUPS)
    assert fields - free == {key for key, _, _ in BOUNDS}


def test_every_key_of_the_file_is_a_field_and_every_field_is_in_the_file(composed: dict[str, Any]) -> None:
    written = yaml.safe_load((CONFIGS / "drift.yaml").read_text())
    assert written.keys() - {"defaults"} | {"data", "tracking"} == composed.keys()
    defaults = as_dict(loaded())
    assert defaults.keys() == composed.keys()
    for group in GROUPS:
        assert defaults[group].keys() == written[group].keys()


class TestSeconds:
    @pytest.mark.parametrize(
        ("window", "length"),
        [("1m", 60), ("90m", 5400), ("1h", 3600), ("24h", 86400), ("7d", 604800), ("999999d", 999999 * 86400)],
    )
    def test_a_window_is_a_number_of_minutes_hours_or_days(self, window: str, length: int) -> None:
        assert seconds(window) == length

    @given(st.text(max_size=6).filter(lambda text: not (text[:-1].isdecimal() and text[-1:] in tuple("mhd"))))
    def test_anything_else_is_refused_by_name(self, text: str) -> None:
        with pytest.raises(ValueError, match="window must be a number of minutes, hours or days") as caught:
            seconds(text)
        assert str(caught.value).endswith(f"got {text}")


class TestMoment:
    @pytest.mark.parametrize(
        ("since", "hour"),
        [
            ("2026-11-25", 0),
            ("2026-11-25T08:00", 8),
            ("2026-11-25 08:00:00", 8),
            ("2026-11-25T08:00Z", 8),
            ("2026-11-25T08:00+00:00", 8),
            ("2026-11-25T08:00+02:00", 6),
            ("2026-11-24T20:00-05:00", 1),
        ],
    )
    def test_a_time_is_utc_where_it_names_no_other_zone(self, since: str, hour: int) -> None:
        assert moment(since) == datetime.datetime(2026, 11, 25, hour, tzinfo=datetime.UTC)

    @pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "2026-02-30", "25.11.2026", "1764028800", "", "7d"])
    def test_what_is_no_time_is_refused_in_one_sentence(self, since: str) -> None:
        with pytest.raises(
            ValueError, match="since must be a time such as 2026-11-25 or 2026-11-25T08:00, got"
        ) as caught:
            moment(since)
        assert str(caught.value).endswith(f", got {since}")

    @given(st.datetimes(timezones=st.just(datetime.UTC)))
    def test_what_is_written_is_read_back(self, time: datetime.datetime) -> None:
        assert moment(time.isoformat()) == time
        assert moment(time.replace(tzinfo=None).isoformat()) == time
