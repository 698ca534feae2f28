"""Configuration: every file composes, and whatever is wrong is refused in one sentence that says what is allowed."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fashion.config.compose import CONFIGS, as_dict, compose, load_as, parse_overrides
from fashion.config.schema import ConfigError
from fashion.config.serve import ServeConfig
from fashion.config.train import Distribution, TrainConfig, is_shipped, load_train_config

FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "deploy")


def loaded(*words: str) -> TrainConfig:
    return load_train_config(compose(words))


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(*words)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


class TestFiles:
    def test_defaults_load(self) -> None:
        settings = loaded()
        assert settings.architecture.name == "convnet"
        assert settings.optimizer == settings.optimizers["muon"]
        assert settings.data.class_names[9] == "Ankle boot"
        assert set(settings.optimizers) == {"sgd", "adamw", "muon"}

    @pytest.mark.parametrize("file", FILES, ids=str)
    def test_every_file_loads(self, file: Path) -> None:
        loaded(f"{file.parent}={file.stem}")

    def test_an_architecture_brings_its_optimizer_its_training_and_its_search(self) -> None:
        settings = loaded("architecture=resnet")
        assert settings.optimizer == settings.optimizers["sgd"]
        assert settings.training.gradient_clip_norm == 5.0
        assert "drop_path_rate" in settings.search.architecture
        assert "drop_path_rate" not in loaded("architecture=vgg").search.architecture

    def test_a_study_varies_stochastic_depth_where_a_network_has_it(self) -> None:
        for file in (CONFIGS / "architecture").glob("*.yaml"):
            settings = loaded(f"architecture={file.stem}")
            has_depth = settings.architecture.drop_path_rate is not None
            assert ("drop_path_rate" in settings.search.architecture) == has_depth, file.stem

    def test_an_architecture_repeats_no_default(self) -> None:
        defaults = yaml.safe_load((CONFIGS / "train.yaml").read_text())
        for file in (CONFIGS / "architecture").glob("*.yaml"):
            for group, values in yaml.safe_load(file.read_text()).items():
                if group != "defaults":
                    assert not [key for key in values if values[key] == defaults[group].get(key, values)], file.stem

    @pytest.mark.parametrize("file", [file for file in FILES if file.parent.name == "search"], ids=str)
    def test_search_keys_name_fields(self, file: Path) -> None:
        # That they name fields is refused otherwise; that the values fit is seen by setting each end of a range.
        settings = loaded(f"search={file.stem}")
        for group in ("architecture", "training", "augmentation"):
            for key, distribution in getattr(settings.search, group).items():
                for value in (distribution.low, distribution.high):
                    dataclasses.replace(getattr(settings, group), **{key: value})
        for name, distributions in settings.search.optimizer.items():
            for key, distribution in distributions.items():
                for value in (distribution.low, distribution.high):
                    dataclasses.replace(settings.optimizers[name], **{key: value})

    def test_shipped_is_what_a_file_builds_whatever_its_rates(self) -> None:
        for file in (CONFIGS / "architecture").glob("*.yaml"):
            assert is_shipped(loaded(f"architecture={file.stem}", "architecture.drop_rate=0.3").architecture)
        for word in ("+architecture.kwargs.speed=3", "architecture.min_final_map=9", "architecture.name=resnet50"):
            assert not is_shipped(loaded(word).architecture)

    def test_mapping_survives_json_and_loads_again(self) -> None:
        import json

        settings = loaded("architecture=visiontransformer", "tuning.optimizers=[sgd,adamw]")
        assert load_train_config(json.loads(json.dumps(as_dict(settings)))) == settings


class TestWords:
    def test_override(self) -> None:
        settings = loaded("architecture=resnet", "training.num_epochs=3", "data.limit=1000", "optimizer=adamw")
        assert (settings.architecture.name, settings.training.num_epochs, settings.data.limit) == ("resnet18", 3, 1000)
        assert settings.optimizer.name == "adamw"

    def test_the_last_of_equal_words_counts(self) -> None:
        assert loaded("training.seed=1", "training.seed=2").training.seed == 2

    def test_plus_adds_to_what_is_open(self) -> None:
        settings = loaded("+search.training.num_epochs={low: 3, high: 8}", "+architecture.kwargs.num_filters=4")
        assert settings.search.training["num_epochs"] == Distribution(low=3, high=8)
        assert settings.architecture.kwargs["num_filters"] == 4

    def test_a_name_alone_chooses_any_network_of_timm(self) -> None:
        settings = loaded("architecture.name=resnet34", "architecture.drop_rate=0.2")
        assert settings.architecture == dataclasses.replace(
            loaded("architecture=timm").architecture, name="resnet34", drop_rate=0.2
        )
        assert settings.optimizer.name == "adamw"

    def test_the_name_of_an_own_network_brings_its_values(self) -> None:
        assert loaded("architecture.name=vgg") == loaded("architecture=vgg")
        assert loaded("architecture.name=convnet") == loaded()

    def test_a_name_beside_a_group_keeps_the_group(self) -> None:
        settings = loaded("architecture=resnet", "architecture.name=resnet34")
        assert settings.architecture.kwargs["channels"] == [16, 32, 64, 128]

    @pytest.mark.parametrize(
        ("word", "sentence"),
        [
            ("training.epochs=3", "training.epochs=3: there is no key 'epochs'; training has batch_size, ema_decay, "),
            ("trainin.seed=3", "trainin.seed=3: there is no key 'trainin'; the configuration has architecture, "),
            ("+training.epochs=3", "training.epochs: there is no such key; training has batch_size, ema_decay, "),
            ("+speed=3", "speed: there is no such key; the configuration has architecture, augmentation, "),
            ("architecture=resnet50", "architecture=resnet50: no such option; architecture is one of convnet, "),
            ("optimizer=adam", "optimizer=adam: no such option; optimizer is one of adamw, muon, sgd"),
            ("tuning=false", "tuning=false: no such option; tuning is one of off, on"),
            ("search=none", "search=none: no such option; search is one of default, drop_path"),
            ("optimizer.name=adam", "optimizer.name must be 'sgd', 'adamw' or 'muon', got 'adam'"),
            ("tuning.optimizers=[muon,adam]", "tuning.optimizers.1 must be 'sgd', 'adamw' or 'muon', got 'adam'"),
            ("tuning.optimizers=[sgd]", "tuning.optimizers must hold the configured optimizer muon, got sgd; "),
            ("training.num_epochs=x", "training.num_epochs: input should be a valid integer, .*, got 'x'"),
            ("training.num_epochs=3.5", "training.num_epochs: .*fractional part, got 3.5"),
            ("training.num_epochs=null", "training.num_epochs: input should be a valid integer, got None"),
            ("training.num_epochs=true", "training.num_epochs must be a number, got true"),
            ("training.label_smoothing=false", "training.label_smoothing must be a number, got false"),
            ("training=3", "training: input should be a dictionary.*, got 3"),
            ("~training.seed", "training.seed: field required"),
            ("training", "'training' is not a configuration override: write key=value, e.g. "),
            ("training.seed='", '"training.seed=\'" is not a configuration override'),
            ("=3", "'=3' is not a configuration override"),
            ("hydra.run.dir=x", "hydra.run.dir=x: settings of Hydra itself have no effect here; FASHION_HOME=FOLDER"),
            ("hydra/launcher=x", "hydra/launcher=x: settings of Hydra itself have no effect here"),
            ("data.name=${nonsense}", "'nonsense' not found"),
            ("+search.training.speed={low: 1, high: 2}", "search.training: there is no key 'speed' to search; .*seed"),
            ("+search.optimizer.muon.speed={low: 1, high: 2}", "search.optimizer.muon: there is no key 'speed'"),
            ("+search.optimizer.adam={}", "search.optimizer.adam: optimizers are "),
            ("+search.training.seed={low: 2, high: 1}", "search.training.seed: low must be below high, got 2 and 1"),
            ("+search.training.seed={low: 2}", "search.training.seed: give either low and high or choices"),
            ("+search.training.seed={choices: []}", "search.training.seed: choices must not be empty"),
            ("+search.training.seed={lowest: 2}", "search.training.seed.lowest: there is no such key"),
            ("search.optimizer.sgd.learning_rate.low=0", "a log range must start above 0, got 0"),
        ],
    )
    def test_a_wrong_word_is_named_with_what_is_allowed(self, word: str, sentence: str) -> None:
        import re

        assert re.search(sentence, refused(word)), refused(word)

    def test_one_wrong_word_among_others_is_named(self) -> None:
        assert refused("training.seed=3", "training.sed=4").startswith("training.sed=4: there is no key 'sed'")

    def test_several_wrong_values_are_one_sentence(self) -> None:
        sentence = refused("training.seed=x", "data.size=y")
        assert "training.seed" in sentence
        assert "data.size" in sentence


# A valid word, changed to each side of what is allowed: (key, refused values, accepted values).
BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("data.class_names", ["[a]", "[a,a]"], ["[a,b]"]),
    ("data.channels", [0, 2, 4], [1, 3]),
    ("data.size", [7], [8, 224]),
    ("data.preparation", ["none", "null"], ["product_photo", "whole_picture", "handwriting"]),
    ("data.val_fraction", [0, 1, -0.1, "nan"], [0.01, 0.9]),
    ("data.split_seed", [-1, 2**32], [0]),
    ("data.limit", [9, -1], ["null", 10]),
    ("data.live_rows", [-1], [0, 5000]),
    ("data.model", ["''", "a/b", "a'b"], ["shoes", "two words"]),
    ("data.words", ["{title: ''}", "{subject: ' '}", "{headline: x}"], ["{}", "{title: Shoes, subject: Schuhe}"]),
    ("architecture.min_final_map", [0], [1]),
    ("architecture.drop_rate", [-0.1, 1, "nan"], [0, 0.9]),
    ("architecture.drop_path_rate", [-0.1, 1], ["null", 0, 0.9]),
    ("architecture.precision", ["16", "bf16"], ["32-true", "bf16-mixed"]),
    ("optimizer.learning_rate", [0, -1, "nan"], [1e-6]),
    ("optimizer.weight_decay", [-1e-9, "nan"], [0, 1]),
    ("optimizer.momentum", [-0.1, 1], [0, 0.99]),
    ("optimizer.head_learning_rate", [0, -1], ["null", 0.1]),
    ("optimizer.warmup_fraction", [-0.1, 1], [0, 0.9]),
    ("optimizer.schedule", ["constant"], ["linear", "cosine"]),
    ("augmentation.crop_padding", [-1], [0, 4]),
    ("augmentation.flip", ["vertical"], ["none", "random", "alternating"]),
    ("augmentation.erase_probability", [-0.1, 1.1], [0, 1]),
    ("augmentation.distort_share", [-0.1, 1.1], [0, 1]),
    ("augmentation.erase_scale", ["[0,0.2]", "[0.3,0.2]", "[0.1,1]", "[0.1]"], ["[0.1,0.1]", "[0.1,0.9]"]),
    ("training.num_epochs", [0, -1], [1]),
    ("training.min_steps", [-1], [0, 400]),
    ("training.logit_adjustment", [-0.1, 1.5], [0, 0.5]),
    ("training.batch_size", [0, 1], [2]),
    ("training.label_smoothing", [-0.1, 1], [0, 0.9]),
    ("training.ema_decay", [0, 1], ["null", 0.999]),
    ("training.gradient_clip_norm", [0, -1], ["null", 1]),
    ("training.patience_to_diverge", [0, 1.1], [0.1, 1]),
    ("training.num_threads", [0], [1]),
    ("training.seed", [-1, 2**32], [0]),
    ("tuning.num_trials", [0, 1], [2]),  # fewer than workers
    ("tuning.num_workers", [0, 7], [1, 6]),
    ("tuning.num_epochs", [0], [1]),
    ("tuning.prune_after", [-0.1, 1.1], [0, 1]),
    ("tuning.keep_percentile", [0, 101], [1, 100]),
    ("tuning.min_improvement", [-0.1, "nan"], [0]),
    ("tuning.seed", [-1], [0]),
    ("export.precision", ["int4", "16"], ["float32", "int8"]),
    ("gate.champion", ["none"], ["ignore"]),
    ("gate.min_accuracy_over_chance", [-0.1, 1], [0, 0.9]),
    ("gate.margin", [-0.1, 1], [0]),
    ("gate.confidence", [0.5, 1], [0.9]),
    ("gate.max_class_drop", [-0.1, 1.1], [0, 1]),
    ("gate.max_ece_increase", [-0.1], [0]),
    ("gate.max_latency_ratio", [0], [1]),
    ("gate.min_feedback_rows", [0], [1]),
    ("feedback.rolled_back", ["forget"], ["learn"]),
    ("gate.max_shifted_drop", [-0.1, 1.1], [0, 1]),
    ("feedback.holdout", [0, 1], [0.1, 0.9]),
    ("feedback.max_rows", [0], [1]),
    ("feedback.repeat", [0], [1, 10]),
    ("tracking.experiment", ["''", "../x", "a/../b", "a//b", "a'b", ".x"], ["other", "team/a b", "/Users/me@host/x"]),
    (
        "tracking.registered_model",
        ["''", "a/b", "'a:b'", "men's shoes", "x' or 1=1", "' '", "a%2Fb", ".."],
        ["other-model", "shoes of men", "Schuhe für Männer", "v1.2_b"],
    ),
    ("resources.cpu", [0], [1]),
    ("resources.gpu", [-1], [0, 1]),
    ("resources.memory", [0], [1]),
    ("resources.nodes", [0], [1, 2]),
    ("resources.rank_timeout_minutes", [0], [0.5]),
    ("resources.timeout_minutes", [0, -1], [1]),
]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return compose()


@pytest.mark.parametrize(("key", "wrong", "right"), BOUNDS, ids=[key for key, _, _ in BOUNDS])
def test_bounds(key: str, wrong: list[Any], right: list[Any], composed: dict[str, Any]) -> None:
    group, field = key.split(".")

    def with_value(value: Any) -> dict[str, Any]:
        parsed = yaml.safe_load(value) if isinstance(value, str) and value != "16" else value
        return {**composed, group: {**composed[group], field: float("nan") if value == "nan" else parsed}}

    for value in right:
        load_train_config(with_value(value))
    for value in wrong:
        with pytest.raises(ConfigError, match=field) as caught:
            load_train_config(with_value(value))
        assert group in str(caught.value)


def test_every_field_has_bounds_or_any_value_will_do(composed: dict[str, Any]) -> None:
    free = {"data.name", "data.manifest", "data.sources", "data.mirrored", "architecture.name", "architecture.kwargs"}
    free |= {"architecture.pretrained", "architecture.channels_last", "tuning.enabled", "tuning.optimizers"}
    free |= {"gate.approval", "gate.canary"}
    free |= {"optimizer.name", "feedback.use"}  # refused by TestWords
    groups = (
        "data",
        "architecture",
        "optimizer",
        "augmentation",
        "training",
        "tuning",
        "export",
        "gate",
        "feedback",
        "tracking",
        "resources",
    )
    fields = {f"{group}.{field}" for group in groups for field in composed[group]}
    assert fields - free == {key for key, _, _ in BOUNDS}


class TestHydraArgs:
    def test_words_are_split_as_a_shell_would(self) -> None:
        text = "architecture=resnet  data.name='two words'\n'+search.training.num_epochs={low: 3, high: 8}'"
        words = parse_overrides(text)
        assert words == ["architecture=resnet", "data.name=two words", "+search.training.num_epochs={low: 3, high: 8}"]
        assert loaded(*words).data.name == "two words"

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
    def test_quoted_words_come_back(self, words: list[str]) -> None:
        assert parse_overrides(shlex.join(words)) == words

    def test_an_open_quote_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r".* is not a list of key=value overrides as in HYDRA_ARGS: No closing"):
            parse_overrides("data.name='two words")


class TestServeConfig:
    def served(self, *words: str) -> ServeConfig:
        return load_as(ServeConfig, compose(words, root="serve"))

    def test_defaults_load(self) -> None:
        settings = self.served()
        assert (settings.alias, settings.version) == ("champion", None)
        assert settings.serve.log.acknowledge == "local"
        assert settings.tracking == loaded().tracking

    def test_what_it_stores_can_be_loaded_again(self) -> None:
        settings = self.served("serve.shadow=challenger", "version=7").serve
        assert load_as(type(settings), as_dict(settings)) == settings

    @pytest.mark.parametrize(
        ("word", "sentence"),
        [
            ("serve.workers=0", "serve: workers must be between 1 and 64, got 0"),
            ("serve.canary_share=0", "serve: canary_share must be in (0, 0.5], got 0.0"),
            ("serve.canary_share=0.6", "serve: canary_share must be in (0, 0.5], got 0.6"),
            ("serve.canary_margin=1", "serve: canary_margin must be in [0, 1), got 1.0"),
            ("serve.review_checks=0.3", "serve: review_checks must be in [0, 0.25], got 0.3"),
            ("serve.gallery=-1", "serve: gallery must be between 0 and 200, got -1"),
            ("serve.limits.body_bytes=0", "serve.limits: body_bytes must be at least 1, got 0"),
            (
                "serve.limits.requests_per_minute=0",
                "requests_per_minute must be at least 1, or null for no limit, got 0",
            ),
            (
                "serve.limits.feedback_per_minute=0",
                "feedback_per_minute must be at least 1, or null for no limit, got 0",
            ),
            ("serve.limits.body_seconds=0", "serve.limits: body_seconds must be positive, got 0"),
            ("serve.log.remote_seconds=0", "serve.log: remote_seconds must be positive, got 0"),
            ("serve.log.drain_seconds=-1", "serve.log: drain_seconds must not be negative, got -1"),
            ("serve.log.retention_days=0", "serve.log: retention_days must be positive, got 0"),
            ("version=0", "version must be at least 1, got 0"),
            ("alias=' '", "alias must not be empty"),
        ],
    )
    def test_nonsense_is_refused(self, word: str, sentence: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.served(word)
        assert sentence in str(caught.value)
