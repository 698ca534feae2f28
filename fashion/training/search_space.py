"""The search space of a study: sample values, and put them into a configuration. Knows nothing of training."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import Trial

from fashion.config.compose import as_dict
from fashion.config.train import Distribution, SearchConfig, TrainConfig, load_train_config

Params = dict[str, Any]
"""Dotted configuration key -> value, as Optuna stores them."""
VAL_ROWS = "val_rows"
"""Attribute of a trial: rows that its accuracy was measured on."""


def suggest(trial: Trial, config: TrainConfig) -> Params:
    """Sample values of all parameters in the search space: dotted configuration key -> value."""
    search = config.search
    name: str = config.optimizer.name
    params: Params = {}
    if config.tuning.optimizers:
        name = params["optimizer.name"] = trial.suggest_categorical("optimizer.name", config.tuning.optimizers)
    for key, distribution in search.optimizer.get(name, {}).items():
        configured = getattr(config.optimizers[name], key)
        params[f"optimizer.{key}"] = _sample(trial, f"{name}.{key}", distribution, configured)
    for group, distributions in _groups(search).items():
        for key, distribution in distributions.items():
            configured = getattr(getattr(config, group), key)
            params[f"{group}.{key}"] = _sample(trial, f"{group}.{key}", distribution, configured)
    return params


def configured_params(config: TrainConfig) -> Params:
    """The configuration's own values, under the names that `suggest` gives Optuna."""
    name = config.optimizer.name
    params: Params = {"optimizer.name": name} if config.tuning.optimizers else {}
    for key, distribution in config.search.optimizer.get(name, {}).items():
        params[f"{name}.{key}"] = _clipped(getattr(config.optimizer, key), distribution)
    for group, distributions in _groups(config.search).items():
        for key, distribution in distributions.items():
            params[f"{group}.{key}"] = _clipped(getattr(getattr(config, group), key), distribution)
    return params


def with_params(config: TrainConfig, params: Mapping[str, Any]) -> TrainConfig:
    """The configuration with some values replaced.

    Args:
        config: the configuration.
        params: dotted key -> value, as `suggest` returns them.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or a key does not exist.
    """
    mapping = as_dict(config)
    name = params.get("optimizer.name", config.optimizer.name)
    if name != config.optimizer.name and name in config.optimizers:
        mapping["optimizer"] = as_dict(config.optimizers[name])
    for key, value in params.items():
        group, _, field = key.partition(".")
        mapping.setdefault(group, {})[field] = value
    return load_train_config(mapping)


def _groups(search: SearchConfig) -> dict[str, dict[str, Distribution]]:
    return {
        "architecture": search.architecture,
        "training": search.training,
        "augmentation": search.augmentation,
    }


def _sample(trial: Trial, name: str, distribution: Distribution, configured: Any) -> Any:
    if distribution.choices is not None:
        return trial.suggest_categorical(name, distribution.choices)
    low, high = distribution.low, distribution.high
    # {low: 0, high: 1} may be of a probability: the configured value decides.
    if isinstance(low, int) and isinstance(high, int) and isinstance(configured, int):
        return trial.suggest_int(name, low, high, log=distribution.log)
    assert low is not None
    assert high is not None
    return trial.suggest_float(name, low, high, log=distribution.log)


def _clipped(value: Any, distribution: Distribution) -> Any:
    """A configured value, moved into the range that a study may try: Optuna rejects others."""
    if distribution.choices is not None:
        return value if value in distribution.choices else distribution.choices[0]
    assert distribution.low is not None
    assert distribution.high is not None
    return distribution.low if value is None else min(max(value, distribution.low), distribution.high)
